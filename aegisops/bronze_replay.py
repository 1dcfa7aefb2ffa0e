"""Readings of a span of bronze as messages again, to be sent at N times the speed they came.

For rehearsals and load tests. A message is what one machine measured in one second; blocks keep
channel, time, period and quality. What was refused is not in bronze, so it does not come again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import polars as pl

from aegisops import names
from aegisops.errors import ConfigurationError, Retryable
from aegisops.lake import Lake
from aegisops.schemas import avro
from aegisops.schemas.tables import READINGS, WAVEFORMS, Table

SLICE = timedelta(hours=1)
"""Of event time, in memory together."""
_SECOND = 1_000_000
_TICK_SECONDS = 0.05


class Publisher(Protocol):
    """What a replay needs of `bus.Producer`."""

    def publish(self, topic: str, key: str, value: bytes) -> None:
        """Queue one message; `Retryable` when the queue is full."""

    def poll(self, seconds: float = 0.0) -> None:
        """Serve delivery reports."""

    def flush(self, seconds: float = 30.0) -> None:
        """Wait for all delivery reports."""


@dataclass(frozen=True, slots=True)
class Span:
    """What to send: aware times, the end not included; no machines = all of them."""

    begin: datetime
    end: datetime
    machines: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.end <= self.begin:
            raise ConfigurationError(f"the span ends at {self.end}, not after {self.begin}")


@dataclass(frozen=True, slots=True)
class Due:
    """One message: when its newest value was measured (µs), its key and its record."""

    ts: int
    machine_id: str
    record: Mapping[str, Any]


def messages(lake: Lake, span: Span) -> Iterator[Due]:
    """The span's messages in time order; at most `SLICE` of it is in memory."""
    begin = span.begin
    while begin < span.end:
        end = min(begin + SLICE, span.end)
        yield from _slice(lake, span, begin, end)
        begin = end


def shifted(due: Due, by_us: int) -> Due:
    """The message with every time moved."""
    blocks = [{**b, "start_us": b["start_us"] + by_us} for b in due.record["blocks"]]
    return Due(due.ts + by_us, due.machine_id, {**due.record, "blocks": blocks})


def send(
    due: Iterator[Due],
    publisher: Publisher,
    *,
    topic: str,
    schema_id: int,
    span: Span,
    speed: float,
    to_now: bool = False,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    tell: Callable[[float, int], None] = lambda *_: None,
) -> int:
    """Publish each message when it is due; returns how many. speed 0 = as fast as Kafka takes them.

    Args:
        due: `messages` of the span.
        publisher: Kafka.
        topic: where to.
        schema_id: registry id of the readings contract for that topic.
        span: what `due` is from.
        speed: seconds of event time a second.
        to_now: move the times so that the newest message is sent at its own time, and none before.
        clock: seconds since 1970.
        sleep: waits seconds.
        tell: (share of the span, messages sent), now and then.
    """
    started = clock()
    begin, end = (round(t.timestamp() * _SECOND) for t in (span.begin, span.end))
    lasts = (end - begin) / speed if speed else 0.0
    by_us = round(started * _SECOND + lasts) - end if to_now else 0
    sent, told = 0, started
    for message in due:
        while speed and (wait := started + (message.ts - begin) / speed / _SECOND - clock()) > 0:
            publisher.poll()
            sleep(min(wait, _TICK_SECONDS))
        moved = shifted(message, by_us) if to_now else message
        value = avro.encode(names.READINGS_TOPIC, moved.record, schema_id)
        while True:
            try:
                publisher.publish(topic, moved.machine_id, value)
                break
            except Retryable:
                publisher.poll(_TICK_SECONDS)
        sent += 1
        if clock() - told >= _TICK_SECONDS:
            told = clock()
            publisher.poll()
            tell((message.ts - begin) / (end - begin), sent)
    publisher.flush()
    tell(1.0, sent)
    return sent


def _slice(lake: Lake, span: Span, begin: datetime, end: datetime) -> Iterator[Due]:
    def rows(table: Table) -> pl.LazyFrame:
        found = lake.scan(table).filter(
            pl.col("date").is_between(begin.date(), end.date()),
            pl.col("ts") >= begin,
            pl.col("ts") < end,
        )
        if span.machines:
            found = found.filter(pl.col("machine_id").is_in(list(span.machines)))
        return found

    shared = ("machine_id", "channel", pl.col("ts").cast(pl.Int64), "quality", "seq")
    scalars = rows(READINGS).select(
        *shared,
        period_us=pl.lit(None, pl.Int64),
        # No value is a block without values: the sensor said "bad", nothing else.
        values=pl.when(pl.col("value").is_null())
        .then(pl.lit([], pl.List(pl.Float64)))
        .otherwise(pl.concat_list("value")),
    )
    captures = rows(WAVEFORMS).select(*shared, "period_us", "values")
    blocks = pl.struct("channel", pl.col("ts").alias("start_us"), "period_us", "values", "quality")
    found = (
        pl.concat([scalars, captures])
        .sort("ts", "machine_id", "channel")
        .group_by("machine_id", pl.col("ts").floordiv(_SECOND).alias("second"))
        .agg(
            newest=pl.col("ts").max(),
            seq=pl.col("seq").first(),
            blocks=blocks,
        )
        .sort("newest", "machine_id")
        .collect()
    )
    for machine_id, newest, seq, group in found.select(
        "machine_id", "newest", "seq", "blocks"
    ).iter_rows():
        record = {"machine_id": machine_id, "seq": seq, "sent_at": newest, "blocks": group}
        yield Due(newest, machine_id, record)
