"""The live side of the Redis edge: what changed, for the API's telemetry endpoint.

The capped streams `raw:{machine_id}` are the truth about readings; PUBLISH is only the bell that
rings after a flush, so a lost bell loses nothing. A position is a moment of Redis' own clock: every
stream entry up to and including that millisecond. It holds for all machines and all API processes.

Registrations and vectors: aegisops.online_store.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aegisops import names
from aegisops.online_store import RAW_ENTRIES, Client, connect_async, translated
from aegisops.settings import RedisSettings

Inbox = Callable[[float], Awaitable[tuple[str, bytes] | None]]
"""Next (channel, message), or None when nothing came within that many seconds."""

CHANNELS = (names.TELEMETRY_CHANNEL, names.PREDICTIONS_CHANNEL, names.ALARMS_CHANNEL)


@dataclass(frozen=True, slots=True)
class Now:
    """Redis' clock and which incarnation of its data this is."""

    ms: int
    """Last complete millisecond: no entry will ever be added at or before it."""
    epoch: str
    """Changes when Redis was emptied."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Raw batches of one machine in a span, oldest first."""

    batches: Sequence[tuple[int, bytes]]
    """(ms, JSON as the feature worker wrote it)."""
    is_whole: bool
    """False when entries of the span may have been trimmed away."""


class TelemetryStream:
    """Reads of the raw streams, and the channels."""

    def __init__(self, client: Client) -> None:
        self._redis = client

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> TelemetryStream:
        """Stream at the configured address; nothing is sent yet."""
        return cls(connect_async(settings))

    async def now(self) -> Now:
        """Redis' present. The epoch is made at the first call after Redis was emptied."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            pipe.set(names.TELEMETRY_EPOCH_KEY, uuid.uuid4().hex[:8], nx=True)
            pipe.get(names.TELEMETRY_EPOCH_KEY)
            pipe.time()
            _, epoch, (seconds, microseconds) = await pipe.execute()
        return Now(seconds * 1_000 + microseconds // 1_000 - 1, epoch.decode())

    async def read(
        self, machine_ids: Sequence[str], after: int, upto: int, *, check: bool
    ) -> dict[str, Entries]:
        """Entries of the machines in (after, upto] ms; with `check`, whether that is all of them.

        The check is careful: a full stream that begins behind `after` counts as trimmed, even if
        nothing was. Oldest entry and length are read after the span, so that a trim in between
        shows.
        """
        if not machine_ids or upto <= after:
            return {}
        each = 3 if check else 1
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for machine_id in machine_ids:
                key = names.raw_key(machine_id)
                pipe.xrange(key, after + 1, upto)
                if check:
                    pipe.xrange(key, count=1)
                    pipe.xlen(key)
            replies = await pipe.execute()
        found = {}
        for i, machine_id in enumerate(machine_ids):
            rows, *rest = replies[i * each : (i + 1) * each]
            is_whole = True
            if rest and rest[1] >= RAW_ENTRIES:
                is_whole = bool(rest[0]) and _ms(rest[0][0][0]) <= after
            if rows or not is_whole:
                found[machine_id] = Entries([(_ms(e), f[b"b"]) for e, f in rows], is_whole)
        return found

    async def publish(self, channel: str, message: bytes) -> None:
        """One message to whoever listens; nobody listening is no error."""
        with translated():
            await self._redis.publish(channel, message)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[Inbox]:
        """One subscription to all channels."""
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)

        async def get(seconds: float) -> tuple[str, bytes] | None:
            with translated():
                message = await pubsub.get_message(timeout=seconds)
            if message is None:
                await asyncio.sleep(0)  # a confirmation of the subscription returns at once
                return None
            return message["channel"].decode(), message["data"]

        try:
            with translated():
                await pubsub.subscribe(*CHANNELS)
            yield get
        finally:
            await pubsub.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _ms(entry: bytes) -> int:
    return int(entry.partition(b"-")[0])
