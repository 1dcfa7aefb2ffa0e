"""Where each counter stands, and which of its readings are jumps.

A glitch is rejected, a fall is a reset, and what agrees with itself for long enough is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from aegisops.machines.model import US_PER_SECOND, ChannelKind
from aegisops.names import Quality, Reason

REBASE_AFTER = 3
"""Readings in a row that agree with one another but not with the level before them become the new
level: a replaced controller is not quarantined for ever, a glitch or two is."""

_KEY = ["machine_id", "channel"]
_COUNTER = str(ChannelKind.COUNTER)


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


def judge_counters(
    readings: pl.DataFrame, counters: Mapping[tuple[str, str], Level]
) -> tuple[pl.DataFrame, Counters]:
    """Readings with the reason of jumps filled in, and the levels that changed."""
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
    plain = rows.filter("is_plain").group_by(_KEY).agg(pl.col("ts", "value").last())
    levels = {(m, c): Level(ts, value) for m, c, ts, value in plain.iter_rows()}
    jumps: list[int] = []
    for (machine, channel), group in rows.filter(~pl.col("is_plain")).group_by(
        _KEY, maintain_order=True
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
    keys = rows.select(_KEY).unique().rows()
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
    before_ts = pl.coalesce(pl.col("ts").shift().over(_KEY), "level_ts", "ts")
    before = pl.coalesce(pl.col("value").shift().over(_KEY), "level_value", "value")
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
    joined = rows.join(levels, on=_KEY, how="left", maintain_order="left")
    return joined.select(plain.all().over(_KEY)).to_series()


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
