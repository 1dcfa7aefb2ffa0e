"""The endpoint over real Redis, uvicorn and sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aegisops import names, worker_store
from aegisops.embedded import ports
from aegisops.online_store import connect as redis_connect
from aegisops.settings import Settings
from aegisops.tokens import mint
from aegisops.worker_store import PartitionUpdate, Position, WorkerStore
from serving import telemetry_feed
from serving.app import create_app
from serving.service import Service, build
from serving.telemetry import message
from tests.serving.conftest import SOUND, Fleet, Recorder

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@dataclass
class Worker:
    """Writes and announces as the feature worker does."""

    settings: Settings
    written: list[int] = field(default_factory=list)

    def flush(self, *machines: str) -> None:
        client = redis_connect(self.settings.redis)
        store, n = WorkerStore(client), len(self.written)
        at = Position("c", n)
        store.write(
            PartitionUpdate(
                positions={("t", 0): at},
                expected=store_expected(n),
                raw={
                    m: json.dumps({"readings": [["power", n, 1.0, 0]]}).encode() for m in machines
                },
            )
        )
        rows = [
            {"machine_id": m, "ts": n, "coverage": 1.0, "features": {"x": None}} for m in machines
        ]
        store.publish(json.dumps({"at": n, "machines": rows}).encode())
        self.written.append(n)
        client.close()


def store_expected(n: int) -> dict[tuple[str, int], Position | None]:
    return {("t", 0): Position("c", n - 1) if n else None}


@dataclass
class Live:
    """A served API."""

    service: Service
    settings: Settings
    address: str
    worker: Worker

    def token(self, **scope: list[str]) -> str:
        return mint(self.settings, "tester", "viewer", **scope)

    @asynccontextmanager
    async def socket(
        self, first: dict[str, object] | None = None, **scope: list[str]
    ) -> AsyncIterator[ClientConnection]:
        headers = {"Authorization": f"Bearer {self.token(**scope)}"}
        async with connect(
            f"ws://{self.address}/api/v1/telemetry", additional_headers=headers
        ) as ws:
            await ws.send(json.dumps(first or {}))
            yield ws

    @asynccontextmanager
    async def events(self, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[dict]]:
        headers = {"Authorization": f"Bearer {self.token()}", **headers}
        async with (
            httpx.AsyncClient(timeout=10) as client,
            client.stream(
                "GET", f"http://{self.address}/api/v1/telemetry{query}", headers=headers
            ) as answer,
        ):
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield parsed(answer)


async def parsed(answer: httpx.Response) -> AsyncIterator[dict]:
    event: dict = {}
    async for line in answer.aiter_lines():
        if not line:
            assert event["event"] == event["data"]["type"]
            assert event.get("id") == event["data"].get("position")
            yield event["data"]
            event = {}
        else:
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value


@pytest.fixture
async def live(settings: Settings, fleet: Fleet, promoted: Path) -> AsyncIterator[Live]:
    for machine_id in ("m-1", "m-2"):
        fleet.add(machine_id, SOUND)
    fleet.add("other", SOUND, area="B")
    async with served(settings) as started:
        yield started


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[Live]:
    service = build(settings, publisher=Recorder())
    port = ports.free_port()
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), port=port, log_level="warning", ws_max_size=65_536)
    )
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not (server.started and service.telemetry.is_connected):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    yield Live(service, settings, f"127.0.0.1:{port}", Worker(settings))
    service.telemetry.hub.close()
    server.should_exit = True
    await task


async def until(ws: ClientConnection, kind: str) -> dict:
    async with asyncio.timeout(10):
        while True:
            got = json.loads(await ws.recv())
            if got["type"] == kind:
                return got


def readings(message: dict) -> list[tuple[str, int]]:
    """(machine, running number) of all readings in a message."""
    return [
        (m["machine_id"], r[1])
        for m in message["machines"]
        for b in m["batches"]
        for r in b["readings"]
    ]


async def collect(ws: ClientConnection, count: int) -> tuple[list[tuple[str, int]], str]:
    found: list[tuple[str, int]] = []
    position = ""
    while len(found) < count:
        message = await until(ws, "readings")
        found += readings(message)
        position = message["position"]
    return found, position


async def test_a_websocket_gets_readings_features_and_predictions_of_its_machine(live: Live):
    async with live.socket({"machine_ids": ["m-1"]}) as ws:
        hello = await until(ws, "hello")
        assert hello["machine_ids"] == ["m-1"]
        assert hello["v"] == 1
        live.worker.flush("m-1", "m-2")
        features = await until(ws, "features")
        assert [m["machine_id"] for m in features["machines"]] == ["m-1"]
        assert readings(await until(ws, "readings")) == [("m-1", 0)]
        for machine_id in ("m-2", "m-1"):
            await live.service.predictions.predict(machine_id, "someone")
        prediction = await until(ws, "predictions")
        (answer,) = prediction["machines"]
        assert answer["machine_id"] == "m-1"
        assert answer["served_by"] == "production"
        assert "subject" not in answer


async def test_server_sent_events_carry_the_same_and_the_kinds_asked_for(live: Live):
    async with live.events("?kind=readings&machine_id=m-2") as events:
        assert (await anext(events))["kinds"] == ["readings"]
        live.worker.flush("m-1", "m-2")
        got = await anext(events)
        assert got["type"] == "readings"
        assert readings(got) == [("m-2", 0)]


async def test_a_client_that_comes_back_gets_every_reading_once(live: Live):
    machines = ["m-1", "m-2"]
    async with live.socket({"machine_ids": machines}) as ws:
        await until(ws, "hello")
        for n in range(6):
            live.worker.flush(machines[n % 2])
        seen, position = await collect(ws, 3)
    for n in range(6):
        live.worker.flush(machines[n % 2])
    async with live.socket({"machine_ids": machines, "since": position}) as ws:
        live.worker.flush(*machines)
        rest, _ = await collect(ws, 14 - len(seen))
    expected = [(machines[n % 2], n) for n in range(12)] + [("m-1", 12), ("m-2", 12)]
    assert sorted(seen + rest) == sorted(expected)


async def test_last_event_id_resumes_server_sent_events_on_another_api_process(
    live: Live, settings: Settings
):
    async with live.events("?machine_id=m-1") as events:
        position = (await anext(events))["position"]
    live.worker.flush("m-1")
    live.worker.flush("m-1")
    found: list[tuple[str, int]] = []
    query, headers = "?machine_id=m-1&kind=readings", {"Last-Event-ID": position}
    async with served(settings) as other, other.events(query, **headers) as events:
        async for got in events:
            assert got["type"] != "gap"
            found += readings(got) if got["type"] == "readings" else []
            if len(found) == 2:
                break
    assert found == [("m-1", 0), ("m-1", 1)]


async def test_a_trimmed_span_is_a_gap_and_what_is_kept_comes(live: Live, monkeypatch):
    monkeypatch.setattr(worker_store, "RAW_ENTRIES", 1)
    monkeypatch.setattr("aegisops.telemetry_stream.RAW_ENTRIES", 1)
    live.worker.flush("m-1")
    async with live.socket({"machine_ids": ["m-1"]}) as ws:
        position = (await until(ws, "hello"))["position"]
    await asyncio.sleep(0.002)  # the next millisecond of Redis
    for _ in range(2):
        live.worker.flush("m-1")
    redis = redis_connect(live.settings.redis)
    redis.xtrim(names.raw_key("m-1"), maxlen=1, approximate=False)
    redis.close()
    async with live.socket({"machine_ids": ["m-1"], "since": position}) as ws:
        gap = await until(ws, "gap")
        assert (gap["reason"], gap["machine_ids"]) == ("trimmed", ["m-1"])
        found, _ = await collect(ws, 1)
        assert found == [("m-1", 2)]


@pytest.mark.parametrize("since", ["nonsense", "99999999999999-abc", "1-otherepoch", "٣-x"])
async def test_an_unknown_position_is_a_gap_not_a_silent_start(live: Live, since: str):
    async with live.socket({"since": since}) as ws:
        gap = await until(ws, "gap")
        assert gap["reason"] == "unknown-position"
        assert gap["after"] == since


async def test_an_emptied_redis_is_a_gap_for_those_who_listen(live: Live, fleet: Fleet):
    async with live.socket({"machine_ids": ["m-1"]}) as ws:
        await until(ws, "hello")
        redis = redis_connect(live.settings.redis)
        redis.flushdb()
        redis.close()
        await live.service.telemetry.pull()
        assert (await until(ws, "gap"))["reason"] == "redis-emptied"
        live.worker.flush("m-1")
        assert readings(await until(ws, "readings")) == [("m-1", 0)]


async def test_a_reading_whose_bell_was_lost_still_comes(live: Live, monkeypatch):
    async with live.socket({"kinds": ["readings"]}) as ws:
        await until(ws, "hello")
        monkeypatch.setattr(WorkerStore, "publish", lambda *_: None)
        live.worker.flush("m-1")
        assert readings(await until(ws, "readings")) == [("m-1", 0)]


async def test_heartbeats_carry_server_time_and_position(live: Live):
    async with live.socket() as ws:
        await until(ws, "hello")
        live.service.telemetry.hub.broadcast(live.service.telemetry.heartbeat())
        beat = await until(ws, "heartbeat")
        assert beat["is_live"] is True
        assert beat["server_time"].endswith("Z")
        assert beat["position"]


async def test_one_redis_subscription_serves_all_clients_of_a_process(live: Live):
    redis = redis_connect(live.settings.redis)
    async with live.socket() as a, live.socket() as b, live.events() as c:
        await until(a, "hello")
        await until(b, "hello")
        await anext(c)
        assert redis.pubsub_numsub(names.TELEMETRY_CHANNEL) == [(b"telemetry", 1)]
    redis.close()


async def test_a_token_sees_only_the_machines_of_its_areas(live: Live):
    async with live.socket(areas=["A"]) as ws:
        assert (await until(ws, "hello"))["machine_ids"] == ["m-1", "m-2"]
        live.worker.flush("m-1", "other")
        assert readings(await until(ws, "readings")) == [("m-1", 0)]
    async with live.socket({"machine_ids": ["other"]}, areas=["A"]) as ws:
        refusal = await until(ws, "problem")
        assert refusal["problem"]["status"] == 404
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 4_404


async def test_a_token_may_come_as_subprotocol_or_first_message_but_not_in_the_url(live: Live):
    url, token = f"ws://{live.address}/api/v1/telemetry", live.token()
    protocols = ["aegis.telemetry.v1", f"bearer.{token}"]
    async with connect(url, subprotocols=protocols) as ws:
        assert ws.subprotocol == "aegis.telemetry.v1"
        await ws.send("{}")
        await until(ws, "hello")
    async with connect(url) as ws:
        await ws.send(json.dumps({"token": token}))
        await until(ws, "hello")
    async with connect(f"{url}?token={token}") as ws:
        await ws.send("{}")
        assert (await until(ws, "problem"))["problem"]["status"] == 401


async def test_a_bad_token_in_the_handshake_is_refused_before_the_socket_opens(live: Live):
    headers = {"Authorization": "Bearer a.b.c"}
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://{live.address}/api/v1/telemetry", additional_headers=headers):
            pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("first", ['{"since": 1, "x": 2}', "[", "\x00", '{"kinds": ["secrets"]}'])
async def test_a_first_message_that_breaks_the_contract_is_refused(live: Live, first: str):
    headers = {"Authorization": f"Bearer {live.token()}"}
    async with connect(f"ws://{live.address}/api/v1/telemetry", additional_headers=headers) as ws:
        await ws.send(first)
        assert (await until(ws, "problem"))["problem"]["status"] == 422
    assert live.service.greetings == 0


async def test_a_stream_ends_when_its_token_expires(live: Live):
    async with live.socket() as ws:
        await until(ws, "hello")
        live.service.clock = lambda: time.time() + 9 * 3_600
        live.service.telemetry.hub.broadcast(live.service.telemetry.heartbeat())
        closed = await until(ws, "closed")
        assert closed["reason"] == "token-expired"


async def test_clients_and_machines_are_limited(settings: Settings, fleet: Fleet, promoted: Path):
    fleet.add("m-1", SOUND)
    fleet.add("m-2", SOUND)
    api = settings.api.model_copy(
        update={"telemetry_clients_per_subject": 1, "telemetry_machines": 1}
    )
    async with served(settings.model_copy(update={"api": api})) as live:
        async with live.socket() as ws:
            assert (await until(ws, "problem"))["problem"]["status"] == 422
        async with live.socket({"machine_ids": ["m-1"]}) as first:
            await until(first, "hello")
            async with live.socket({"machine_ids": ["m-1"]}) as second:
                refusal = await until(second, "problem")
                assert refusal["problem"]["status"] == 429
                assert "subject" in refusal["problem"]["detail"]
        async with asyncio.timeout(5):
            while len(live.service.telemetry.hub):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_a_replay_in_slices_is_complete(live: Live, monkeypatch):
    monkeypatch.setattr(telemetry_feed, "SLICE_MS", 2)
    async with live.socket({"machine_ids": ["m-1"]}) as ws:
        position = (await until(ws, "hello"))["position"]
    for _ in range(10):
        live.worker.flush("m-1")
    async with live.socket({"machine_ids": ["m-1"], "since": position}) as ws:
        found, _ = await collect(ws, 10)
    assert found == [("m-1", n) for n in range(10)]


async def test_a_client_that_stops_reading_is_dropped_while_others_get_everything(
    live: Live, monkeypatch
):
    monkeypatch.setattr("serving.routes.telemetry.STALL_SECONDS", 0.2)
    hub, host = live.service.telemetry.hub, live.address.split(":")
    async with live.socket() as quick:
        await until(quick, "hello")
        _, writer = await asyncio.open_connection(host[0], int(host[1]), limit=1)
        writer.write(
            f"GET /api/v1/telemetry HTTP/1.1\r\nHost: a\r\n"
            f"Authorization: Bearer {live.token()}\r\n\r\n".encode()
        )
        async with asyncio.timeout(20):
            while len(hub) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            sent = 0
            while len(hub) == 2:
                hub.broadcast(message("heartbeat", n=sent, padding="x" * 60_000))
                assert (await until(quick, "heartbeat"))["n"] == sent
                sent += 1
        assert len(hub) == 1
        writer.transport.abort()
