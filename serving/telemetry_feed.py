"""From Redis to the hub: one subscription for all clients of the process, and replay.

No HTTP here; Redis itself is aegisops.telemetry_stream.

A *pull* reads what the raw streams of the watched machines gained since the last one, up to the
last complete millisecond of Redis, and publishes it as one message with that millisecond as its
position. A client that attaches starts exactly at the end of a pull, and one that resumes gets the
span from its position to that pull first: no gap, no double.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from aegisops.errors import ServiceUnavailable
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import ALARMS_CHANNEL, PREDICTIONS_CHANNEL
from aegisops.online_store import RAW_TTL_SECONDS
from aegisops.telemetry_stream import Entries, Inbox, Now
from serving.prediction import iso
from serving.telemetry import Hub, Kind, Message, Subscription, message

log = logging.getLogger(__name__)

PULSE_SECONDS = 1.0
"""A pull without a bell: finds what a worker wrote but could not announce."""
SETTLE_SECONDS = 0.003
"""From bell to pull: Redis' millisecond of the flush must be over."""
BETWEEN_PULLS_SECONDS = 0.02
SURE_MS = 10_000
"""A pull this soon after the last cannot have lost entries to the cap of the streams."""
SLICE_MS = 30_000
"""A replay is read and sent in slices of this length: its memory does not grow with the span."""
PENDING = 4_096
"""Predictions that wait to be announced; more are not."""
_KINDS = {PREDICTIONS_CHANNEL: Kind.PREDICTIONS, ALARMS_CHANNEL: Kind.ALARMS}
_POSITION = re.compile(r"([0-9]{1,15})-([0-9a-z]{1,32})")
_ANNOUNCED = (
    "prediction_id",
    "machine_id",
    "asked_at",
    "probability",
    "risk",
    "failure_mode",
    "explanation",
    "served_by",
    "cause",
)


class Stream(Protocol):
    """What is needed of Redis; see aegisops.telemetry_stream.TelemetryStream."""

    async def now(self) -> Now:
        """Redis' last complete millisecond."""

    async def read(
        self, machine_ids: Sequence[str], after: int, upto: int, *, check: bool
    ) -> dict[str, Entries]:
        """Raw batches in (after, upto]."""

    async def publish(self, channel: str, message: bytes) -> None:
        """Announce."""

    def listen(self) -> Any:  # noqa: ANN401 - an async context manager of Inbox
        """The channels."""


