"""A validated import → Kafka, machine by machine in time order, no faster than it is consumed.

The in-memory broker holds 5 MiB a partition and drops the oldest silently. So at most
`MOST_BYTES` are in flight: then publishing waits until the consumers have committed all of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aegisops import names
from aegisops.errors import ConfigurationError, ServiceUnavailable
from aegisops.importers.doubles import refuse_doubles
from aegisops.importers.messages import reading_messages
from aegisops.importers.reader import Imported
from aegisops.importers.registration import register
from aegisops.lake import Lake
from aegisops.machines import Clock
from aegisops.settings import KafkaSettings, StreamSettings

MOST_BYTES = 3 * 2**20
"""In flight over all partitions; they may all belong to one."""
STALL_SECONDS = 120.0
POLL_SECONDS = 0.2
_US_PER_DAY = 86_400_000_000

Positions = Mapping[tuple[str, int], int]
"""(topic, partition) → offset."""
Told = Callable[[str, int, int], None]
"""Progress for people: what, done, total."""


class Sink(Protocol):
    """What this module needs of `bus.Publisher`."""

    def publish(self, topic: str, key: str, record: Mapping[str, Any]) -> None:
        """Queue one record."""

    def flush(self) -> None:
        """Return when everything queued is acknowledged."""


class Consumers(Protocol):
    """How far the readers of the topics are."""

    def ends(self) -> Positions:
        """Next offset to be written."""

    def committed(self) -> Positions:
        """Next offset to be read, of the slowest reader."""


@dataclass(frozen=True, slots=True)
class ConsumerGroups:
    """`Consumers` by the committed offsets of consumer groups; the lake writer by default."""

    kafka: KafkaSettings
    groups: tuple[str, ...] = (names.LAKE_WRITER_APP,)
    topics: tuple[str, ...] = (names.READINGS_TOPIC, names.EVENTS_TOPIC)

    def ends(self) -> Positions:
        """Next offset to be written."""
        from aegisops import bus  # only who publishes needs the Kafka client

        return {
            (topic, partition): high
            for topic in self.topics
            for partition, (_, high) in bus.watermarks(self.kafka, topic).items()
        }

    def committed(self) -> Positions:
        """Next offset to be read, of the slowest group."""
        from aegisops import bus

        ends = self.ends()  # taken before the lag, so that the difference is never too high
        slowest: dict[tuple[str, int], int] = {}
        for topic in self.topics:
            for group in self.groups:
                for partition, behind in bus.lag(self.kafka, group, topic).items():
                    at = ends.get((topic, partition), 0) - behind
                    slowest[topic, partition] = min(at, slowest.get((topic, partition), at))
        return slowest


@dataclass(frozen=True, slots=True)
class Published:
    """What one call sent."""

    machines: int
    """Registrations that were new or changed."""
    messages: int
    readings: int
    events: int


def publish(
    publisher: Sink,
    lake: Lake,
    imported: Imported,
    *,
    now_us: int,
    stream: StreamSettings,
    consumers: Consumers | None = None,
    tell: Told | None = None,
    most_bytes: int = MOST_BYTES,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Published:
    """Register the machines, then publish every reading and event; returns when all is consumed.

    Args:
        publisher: `bus.Publisher`.
        lake: where bronze/machines is.
        imported: from `load`; nothing is sent unless it is valid as a whole.
        now_us: µs since 1970 UTC, the messages' `sent_at` and the machines' registration time.
        stream: limits the stream applications judge times by.
        consumers: who must keep up; None = a broker that keeps everything, no waiting.
        tell: called with ("messages", done, total).
        most_bytes: in flight at most, over all partitions.
        sleep: waits seconds.
        monotonic: clock of the stall limit, seconds.

    Raises `ConfigurationError` when the data is older than the stream applications accept, or
    already in the lake, and `ServiceUnavailable` when Kafka is away or the consumers do not move
    for two minutes.
    """
    _refuse_ancient(imported, now_us, stream)
    pace = None if consumers is None else _Pace(consumers, sleep, monotonic)
    refuse_doubles(lake, imported)
    machines = register(lake, imported.machines, now_us)
    records, total = _records(imported, now_us)
    sent = in_flight = 0
    if pace:
        pace.catch_up()
    for topic, machine, record in records:
        size = _size(record)
        if pace and in_flight + size > most_bytes:
            publisher.flush()
            pace.catch_up()
            in_flight = 0
        publisher.publish(topic, machine, record)
        sent += 1
        in_flight += size
        if tell:
            tell("messages", sent, total)
    publisher.flush()
    if pace:
        pace.catch_up()
    return Published(machines, sent, imported.readings.height, imported.events.height)


@dataclass(frozen=True, slots=True)
class _Pace:
    consumers: Consumers
    sleep: Callable[[float], None]
    monotonic: Callable[[], float]

    def catch_up(self) -> None:
        """Wait until everything written so far is consumed."""
        goal = self.consumers.ends()
        best, moved_at = -1, self.monotonic()
        while True:
            at = self.consumers.committed()
            missing = sum(max(end - at.get(where, 0), 0) for where, end in goal.items())
            if missing == 0:
                return
            if best < 0 or missing < best:
                best, moved_at = missing, self.monotonic()
            elif self.monotonic() - moved_at > STALL_SECONDS:
                raise ServiceUnavailable(
                    f"{missing:,} messages wait in Kafka and nobody has taken one for "
                    f"{STALL_SECONDS:g} s; start the lake writer (aegisops up), then import again"
                )
            self.sleep(POLL_SECONDS)


def _records(
    imported: Imported, now_us: int
) -> tuple[Iterator[tuple[str, str, dict[str, Any]]], int]:
    """(topic, machine id, record) in time order, and how many there are."""
    messages = reading_messages(imported.readings, now_us)
    events = imported.events.sort("ts", "machine_id", maintain_order=True)

    def ordered() -> Iterator[tuple[str, str, dict[str, Any]]]:
        happened = events.iter_rows(named=True)
        event = next(happened, None)
        for message in messages.iter_rows(named=True):
            starts_at = min(block["start_us"] for block in message["blocks"])
            while event is not None and event["ts"] < starts_at:
                yield names.EVENTS_TOPIC, event["machine_id"], event
                event = next(happened, None)
            del message["last_us"]
            yield names.READINGS_TOPIC, message["machine_id"], message
        while event is not None:
            yield names.EVENTS_TOPIC, event["machine_id"], event
            event = next(happened, None)

    return ordered(), messages.height + events.height


def _size(record: Mapping[str, Any]) -> int:
    """Upper bound of the encoded record in bytes (before compression), framing included."""
    text = sum(4 * len(value) for value in record.values() if isinstance(value, str))
    blocks = record.get("blocks", ())
    return 100 + text + sum(48 + 4 * len(b["channel"]) + 8 * len(b["values"]) for b in blocks)


def _refuse_ancient(imported: Imported, now_us: int, stream: StreamSettings) -> None:
    if imported.machine_class.clock is Clock.CYCLES:
        return
    days = (now_us - imported.oldest_us) / _US_PER_DAY
    if days >= stream.max_past_days:
        raise ConfigurationError(
            f"the oldest row is {days:,.0f} days old, the stream applications quarantine rows "
            f"older than {stream.max_past_days:,.0f}: start them and this command with "
            f"AEGIS_STREAM__MAX_PAST_DAYS={math.ceil(days) + 30}, or import in bulk"
        )
