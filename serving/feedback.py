"""Reports of what became of alerts: once per idempotency key, durable before they are confirmed.

The keys live in Redis for all API processes, and beside the outbox for this one: while Redis is
away a repeat is still known by the process that took the report.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aegisops.errors import Permanent, Retryable, ServiceUnavailable
from aegisops.idempotency import Claim, IdempotencyKeys
from aegisops.names import FEEDBACK_TOPIC
from serving.outbox import Message, Outbox

log = logging.getLogger(__name__)


class KeyReused(Permanent):
    """The idempotency key belongs to a report with other content."""


class StillWorking(Retryable):
    """Another request with this key is being carried out."""


class FeedbackBook:
    """Takes reports into the outbox and remembers their keys."""

    def __init__(
        self,
        outbox: Outbox,
        encode: Callable[[Mapping[str, Any]], bytes],
        keys: IdempotencyKeys,
    ) -> None:
        """`encode`: wire form of a feedback.avsc record."""
        self._outbox = outbox
        self._encode = encode
        self._keys = keys

    async def report(
        self,
        record: Mapping[str, Any],
        asked: Mapping[str, Any],
        first: Callable[[], Awaitable[object]] | None = None,
    ) -> bool:
        """Keep a feedback.avsc record; True when the same report was kept before.

        `asked`: what a repeat must have in common, the request as it came. `first` is done before
        a new report is kept; what it raises leaves nothing kept. Raises `KeyReused` when the
        `feedback_id` was used for another report, `StillWorking`, and `OutboxFull` when the report
        cannot be kept.
        """
        key, mark = record["feedback_id"], _mark(asked)
        name = f"feedback:{key}"
        known = self._outbox.load_state(name)
        if known is not None:
            return _same(key, known == mark)
        is_claimed = await self._claim(key, mark)
        if is_claimed is None:
            return True
        try:
            if first is not None:
                await first()
            # Another request of this process may have come in between.
            known = self._outbox.load_state(name)
            if known is None:
                message = Message(FEEDBACK_TOPIC, record["machine_id"], self._encode(record))
                self._outbox.append([message], (name, mark))
        except BaseException:
            if is_claimed:
                await self._forgive(self._keys.release(key))
            raise
        if is_claimed:
            await self._forgive(self._keys.keep(key, mark))
        return known is not None and _same(key, known == mark)

    async def _claim(self, key: str, mark: str) -> bool | None:
        """Whether the key was claimed in Redis; None when the report was kept before."""
        try:
            claim = await self._keys.claim(key, mark)
        except ServiceUnavailable as error:
            log.warning("repeats of feedback are known to this process only: %s", error)
            return False
        if claim is Claim.OTHER:
            raise KeyReused(f"{key!r} was used for another report")
        if claim is Claim.BUSY:
            raise StillWorking(f"a report with the key {key!r} is being kept; try again")
        return True if claim is Claim.NEW else None

    async def _forgive(self, work: Awaitable[None]) -> None:
        """Redis away costs the shared memory of a key, which runs out by itself."""
        try:
            await work
        except ServiceUnavailable as error:
            log.warning("an idempotency key was not noted in Redis: %s", error)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._keys.aclose()


def _mark(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(repr(sorted(asked.items())).encode()).hexdigest()


def _same(key: str, is_same: bool) -> bool:
    if not is_same:
        raise KeyReused(f"{key!r} was used for another report")
    return True
