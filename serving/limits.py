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


class Limits:
    """Concurrency and body-size limits for paths under LIMITED.

    Args:
        app: the ASGI application behind.
        concurrency: requests worked on at once.
        queue: requests that may wait for a place; the next one gets 429.
        max_wait_seconds: longest wait in the queue; then 429 too.
        max_body: bytes of a request body; more gets 413.
        unlimited: paths that are never queued because their answer does not end by itself; they
            bring limits of their own.
        refused: called with the reason (`overloaded`, `too_large`) at each refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        concurrency: int,
        queue: int,
        max_wait_seconds: float = 1.0,
        max_body: int = 4 * 1024 * 1024,
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
        length = _declared_length(scope)
        if length is not None and length > self._max_body:
            self._refused("too_large")
            await self._too_large().response(scope["path"])(scope, receive, send)
            return
        if not await self._enter():
            self._refused("overloaded")
            problem = Problem(
                "overloaded",
                f"{self._concurrency} requests are being answered and up to {self._queue} wait.",
                {"Retry-After": "1"},
            )
            await problem.response(scope["path"])(scope, receive, send)
            return
        try:
            # A body without a declared length is counted as it comes.
            _place.set(self)
            await self._app(scope, receive if length is not None else self._bounded(receive), send)
        finally:
            self._leave()

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

    def _bounded(self, receive: Receive) -> Receive:
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                self._refused("too_large")
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> Problem:
        return Problem("too-large", f"A request body may have {self._max_body} bytes.")


_place: ContextVar[Limits | None] = ContextVar("_place", default=None)


def stepping_aside() -> AbstractContextManager[None]:
    """Give this request's place to others while it waits for another system, not for this one."""
    limits = _place.get()
    return nullcontext() if limits is None else limits._left()  # noqa: SLF001 - its own class


def _declared_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
