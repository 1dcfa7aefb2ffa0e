from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from serving import problem
from serving.limits import Limits, stepping_aside

pytestmark = pytest.mark.anyio


class Slow:
    """Answers when told; counts how many are inside at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.inside = 0
        self.most = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        while (await receive()).get("more_body"):
            pass
        await self.go.wait()
        self.inside -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def client_of(app: Limits) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api")


async def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_beyond_the_queue_requests_are_refused_at_once_and_the_rest_is_answered() -> None:
    slow = Slow()
    reasons: list[str] = []
    limits = Limits(slow, concurrency=2, queue=3, refused=reasons.append)
    async with client_of(limits) as client:
        calls = [asyncio.create_task(client.get("/api/v1/x")) for _ in range(10)]
        await until(lambda: sum(call.done() for call in calls) == 5)
        refused = [call.result() for call in calls if call.done()]
        for answer in refused:
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["type"] == "/api/problems/overloaded"
        slow.go.set()
        answers = await asyncio.gather(*calls)
        assert sorted(a.status_code for a in answers) == [200] * 5 + [429] * 5
        assert slow.most == 2
        assert reasons == ["overloaded"] * 5
        assert (await client.get("/api/v1/x")).status_code == 200


async def test_a_request_does_not_wait_for_ever() -> None:
    slow = Slow()
    limits = Limits(slow, concurrency=1, queue=5, max_wait_seconds=0.02)
    async with client_of(limits) as client:
        first = asyncio.create_task(client.get("/api/v1/x"))
        await until(lambda: slow.inside == 1)
        assert (await client.get("/api/v1/x")).status_code == 429
        slow.go.set()
        assert (await first).status_code == 200
        assert (await client.get("/api/v1/x")).status_code == 200


async def test_a_queue_that_does_not_empty_lets_nobody_wait_long() -> None:
    slow = Slow()
    limits = Limits(slow, concurrency=1, queue=5, max_wait_seconds=10)
    async with client_of(limits) as client:
        first = [asyncio.create_task(client.get("/api/v1/x")) for _ in range(2)]
        await until(lambda: len(limits._waiting) == 1)
        limits._queued_since -= 1  # it has been standing for a second
        assert (await client.get("/api/v1/x")).status_code == 429
        slow.go.set()
        assert {a.status_code for a in await asyncio.gather(*first)} == {200}


async def test_who_waits_for_another_system_gives_its_place_to_others() -> None:
    lake, inside = asyncio.Event(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        inside.append(scope["path"])
        if scope["path"].endswith("lake"):
            with stepping_aside():
                await lake.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    limits = Limits(app, concurrency=1, queue=0)
    async with client_of(limits) as client:
        waiting = asyncio.create_task(client.get("/api/v1/lake"))
        await until(lambda: inside)
        assert (await client.get("/api/v1/x")).status_code == 200
        lake.set()
        assert (await waiting).status_code == 200
        assert limits._busy == 0


async def test_a_caller_who_leaves_the_queue_takes_no_place() -> None:
    slow = Slow()
    limits = Limits(slow, concurrency=1, queue=5)
    async with client_of(limits) as client:
        first = asyncio.create_task(client.get("/api/v1/x"))
        await until(lambda: slow.inside == 1)
        second = asyncio.create_task(client.get("/api/v1/x"))
        await asyncio.sleep(0.01)
        second.cancel()
        slow.go.set()
        await first
        assert (await client.get("/api/v1/x")).status_code == 200


async def test_probes_are_never_queued() -> None:
    slow = Slow()
    limits = Limits(slow, concurrency=1, queue=0)
    slow.go.set()
    async with client_of(limits) as client:
        answers = await asyncio.gather(*(client.get("/livez") for _ in range(5)))
    assert {a.status_code for a in answers} == {200}


async def test_a_large_body_is_refused_by_its_declared_length() -> None:
    slow = Slow()
    async with client_of(Limits(slow, concurrency=1, queue=0, max_body=10)) as client:
        answer = await client.post("/api/v1/x", content=b"x" * 11)
    assert answer.status_code == 413
    assert slow.most == 0


async def test_a_large_body_without_a_length_is_refused_as_it_comes() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 8

    app = FastAPI()
    problem.install(app)

    @app.post("/api/v1/x")
    async def read(request: Request) -> int:
        return len(await request.body())

    async with client_of(Limits(app, concurrency=1, queue=0, max_body=100)) as client:
        answer = await client.post("/api/v1/x", content=endless())
        assert answer.status_code == 413
        assert answer.json()["type"] == "/api/problems/too-large"
        assert (await client.post("/api/v1/x", content=b"ok")).json() == 2