class Feed:
    """Keeps the hub fed. Runs on one event loop."""

    def __init__(self, stream: Stream, hub: Hub, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds."""
        self.hub = hub
        self.is_connected = False
        self._stream = stream
        self._clock = clock
        self._pulling = asyncio.Lock()
        self._at: Now | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._pending: list[dict[str, Any]] = []

    # --- background -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen until the hub is closed; Redis away is retried every second."""
        # The client may turn a cancellation into an error of its own: the hub's word ends it too.
        while not self.hub.is_closed:
            try:
                async with self._stream.listen() as inbox:
                    self.is_connected = True
                    await self._follow(inbox)
            except ServiceUnavailable as error:
                if self.is_connected:
                    log.warning("live telemetry waits: %s", error)
            except Exception:
                # The loop must outlive any message: without it every client goes silent.
                log.exception("live telemetry stumbled; listening anew")
            self.is_connected = False
            await asyncio.sleep(PULSE_SECONDS)

    async def beat(self, seconds: float) -> None:
        """A heartbeat to every client, for ever: server time, position, whether Redis answers."""
        while True:
            await asyncio.sleep(seconds)
            self.hub.broadcast(self.heartbeat())

    def heartbeat(self) -> Message:
        """One heartbeat."""
        return message(
            "heartbeat", self._position(), server_time=self._time(), is_live=self.is_connected
        )

    async def _follow(self, inbox: Inbox) -> None:
        clock = asyncio.get_running_loop().time
        due = pulled = clock()
        while not self.hub.is_closed:
            received = await inbox(max(0.0, due - clock()))
            if received is not None:
                self._publish(*received)
                due = min(due, max(clock() + SETTLE_SECONDS, pulled + BETWEEN_PULLS_SECONDS))
            if clock() >= due:
                await self.pull()
                pulled = clock()
                due = pulled + PULSE_SECONDS

    def _publish(self, channel: str, content: bytes) -> None:
        if not len(self.hub):
            return
        document = orjson.loads(content)
        kind = _KINDS.get(channel, Kind.FEATURES)
        published_at = iso(document["at"])
        if kind is Kind.ALARMS:
            rows = document["machines"]
            self.hub.publish_alarms(
                ((r["machine_id"], r["site"], r["area"], orjson.dumps(r)) for r in rows),
                published_at=published_at,
            )
            return
        watched = self.hub.watched
        parts: dict[str, list[bytes]] = {}
        for row in document["machines"]:
            if row["machine_id"] in watched:
                parts.setdefault(row["machine_id"], []).append(orjson.dumps(row))
        self.hub.publish(
            kind,
            {machine_id: b",".join(rows) for machine_id, rows in parts.items()},
            published_at=published_at,
        )

    # --- readings ---------------------------------------------------------------------------------

    async def pull(self) -> None:
        """Publish what the watched streams gained; `ServiceUnavailable` changes nothing."""
        async with self._pulling:
            await self._pull()

    async def _pull(self) -> None:
        now, last = await self._stream.now(), self._at
        watched = sorted(self.hub.watched)
        if last is None or not watched:
            self._at = now
            return
        if now.epoch != last.epoch or now.ms < last.ms:
            reason = "redis-emptied" if now.epoch != last.epoch else "redis-clock-set-back"
            self._at = now
            self.hub.broadcast(_gap(reason, _text(last), _text(now), None))
            return
        check = now.ms - last.ms > SURE_MS
        found = await self._stream.read(watched, last.ms, now.ms, check=check)
        self._at = now
        self._tell_gaps(found, last, now)
        parts = {m: _part(m, e) for m, e in found.items() if e.batches}
        self.hub.publish(Kind.READINGS, parts, position=_text(now))

    def _tell_gaps(self, found: Mapping[str, Entries], last: Now, now: Now) -> None:
        trimmed = [m for m, entries in found.items() if not entries.is_whole]
        # Each client hears of its own machines only: ids outside a token's scope stay unknown.
        self.hub.notify(trimmed, lambda mine: _gap("trimmed", _text(last), _text(now), mine))

    # --- clients ----------------------------------------------------------------------------------

    async def attach(
        self,
        subject: str,
        machines: Iterable[str],
        kinds: Iterable[Kind] = Kind,
        sees: Callable[[str, str], bool] = lambda site, area: True,  # noqa: ARG005
    ) -> Subscription:
        """A subscription whose `position` is where it starts.

        Raises `TooManyClients`, and `ServiceUnavailable` when Redis does not answer.
        """
        async with self._pulling:
            await self._pull()
            made = self.hub.subscribe(subject, machines, kinds, sees)
            made.position = self._position()
        return made

    async def replay(self, subscription: Subscription, since: str) -> AsyncIterator[Message]:
        """What `subscription` would have got from `since` to its start, and `gap`s where unknown.

        Take it before the subscription's own messages. Readings only: features and predictions are
        states, and the next message brings the current one.
        """
        start = subscription.position or ""
        upto, epoch = _parse(start) or (0, "")
        parsed = _parse(since)
        if parsed is None or parsed[1] != epoch or parsed[0] > upto:
            yield _gap("unknown-position", since, start, None, position=start)
            return
        if Kind.READINGS not in subscription.kinds:
            return
        machines = sorted(subscription.machines)
        subscription.position = since
        after = parsed[0]
        oldest = upto - RAW_TTL_SECONDS * 1_000
        if after < oldest:
            yield _gap("older-than-kept", since, f"{oldest}-{epoch}", None)
            after = oldest
        told: set[str] = set()
        while after < upto:
            end = min(upto, after + SLICE_MS)
            found = await self._stream.read(machines, after, end, check=True)
            position = f"{end}-{epoch}"
            trimmed = [m for m, e in found.items() if not e.is_whole and m not in told]
            if trimmed:
                told.update(trimmed)
                yield _gap("trimmed", f"{after}-{epoch}", start, trimmed)
            rows = [_part(m, e) for m, e in found.items() if e.batches]
            if rows:
                head = message("readings", position, is_replay=True).body[:-1]
                yield Message(
                    "readings", head + b',"machines":[' + b",".join(rows) + b"]}", position
                )
            subscription.position = position
            after = end

    def hello(self, subscription: Subscription, since: str | None, beat_seconds: float) -> Message:
        """The first message of a client; its position is where a resume would begin."""
        return message(
            "hello",
            since if since is not None and _parse(since) else subscription.position,
            server_time=self._time(),
            heartbeat_seconds=beat_seconds,
            kinds=sorted(subscription.kinds),
            machine_ids=sorted(subscription.machines),
        )

    # --- predictions ------------------------------------------------------------------------------

    def answered(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Announce answered predictions to all API processes; never waits, and may be lost."""
        room = PENDING - len(self._pending)
        self._pending += [{name: a[name] for name in _ANNOUNCED} for a in answers[: max(0, room)]]
        if self._announcing is None or self._announcing.done():
            self._announcing = asyncio.get_running_loop().create_task(self._announce())

    async def _announce(self) -> None:
        while self._pending:
            rows, self._pending = self._pending, []
            document = {"at": round(self._clock() * US_PER_SECOND), "machines": rows}
            try:
                await self._stream.publish(PREDICTIONS_CHANNEL, orjson.dumps(document))
            except ServiceUnavailable as error:
                log.warning("%d predictions not announced: %s", len(rows), error)

    async def aclose(self) -> None:
        """Let the announcement that is under way end."""
        if self._announcing is not None:
            await self._announcing

    def _position(self) -> str | None:
        return None if self._at is None else _text(self._at)

    def _time(self) -> str:
        return iso(round(self._clock() * US_PER_SECOND))


def _part(machine_id: str, entries: Entries) -> bytes:
    batches = b",".join(batch for _, batch in entries.batches)
    return b'{"machine_id":%s,"batches":[%s]}' % (orjson.dumps(machine_id), batches)


def _gap(
    reason: str,
    after: str,
    upto: str,
    machines: Sequence[str] | None,
    position: str | None = None,
) -> Message:
    """Readings of `machines` (None: all) between two positions may be missing."""
    return message("gap", position, reason=reason, after=after, upto=upto, machine_ids=machines)


def _text(now: Now) -> str:
    return f"{now.ms}-{now.epoch}"


def _parse(position: str) -> tuple[int, str] | None:
    found = _POSITION.fullmatch(position)
    return None if found is None else (int(found[1]), found[2])
