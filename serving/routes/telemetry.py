"""GET /telemetry: live readings, features and predictions, as server-sent events or a WebSocket.

Transport only: fan-out is serving.telemetry, replay is serving.telemetry_feed. A send that the
client does not take within STALL_SECONDS ends its stream, whatever its queue holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, WebSocket
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aegisops.errors import AegisError, UnknownMachine
from aegisops.tokens import LEEWAY_SECONDS, Principal
from serving.auth import Authenticator, Viewer
from serving.contract import TELEMETRY_EXAMPLE, TelemetryRequest
from serving.problem import KINDS, Problem, of
from serving.routes.http import documented_errors, service_of
from serving.service import Service
from serving.telemetry import Kind, Message, Subscription, TooManyClients, message

router = APIRouter(tags=["telemetry"])

PATH = "/telemetry"
EVENTS = "text/event-stream"
PROTOCOL = "aegis.telemetry.v1"
BEARER = "bearer."
"""Prefix of the subprotocol that carries a token: browsers cannot set headers on a WebSocket."""
GREETING_SECONDS = 5.0
GREETINGS = 64
"""WebSockets that may be silent before their first message at once."""
STALL_SECONDS = 10.0


@router.get(
    PATH,
    summary="Live readings, features and predictions",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events until the client leaves. Each event's data is a "
            "JSON object with `v` (1; fields are only ever added), `type` and its members; see "
            "docs/telemetry.md. The same path speaks WebSocket.",
            "content": {EVENTS: {"schema": {"type": "string"}, "example": TELEMETRY_EXAMPLE}},
        },
        **documented_errors("unknown-machine", "invalid", "unavailable"),
    },
)
async def events(
    request: Request,
    principal: Viewer,
    machine_id: Annotated[list[str] | None, Query(description="None = all you may see")] = None,
    kind: Annotated[list[Kind] | None, Query(description="None = all")] = None,
    last_event_id: Annotated[str | None, Header(description="Resume behind this event")] = None,
) -> Response:
    """`Last-Event-ID` resumes without a gap or a double while the span is kept; else `gap` says so.

    A client that reads too slowly gets `dropped`, and is closed when it does not catch up.
    """
    service = service_of(request)
    subscription = await _attach(service, principal, machine_id, kind)
    return EventStream(subscription, _messages(service, principal, subscription, last_event_id))


@router.websocket(PATH)
async def live(websocket: WebSocket) -> None:
    """The same messages, one a text frame, after the client's first message (TelemetryRequest)."""
    service: Service = websocket.app.state.service
    authenticator: Authenticator = websocket.app.state.authenticator
    offered = websocket.scope.get("subprotocols", [])
    path = websocket.url.path
    if service.greetings >= GREETINGS:
        busy = Problem("overloaded", "Too many WebSockets are silent.", {"Retry-After": "5"})
        await websocket.send_denial_response(busy.response(path))
        return
    try:
        header = _authorization(websocket.headers, offered)
        principal = authenticator.principal(header) if header else None
    except Problem as problem:
        await websocket.send_denial_response(problem.response(path))
        return
    service.greetings += 1
    try:
        await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
        asked = await _greeting(websocket)
    except (Problem, ValidationError) as error:
        await _refuse(websocket, of(error))
        return
    finally:
        service.greetings -= 1
    if asked is None:
        return
    try:
        if principal is None:
            token = asked.token.get_secret_value() if asked.token else ""
            principal = authenticator.principal(f"Bearer {token}")
        subscription = await _attach(service, principal, asked.machine_ids, asked.kinds)
    except (Problem, AegisError) as error:
        await _refuse(websocket, of(error))
        return
    await _talk(websocket, subscription, _messages(service, principal, subscription, asked.since))


