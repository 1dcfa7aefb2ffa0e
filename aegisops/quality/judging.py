"""Judges records: which are good, and why others are not. Every row comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from aegisops.machines.model import ChannelKind, Clock
from aegisops.names import EventType, Outcome, Quality, Reason
from aegisops.quality.counters import Counters, Level, judge_counters
from aegisops.quality.exploding import SCRATCH, WAVEFORM, Fleet, explode
from aegisops.quality.reasons import Limits, time_reason, time_why, unregistered, why

_COUNTER = str(ChannelKind.COUNTER)


@dataclass(frozen=True, slots=True)
class Judged:
    """All readings of some messages, one row each, in arrival order.

    `readings` has the messages' columns without `blocks`, and channel, kind, ts, period_us,
    quality, value (scalars), values (waveforms), _index, reason, why.
    """

    readings: pl.DataFrame
    levels: Counters = field(default_factory=dict)

    @property
    def scalars(self) -> pl.DataFrame:
        """Good scalar and counter readings."""
        return self._good.filter(pl.col("kind") != WAVEFORM)

    @property
    def waveforms(self) -> pl.DataFrame:
        """Good captures."""
        return self._good.filter(pl.col("kind") == WAVEFORM)

    @property
    def rejected(self) -> pl.DataFrame:
        """Rejected readings; those of an unknown machine are one row per message, at _index 0."""
        bad = self.readings.filter(pl.col("reason").is_not_null())
        whole = pl.col("reason") == Reason.UNKNOWN_MACHINE
        return bad.filter(~whole | (pl.col("_index") == 0)).with_columns(
            channel=pl.when(~whole).then("channel")
        )

    @property
    def _good(self) -> pl.DataFrame:
        return self.readings.filter(pl.col("reason").is_null())


def judge_readings(
    messages: pl.DataFrame, fleet: Fleet, limits: Limits, counters: Mapping[tuple[str, str], Level]
) -> Judged:
    """Judge every reading of reading messages.

    Args:
        messages: machine_id, arrived_us, blocks (list of struct channel, start_us, period_us,
            quality, values); any other columns are carried along. In arrival order.
        fleet: class of every registered machine.
        limits: for times on a time clock.
        counters: last good level of each counter; absent = the first reading is taken as it is.
    """
    readings = explode(messages, fleet)
    time = time_reason("ts", "end", limits)
    malformed = (
        pl.when(pl.col("kind") == WAVEFORM)
        .then(pl.col("period_us").fill_null(0) < 1)
        .otherwise((pl.col("size") > 1) & (pl.col("period_us").fill_null(0) < 1))
    )
    finite = pl.col("sum").is_finite() & pl.col("low").is_finite() & pl.col("high").is_finite()
    reason = (
        pl.when(pl.col("machine_class").is_null())
        .then(pl.lit(Reason.UNKNOWN_MACHINE))
        .when(pl.col("kind").is_null())
        .then(pl.lit(Reason.UNKNOWN_CHANNEL))
        .when(~pl.col("quality").is_between(Quality.GOOD, Quality.BAD))
        .then(pl.lit(Reason.UNKNOWN_VOCABULARY))
        .when(malformed)
        .then(pl.lit(Reason.MALFORMED))
        .when(time.is_not_null())
        .then(time)
        .when(pl.col("quality") == Quality.BAD)
        .then(None)
        .when(~finite.fill_null(value=False))
        .then(pl.lit(Reason.NOT_FINITE))
        .when((pl.col("kind") == _COUNTER) & (pl.col("low") < 0))
        .then(pl.lit(Reason.NEGATIVE_COUNTER))
        .when((pl.col("low") < pl.col("limit_low")) | (pl.col("high") > pl.col("limit_high")))
        .then(pl.lit(Reason.OUT_OF_RANGE))
    )
    readings = readings.with_columns(
        reason=reason,
        # A bad value is stored, but "not a number" is stored as no value.
        value=pl.when(pl.col("value").is_finite()).then("value"),
    )
    readings, levels = judge_counters(readings, counters)
    return Judged(readings.with_columns(why=why(limits)).drop(SCRATCH), levels)


def judge_events(events: pl.DataFrame, fleet: Fleet, limits: Limits) -> pl.DataFrame:
    """Events (machine_id, ts, type, arrived_us, …) with `reason` and `why`, null where good."""
    return _judge_words(events, fleet, limits, "type", [str(t) for t in EventType])


def judge_feedback(feedback: pl.DataFrame, fleet: Fleet, limits: Limits) -> pl.DataFrame:
    """Feedback (machine_id, ts, outcome, arrived_us, …) with `reason` and `why`."""
    return _judge_words(feedback, fleet, limits, "outcome", [str(o) for o in Outcome])


def judge_records(records: pl.DataFrame, limits: Limits, time: str) -> pl.DataFrame:
    """The API's own records with `reason` and `why`: only an absurd clock keeps one out.

    `time` is the column with the record's time in µs.
    """
    judged = records.with_columns(clock=pl.lit(str(Clock.TIME)), ts=pl.col(time)).with_columns(
        reason=time_reason("ts", "ts", limits)
    )
    return judged.with_columns(why=time_why(limits)).drop("clock", "ts")


def _judge_words(
    rows: pl.DataFrame, fleet: Fleet, limits: Limits, column: str, words: list[str]
) -> pl.DataFrame:
    machines = pl.DataFrame(
        [(m, str(fleet[m].clock)) for m in rows["machine_id"].unique() if m in fleet],
        schema={"machine_id": pl.String, "clock": pl.String},
        orient="row",
    )
    time = time_reason("ts", "ts", limits)
    judged = rows.join(machines, on="machine_id", how="left", maintain_order="left").with_columns(
        reason=pl.when(pl.col("clock").is_null())
        .then(pl.lit(Reason.UNKNOWN_MACHINE))
        .when(~pl.col(column).is_in(words))
        .then(pl.lit(Reason.UNKNOWN_VOCABULARY))
        .otherwise(time)
    )
    text = (
        pl.when(pl.col("reason") == Reason.UNKNOWN_MACHINE)
        .then(unregistered())
        .when(pl.col("reason") == Reason.UNKNOWN_VOCABULARY)
        .then(pl.format(f"{column} '{{}}' is not one of {', '.join(words)}", column))
        .otherwise(time_why(limits))
    )
    return judged.with_columns(why=text).drop("clock")
