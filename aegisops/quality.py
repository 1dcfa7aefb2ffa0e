"""Judges decoded messages: which readings, events and feedback are good, and why others are not.

Pure and vectorised; both stream applications judge with it, so that the lake and the features
agree. Nothing is dropped here: every row comes back, a bad one with its `reason` (`names.Reason`)
and `why` (text for people). One bad reading rejects only itself, never its message.

Times are microseconds on the machine's clock. `arrived_us` is when the message reached Kafka (UTC):
with it, judging the same message again gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from aegisops.machines.model import US_PER_SECOND, ChannelKind, Clock, MachineClass
from aegisops.names import EventType, Outcome, Quality, Reason

Fleet = Mapping[str, MachineClass]
"""Machine id → its class, for every registered machine."""

REBASE_AFTER = 3
"""Readings in a row that agree with one another but not with the level before them become the new
level: a replaced controller is not quarantined for ever, a glitch or two is."""

_LAST_US = 253_402_300_799 * US_PER_SECOND  # 9999-12-31, the last day a date column can name
_COUNTER_KEY = ["machine_id", "channel"]
_WAVEFORM, _COUNTER = str(ChannelKind.WAVEFORM), str(ChannelKind.COUNTER)


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


class Level(NamedTuple):
    """Where one counter stands: its newest good reading, and a rejected run that may replace it."""

    ts: int
    value: float
    candidate_ts: int = 0
    candidate_value: float = 0.0
    candidates: int = 0


Counters = dict[tuple[str, str], Level]
"""(machine, channel) → level. `judge_readings` reads it and returns the levels that changed; the
caller merges them in once the readings are safely written, so that a retry judges alike."""


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
        return self._good.filter(pl.col("kind") != _WAVEFORM)

    @property
    def waveforms(self) -> pl.DataFrame:
        """Good captures."""
        return self._good.filter(pl.col("kind") == _WAVEFORM)

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
    readings = _explode(messages, fleet)
    time = _time_reason("ts", "end", limits)
    malformed = (
        pl.when(pl.col("kind") == _WAVEFORM)
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
    readings, levels = _judge_counters(readings, counters)
    return Judged(readings.with_columns(why=_why(limits)).drop(_SCRATCH), levels)


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
        reason=_time_reason("ts", "ts", limits)
    )
    return judged.with_columns(why=_time_why(limits)).drop("clock", "ts")


def _judge_words(
    rows: pl.DataFrame, fleet: Fleet, limits: Limits, column: str, words: list[str]
) -> pl.DataFrame:
    machines = pl.DataFrame(
        [(m, str(fleet[m].clock)) for m in rows["machine_id"].unique() if m in fleet],
        schema={"machine_id": pl.String, "clock": pl.String},
        orient="row",
    )
    time = _time_reason("ts", "ts", limits)
    judged = rows.join(machines, on="machine_id", how="left", maintain_order="left").with_columns(
        reason=pl.when(pl.col("clock").is_null())
        .then(pl.lit(Reason.UNKNOWN_MACHINE))
        .when(~pl.col(column).is_in(words))
        .then(pl.lit(Reason.UNKNOWN_VOCABULARY))
        .otherwise(time)
    )
    why = (
        pl.when(pl.col("reason") == Reason.UNKNOWN_MACHINE)
        .then(_unregistered())
        .when(pl.col("reason") == Reason.UNKNOWN_VOCABULARY)
        .then(pl.format(f"{column} '{{}}' is not one of {', '.join(words)}", column))
        .otherwise(_time_why(limits))
    )
    return judged.with_columns(why=why).drop("clock")


# --- from messages to one row per reading -------------------------------------------------------

_SCRATCH = [
    "machine_class", "clock", "limit_low", "limit_high", "channel_period", "max_rate",
    "size", "sum", "low", "high", "end",
]  # fmt: skip


def _explode(messages: pl.DataFrame, fleet: Fleet) -> pl.DataFrame:
    """One row per scalar value or capture, with the channel's declaration beside it.

    `_index` counts values from the message's first, whatever the fleet knows, so that it is a
    reading's identity; a capture has the index of its first sample.
    """
    classes, channels = _declarations(messages["machine_id"].unique(), fleet)
    size = pl.col("values").list.len().cast(pl.Int64)
    blocks = (
        messages.with_row_index("_message")
        .explode("blocks")
        .unnest("blocks")
        .with_columns(size=pl.max_horizontal(size, 1))
        .with_columns(first=pl.col("size").cum_sum().over("_message") - pl.col("size"))
        .with_row_index("_block")
        .join(classes, on="machine_id", how="left", maintain_order="left")
        .join(channels, on=["machine_class", "channel"], how="left", maintain_order="left")
    )
    is_waveform = pl.col("kind").eq_missing(pl.lit(_WAVEFORM))
    captures = blocks.filter(is_waveform).with_columns(
        value=pl.lit(None, pl.Float64),
        period_us=pl.coalesce("period_us", "sample_period"),
        ts=pl.col("start_us"),
        _index=pl.col("first"),
        sum=pl.when(size > 0).then(pl.col("values").list.sum()),
        low=pl.col("values").list.min(),
        high=pl.col("values").list.max(),
    )
    # A block without values is one reading without a value: the sensor said "bad", nothing else.
    values = pl.when(size > 0).then("values").otherwise(pl.lit([None], pl.List(pl.Float64)))
    scalars = (
        blocks.filter(~is_waveform)
        .with_columns(value=values, i=pl.int_ranges(0, pl.col("size")))
        .explode("value", "i")
        .with_columns(
            ts=pl.col("start_us") + pl.col("i") * pl.col("period_us").fill_null(0),
            _index=pl.col("first") + pl.col("i"),
            values=pl.lit(None, pl.List(pl.Float64)),
            sum=pl.col("value"),
            low=pl.col("value"),
            high=pl.col("value"),
        )
    )
    # The end as a float: a wild period overflows the integer time, and must then be rejected.
    last = pl.col("size") if scalars.is_empty() else pl.coalesce(pl.col("i") + 1, "size")
    end = pl.col("start_us").cast(pl.Float64) + (last - 1) * pl.col("period_us").fill_null(0).cast(
        pl.Float64
    )
    return (
        pl.concat([scalars, captures], how="diagonal")
        .with_columns(end=end, _index=pl.col("_index").cast(pl.Int32))
        .sort("_block", "_index")
        .drop("i", "first", "start_us", "sample_period", "_message", "_block")
    )


def _declarations(machines: Iterable[str], fleet: Fleet) -> tuple[pl.DataFrame, pl.DataFrame]:
    known = {machine: fleet[machine] for machine in machines if machine in fleet}
    classes = pl.DataFrame(
        [(machine, c.name, str(c.clock)) for machine, c in known.items()],
        schema={"machine_id": pl.String, "machine_class": pl.String, "clock": pl.String},
        orient="row",
    )
    channels = pl.DataFrame(
        [
            (c.name, name, str(d.kind), *d.limits, d.period, d.sample_period, d.max_rate)
            for c in {c.name: c for c in known.values()}.values()
            for name, d in c.channels.items()
        ],
        schema={
            "machine_class": pl.String,
            "channel": pl.String,
            "kind": pl.String,
            "limit_low": pl.Float64,
            "limit_high": pl.Float64,
            "channel_period": pl.Int64,
            "sample_period": pl.Int64,
            "max_rate": pl.Float64,
        },
        orient="row",
    )
    return classes, channels


# --- reasons --------------------------------------------------------------------------------------


def _time_reason(start: str, end: str, limits: Limits) -> pl.Expr:
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


def _unregistered() -> pl.Expr:
    return pl.format("machine '{}' is not registered; register it, then replay", "machine_id")


def _time_why(limits: Limits) -> pl.Expr:
    seconds = (pl.col("ts") - pl.col("arrived_us")) / US_PER_SECOND
    future, past = limits.max_future_us // US_PER_SECOND, limits.max_past_us // US_PER_SECOND
    text = pl.format(
        f"time {{}} µs is {{}} s after arrival (allowed: -{past} to +{future} s); check the clock",
        "ts",
        seconds.round(),
    )
    return pl.when(pl.col("reason").is_not_null()).then(text)


def _why(limits: Limits) -> pl.Expr:
    texts = {
        Reason.UNKNOWN_MACHINE: _unregistered(),
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
    why = _time_why(limits)
    for reason, text in texts.items():
        why = pl.when(pl.col("reason") == reason).then(text).otherwise(why)
    return why


# --- counters -------------------------------------------------------------------------------------


def _judge_counters(
    readings: pl.DataFrame, counters: Mapping[tuple[str, str], Level]
) -> tuple[pl.DataFrame, Counters]:
    rows = readings.with_row_index("row").filter(
        (pl.col("kind") == _COUNTER)
        & pl.col("reason").is_null()
        & (pl.col("quality") != Quality.BAD)
        & pl.col("max_rate").is_not_null()
    )
    if rows.is_empty():
        return readings, {}
    rows = rows.with_columns(is_plain=_is_plain(rows, counters))
    # Nearly all counters rise as they should, and are done at once; the rest step by step.
    plain = rows.filter("is_plain").group_by(_COUNTER_KEY).agg(pl.col("ts", "value").last())
    levels = {(m, c): Level(ts, value) for m, c, ts, value in plain.iter_rows()}
    jumps: list[int] = []
    for (machine, channel), group in rows.filter(~pl.col("is_plain")).group_by(
        _COUNTER_KEY, maintain_order=True
    ):
        key = (str(machine), str(channel))
        bad, levels[key] = judge_counter(
            counters.get(key),
            group["ts"].to_numpy(),
            group["value"].to_numpy(),
            max_rate=group["max_rate"][0],
            period_s=group["channel_period"][0] / US_PER_SECOND,
        )
        jumps += group["row"].to_numpy()[bad].tolist()
    if jumps:
        jumped = pl.Series(jumps, dtype=pl.UInt32)
        readings = (
            readings.with_row_index("row")
            .with_columns(
                reason=pl.when(pl.col("row").is_in(jumped.implode()))
                .then(pl.lit(Reason.COUNTER_JUMP))
                .otherwise("reason")
            )
            .drop("row")
        )
    return readings, levels


def _is_plain(rows: pl.DataFrame, counters: Mapping[tuple[str, str], Level]) -> pl.Series:
    """True on every row of the counters that have neither a late reading, nor a jump, nor a doubt.

    The same rule as `_step`, for all counters at once.
    """
    keys = rows.select(_COUNTER_KEY).unique().rows()
    known = [(*key, counters[key]) for key in keys if key in counters]
    levels = pl.DataFrame(
        [(m, c, level.ts, level.value, level.candidates) for m, c, level in known],
        schema={
            "machine_id": pl.String,
            "channel": pl.String,
            "level_ts": pl.Int64,
            "level_value": pl.Float64,
            "candidates": pl.Int64,
        },
        orient="row",
    )
    before_ts = pl.coalesce(pl.col("ts").shift().over(_COUNTER_KEY), "level_ts", "ts")
    before = pl.coalesce(pl.col("value").shift().over(_COUNTER_KEY), "level_value", "value")
    # A difference of integers is exact; as in `_step`.
    elapsed = (pl.col("ts") - before_ts) / US_PER_SECOND
    allowed = pl.col("max_rate") * pl.max_horizontal(
        elapsed, pl.col("channel_period") / US_PER_SECOND
    )
    plain = (
        (pl.col("candidates").fill_null(0) == 0)
        & (elapsed >= 0)
        & (pl.col("value") - before <= allowed)
    )
    joined = rows.join(levels, on=_COUNTER_KEY, how="left", maintain_order="left")
    return joined.select(plain.all().over(_COUNTER_KEY)).to_series()


def judge_counter(
    level: Level | None,
    ts: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    *,
    max_rate: float,
    period_s: float,
) -> tuple[npt.NDArray[np.bool_], Level]:
    """Which readings [N] of one counter are jumps (True), and its level after them.

    An increase may be at most `max_rate` per second over the time since the last good reading, and
    always that of one period (readings jitter). A fall is a reset. A reading older than the last
    good one is late: it is neither judged nor moves the level. N ≥ 1.
    """
    bad = np.zeros(len(ts), dtype=bool)
    before = level or Level(int(ts[0]), float(values[0]))
    for i, (t, x) in enumerate(zip(ts.tolist(), values.tolist(), strict=True)):
        bad[i], before = _step(before, t, x, max_rate, period_s)
    return bad, before


def _step(level: Level, t: int, x: float, max_rate: float, period_s: float) -> tuple[bool, Level]:
    def credible(since: int, value: float) -> bool:
        return x - value <= max_rate * max((t - since) / US_PER_SECOND, period_s)

    if t < level.ts:
        return False, level
    if credible(level.ts, level.value):
        return False, Level(t, x)
    follows = (
        level.candidates > 0
        and t >= level.candidate_ts
        and x >= level.candidate_value
        and credible(level.candidate_ts, level.candidate_value)
    )
    candidates = level.candidates + 1 if follows else 1
    if candidates >= REBASE_AFTER:
        return False, Level(t, x)
    return True, Level(level.ts, level.value, t, x, candidates)