class EventStream(Response):
    """Messages as server-sent events. Notices a client that left or stopped reading."""

    def __init__(self, subscription: Subscription, messages: AsyncGenerator[Message, None]) -> None:
        # Proxies such as nginx would hold events back in their buffer.
        super().__init__(media_type=EVENTS, headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._subscription = subscription
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """ASGI entry."""

        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._subscription.close()

        gone = asyncio.create_task(until_gone())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with contextlib.aclosing(self._messages) as messages:
                async for each in messages:
                    body = {"type": "http.response.body", "body": each.event, "more_body": True}
                    async with asyncio.timeout(STALL_SECONDS):
                        await send(body)
            async with asyncio.timeout(STALL_SECONDS):
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            return
        finally:
            self._subscription.close()
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


async def _talk(
    websocket: WebSocket, subscription: Subscription, messages: AsyncGenerator[Message, None]
) -> None:
    async def until_gone() -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
        subscription.close()

    gone = asyncio.create_task(until_gone())
    try:
        async with contextlib.aclosing(messages):
            async for each in messages:
                async with asyncio.timeout(STALL_SECONDS):
                    await websocket.send_text(each.text)
        if not gone.done():
            async with asyncio.timeout(STALL_SECONDS):
                await websocket.close(1001)
    except (TimeoutError, RuntimeError, OSError):
        return  # stalled, or gone between two messages
    finally:
        subscription.close()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def _messages(
    service: Service, principal: Principal, subscription: Subscription, since: str | None
) -> AsyncGenerator[Message, None]:
    feed = service.telemetry
    yield feed.hello(subscription, since, service.settings.api.telemetry_heartbeat_seconds)
    if since is not None:
        try:
            async for each in feed.replay(subscription, since):
                yield each
        except AegisError as error:
            subscription.close()
            at = subscription.position
            yield message("closed", reason="unavailable", detail=str(error), resume_from=at)
            return
    while (next_one := await subscription.next()) is not None:
        if subscription.is_open and service.clock() >= principal.expires + LEEWAY_SECONDS:
            subscription.close("token-expired")
        yield next_one


async def _attach(
    service: Service,
    principal: Principal,
    machine_ids: Sequence[str] | None,
    kinds: Sequence[Kind] | None,
) -> Subscription:
    most = service.settings.api.telemetry_machines
    if machine_ids is not None and len(machine_ids) > most:
        raise _too_many(most)
    if machine_ids is None:
        fleet = await service.reader.machines()
        ids = [m.machine_id for m in fleet if principal.sees(m.site, m.area)]
        if len(ids) > most:
            raise _too_many(most)
    else:
        found = await service.reader.registered(machine_ids)
        for machine_id in machine_ids:
            machine = found.get(machine_id)
            if machine is None or not principal.sees(machine.site, machine.area):
                raise UnknownMachine(machine_id)
        ids = list(machine_ids)
    try:
        return await service.telemetry.attach(principal.subject, ids, kinds or Kind, principal.sees)
    except TooManyClients as error:
        raise Problem("overloaded", str(error), {"Retry-After": "5"}) from None


def _too_many(most: int) -> Problem:
    return Problem("invalid", f"One subscription covers {most} machines; name those you need.")


def _authorization(headers: Headers, offered: Sequence[str]) -> str | None:
    for protocol in offered:
        if protocol.startswith(BEARER):
            return f"Bearer {protocol.removeprefix(BEARER)}"
    return headers.get("authorization")


async def _greeting(websocket: WebSocket) -> TelemetryRequest | None:
    """The client's first message; None when it left."""
    try:
        async with asyncio.timeout(GREETING_SECONDS):
            received = await websocket.receive()
    except TimeoutError:
        raise Problem(
            "unauthenticated", f"No first message within {GREETING_SECONDS:g} s."
        ) from None
    if received["type"] == "websocket.disconnect":
        return None
    return TelemetryRequest.model_validate_json(received.get("text") or received.get("bytes") or "")


async def _refuse(websocket: WebSocket, problem: Problem) -> None:
    """Say why as a `problem` message, then close with 4000 + the HTTP status."""
    refusal = message("problem", problem=problem.document(websocket.url.path))
    with contextlib.suppress(RuntimeError, OSError):  # the client has left
        await websocket.send_text(refusal.text)
        await websocket.close(4_000 + KINDS[problem.name].status)
