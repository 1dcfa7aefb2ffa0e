"""Admission: how many requests are worked on at once, how long the queue is, how big a body may be.

Pure ASGI, in front of everything else. Beyond the queue a request is refused at once with 429 and
Retry-After: an early refusal keeps the accepted ones fast. Probes and metrics are never queued.

A burst may fill the queue. A queue that does not empty for STANDING_SECONDS is overload: from then
on a request waits TARGET_SECONDS at most, or every accepted one would be late by the whole queue
(controlled delay, Nichols and Jacobson 2012).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.problem import Problem

LIMITED = "/api/v1/"
STANDING_SECONDS = 0.1
TARGET_SECONDS = 0.005
HELD_BODIES = 128 * 1024 * 1024
"""Bytes of bodies held at once, of all requests together."""


class Limits:
    """Concurrency and body-size limits for paths under LIMITED.

    Args:
        app: the ASGI application behind.
        concurrency: requests worked on at once.
        queue: requests that may wait for a place; the next one gets 429.
        max_wait_seconds: longest wait in the queue; then 429 too.
        max_body: bytes of a request body; more gets 413.
        body_seconds: longest time a body may take from the head on; then 408.
        unlimited: paths that are never queued because their answer does not end by itself; they
            bring limits of their own.
        refused: called with the reason (`overloaded`, `too_large`, `request_timeout`) each time.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        concurrency: int,
        queue: int,
        max_wait_seconds: float = 1.0,
        max_body: int = 4 * 1024 * 1024,
        body_seconds: float = 10.0,
        unlimited: frozenset[str] = frozenset(),
        refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._concurrency = concurrency
        self._queue = queue
        self._max_wait = max_wait_seconds
        self._max_body = max_body
        self._unlimited = unlimited
        self._refused = refused
        self._busy = 0
        self._held = 0
        self._body_seconds = body_seconds
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._queued_since = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if (
            scope["type"] != "http"
            or not scope["path"].startswith(LIMITED)
            or scope["path"] in self._unlimited
        ):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(_declared_length(scope), receive)
        except Problem as refusal:
            self._refused(refusal.name.replace("-", "_"))
            await refusal.response(scope["path"])(scope, receive, send)
            return
        try:
            if not await self._enter():
                self._refused("overloaded")
                problem = Problem(
                    "overloaded",
                    f"{self._concurrency} requests are being answered and others wait.",
                    {"Retry-After": "1"},
                )
                await problem.response(scope["path"])(scope, receive, send)
                return
            try:
                _place.set(self)
                await self._app(scope, _replayed(body, receive), send)
            finally:
                self._leave()
        finally:
            self._held -= len(body)

    async def _body(self, length: int | None, receive: Receive) -> bytes:
        """The whole body, before a place is taken: who sends slowly must keep nobody else out.

        Raises `Problem` when it is too large or too slow, or others fill the memory for bodies.
        """
        if length is not None and length > self._max_body:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._max_body:
                        raise self._too_large()  # noqa: TRY301
                    self._held += len(part)
                    parts.append(part)
                    if self._held > HELD_BODIES:
                        raise Problem(  # noqa: TRY301
                            "overloaded", "Too many bodies are under way.", {"Retry-After": "1"}
                        )
                    if not message.get("more_body"):
                        return b"".join(parts)
        except BaseException as error:
            self._held -= sum(map(len, parts))
            if isinstance(error, TimeoutError):
                raise Problem(
                    "request-timeout",
                    f"The body did not come within {self._body_seconds:g} s.",
                    {"Connection": "close"},
                ) from None
            raise

    @contextmanager
    def _left(self) -> Iterator[None]:
        self._leave()
        try:
            yield
        finally:
            self._busy += 1  # it has waited for its turn before

    async def _enter(self) -> bool:
        """Take a place, waiting for one if need be; False when the queue is full or too slow."""
        if self._busy < self._concurrency:
            self._busy += 1
            return True
        if len(self._waiting) >= self._queue:
            return False
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._waiting:
            self._queued_since = now
        is_standing = now - self._queued_since > STANDING_SECONDS
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(TARGET_SECONDS if is_standing else self._max_wait):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._leave()  # granted in the same moment; pass it on
            elif place in self._waiting:
                self._waiting.remove(place)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _leave(self) -> None:
        """Hand the place to the longest waiter, still counted as busy, or give it back."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._busy -= 1

    def _too_large(self) -> Problem:
        return Problem("too-large", f"A request body may have {self._max_body} bytes.")


_place: ContextVar[Limits | None] = ContextVar("_place", default=None)


def stepping_aside() -> AbstractContextManager[None]:
    """Give this request's place to others while it waits for another system, not for this one."""
    limits = _place.get()
    return nullcontext() if limits is None else limits._left()  # noqa: SLF001 - its own class


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` as if the body had not been read yet; later messages are the client's."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed


def _declared_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
