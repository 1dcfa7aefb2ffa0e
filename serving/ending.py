"""How background tasks are ended. Which tasks an application has is not known here."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

AGAIN_SECONDS = 0.5


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and return when all have ended.

    Each is cancelled again while it lives: the Redis client turns a cancellation that meets an open
    connection into an error of its own, and a loop that outlives errors then outlives this one.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
