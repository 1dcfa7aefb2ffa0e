"""Blocking reads of the lake for the console, off the event loop: few at once, in bounded time.

They have threads of their own, so that a page over a year of history never waits in front of the
features that a prediction needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from aegisops.errors import AegisError, ServiceUnavailable
from serving.problem import Problem

if TYPE_CHECKING:
    from aegisops.lake import Lake

Found = TypeVar("Found")

THREADS = 2
WAITING = 32
"""Reads that may wait for a thread; the next is refused."""
COLD_SECONDS = 10.0
"""Added until the first read is done: it imports polars and deltalake."""


class LakeReads:
    """Runs functions of the lake. Runs on one event loop."""

    def __init__(self, lake: Callable[[], Lake], budget_seconds: float) -> None:
        """`lake` makes the edge at first use; `budget_seconds`: longest time of one read."""
        self._make = lake
        self._budget = budget_seconds
        self._lake: Lake | None = None
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="console-lake")
        self._busy = 0

    async def run(self, read: Callable[[Lake], Found]) -> Found:
        """What `read` finds.

        Raises `Problem` overloaded when too many reads wait, and `ServiceUnavailable` when it takes
        too long or the lake cannot be read. A read that is too late runs on and frees its thread
        when it is done: it cannot be interrupted.
        """
        if self._busy >= THREADS + WAITING:
            raise Problem("overloaded", "Too many reads of the lake wait.", {"Retry-After": "2"})
        self._busy += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, self._call, read)
        future.add_done_callback(self._done)
        budget = self._budget + (COLD_SECONDS if self._lake is None else 0.0)
        try:
            async with asyncio.timeout(budget):
                return await asyncio.shield(future)
        except TimeoutError:
            raise ServiceUnavailable(
                f"the lake did not answer in {budget:g} s; ask for a shorter span, or see whether "
                "its tables wait for maintenance"
            ) from None

    def close(self) -> None:
        """Let go of the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _call(self, read: Callable[[Lake], Found]) -> Found:
        if self._lake is None:
            self._lake = self._make()
        try:
            return read(self._lake)
        except (AegisError, Problem):
            raise
        except Exception as error:  # polars and deltalake raise many kinds
            raise ServiceUnavailable(f"the lake cannot be read: {error}") from error

    def _done(self, future: asyncio.Future[Found]) -> None:
        self._busy -= 1
        if not future.cancelled():
            future.exception()  # taken, so that a late failure is not reported as never retrieved
