"""Why a record is refused: limits on its time, and the words people read. Only time is judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from aegisops.machines.model import US_PER_SECOND, Clock
from aegisops.names import Reason

_LAST_US = 253_402_300_799 * US_PER_SECOND  # 9999-12-31, the last day a date column can name


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a time may lie from the message's arrival; not applied on a cycle clock."""

    max_future_us: int
    max_past_us: int

    @classmethod
    def of(cls, max_future: timedelta, max_past: timedelta) -> Limits:
        """Limits from durations."""
        unit = timedelta(microseconds=1)
        return cls(max_future // unit, max_past // unit)


def time_reason(start: str, end: str, limits: Limits) -> pl.Expr:
    """FUTURE/ANCIENT or null. A cycle clock has no arrival to compare with, only a sane range."""
    first, last = pl.col(start).cast(pl.Float64), pl.col(end).cast(pl.Float64)
    on_time = pl.col("clock") == str(Clock.TIME)
    return (
        pl.when(
            (last > _LAST_US) | (on_time & (last > pl.col("arrived_us") + limits.max_future_us))
        )
        .then(pl.lit(Reason.FUTURE_TIMESTAMP))
        .when((first < 0) | (on_time & (first < pl.col("arrived_us") - limits.max_past_us)))
        .then(pl.lit(Reason.ANCIENT_TIMESTAMP))
        .otherwise(None)
    )


def unregistered() -> pl.Expr:
    """Text about an unknown machine."""
    return pl.format("machine '{}' is not registered; register it, then replay", "machine_id")


def time_why(limits: Limits) -> pl.Expr:
    """Text about a time that is refused; null where `reason` is."""
    seconds = (pl.col("ts") - pl.col("arrived_us")) / US_PER_SECOND
    future, past = limits.max_future_us // US_PER_SECOND, limits.max_past_us // US_PER_SECOND
    text = pl.format(
        f"time {{}} µs is {{}} s after arrival (allowed: -{past} to +{future} s); check the clock",
        "ts",
        seconds.round(),
    )
    return pl.when(pl.col("reason").is_not_null()).then(text)


def why(limits: Limits) -> pl.Expr:
    """Text for every reason a reading can have; null where `reason` is."""
    texts = {
        Reason.UNKNOWN_MACHINE: unregistered(),
        Reason.UNKNOWN_CHANNEL: pl.format(
            "class {} has no channel '{}'; declare it", "machine_class", "channel"
        ),
        Reason.UNKNOWN_VOCABULARY: pl.format("quality {} is not 0, 1 or 2", "quality"),
        Reason.MALFORMED: pl.format("{} values without a sampling period", "size"),
        Reason.NOT_FINITE: pl.format("{}: NaN, infinite or no value of good quality", "channel"),
        Reason.NEGATIVE_COUNTER: pl.format("{}: counter reads {}", "channel", "low"),
        Reason.OUT_OF_RANGE: pl.format(
            "{}: {} to {} is outside the physical limits {} to {}",
            "channel", "low", "high", "limit_low", "limit_high",
        ),
        Reason.COUNTER_JUMP: pl.format(
            "{}: {} is a faster increase than {} per second", "channel", "low", "max_rate"
        ),
    }  # fmt: skip
    text_of = time_why(limits)
    for reason, text in texts.items():
        text_of = pl.when(pl.col("reason") == reason).then(text).otherwise(text_of)
    return text_of
