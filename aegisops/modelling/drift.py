"""Has the fleet's data changed? Population stability by deciles of a reference. Pure.

Rows are one per machine and interval (medians), because consecutive sensor rows are copies of one
another: on an AR(0.99) process that never changed, tests on raw rows find drift nine times in ten.
The bins are deciles of the reference alone, so that one absurd value or a tiny unit moves nothing.
What counts as much is learned: windows of the reference, compared with the rest of it, show how
far the same fleet strays without a change.

Repairs and changes of regime are context. A machine's rows before its newest regime change belong
to another baseline and are left out; more repairs than any reference window had are left out to
see whether the change remains. Reading tables and drawing reports is the work of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

METHOD = "aegis_psi_q10"
DECILES = np.linspace(0, 1, 11)[1:-1]
FLOOR = 0.2
"""A smaller index is no drift, however quiet the past was (0.2 is the usual "significant")."""
NOISE = 3.0
"""An index below this many times the mean of unchanged windows is chance: the 99.9 % point of
χ²(9) is 3.1 times its mean."""
MIN_ROWS = 20
"""Rows either side needs; with fewer the index is mostly noise."""
MAX_ROWS = 20_000
"""Rows of a side that are looked at; more rows only make harmless differences significant."""
CURRENT_INTERVALS = 7
REFERENCE_WINDOWS = 8
FEWEST_WINDOWS = 3
"""Reference windows without which nothing can be calibrated."""
WORST_MACHINES = 5


class Kind(StrEnum):
    """What has changed: retraining may help against the first two, never against the third."""

    DATA = "data"
    PREDICTION = "prediction"
    QUALITY = "quality"


class Verdict(StrEnum):
    """Outcome for one feature."""

    STEADY = "steady"
    DRIFTED = "drifted"
    CONTEXT = "context"  # gone once repaired machines are left out
    UNKNOWN = "unknown"  # too little history, or nothing measured


@dataclass(frozen=True, slots=True)
class Finding:
    """One feature's comparison. `value` and `threshold` are None when the verdict is unknown."""

    kind: Kind
    feature: str
    value: float | None
    threshold: float | None
    verdict: Verdict
    machines: tuple[str, ...]
    """Machines whose rows moved furthest, worst first; empty unless drifted."""
    reference_rows: int
    current_rows: int


@dataclass(frozen=True)
class Windows:
    """Reference and current rows of the machines both have, and what is set aside.

    Frames have machine_id, interval (int) and one float column per feature; missing is null.
    """

    reference: pl.DataFrame
    current: pl.DataFrame
    length: int
    """Intervals of the current window, and of each calibration window."""
    repaired: tuple[str, ...]
    """Machines to leave out when asking whether repairs explain a change."""
    new_regime: tuple[str, ...]
    """Machines without a baseline: new, or in a regime that began inside the window."""


def edges(reference: Floats) -> Floats:
    """Sorted bin edges: the deciles. A value many rows share gets a bin of its own."""
    found, counts = np.unique(np.quantile(reference, DECILES), return_counts=True)
    return np.unique(np.concatenate([found, np.nextafter(found[counts > 1], -np.inf)]))


def shares(values: Floats, between: Floats) -> Floats:
    """Share of the values [n] in each bin; half a row is added to each, so that none is empty."""
    counts = np.bincount(np.searchsorted(between, values), minlength=len(between) + 1) + 0.5
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def psi(reference: Floats, current: Floats) -> float:
    """Population stability index (Siddiqi 2006) over the reference's deciles; 0 = the same."""
    between = edges(reference)
    before, now = shares(reference, between), shares(current, between)
    return float(((now - before) * np.log(now / before)).sum())


def per_interval(rows: pl.DataFrame, columns: Sequence[str], interval: int) -> pl.DataFrame:
    """Median of each column per machine and interval (µs) of `ts` (int µs); NaN is missing."""
    medians = [pl.col(name).cast(pl.Float64).fill_nan(None).median() for name in columns]
    return (
        rows.group_by("machine_id", (pl.col("ts") // interval).alias("interval"))
        .agg(medians)
        .sort("machine_id", "interval")
    )


def window_length(intervals: int, machines: int) -> int:
    """Intervals of the current window: a fifth of what there is, at most seven.

    A fleet too small to fill seven intervals with enough rows gets a longer window.
    """
    most = max(CURRENT_INTERVALS, -(-MIN_ROWS // machines))
    return max(1, min(most, intervals // (FEWEST_WINDOWS + 2)))


def split(
    rows: pl.DataFrame, trained: int | None, repairs: pl.DataFrame, regimes: pl.DataFrame
) -> Windows:
    """Reference and current window of rows per machine and interval.

    The reference ends where the current window begins, or earlier: with the interval `trained`
    of the model in production, so that slow change adds up until there is a newer model.
    `repairs` and `regimes` have machine_id and interval of what was done.
    """
    intervals = rows["interval"].to_numpy()
    first, last = int(intervals.min()), int(intervals.max())
    length = window_length(last - first + 1, rows["machine_id"].n_unique())
    begin = last - length + 1
    newest = regimes.group_by("machine_id").agg(pl.col("interval").max().alias("since"))
    since = pl.col("since").fill_null(first - 1)
    # The interval of the change itself holds rows of both regimes.
    own = rows.join(newest, on="machine_id", how="left").filter(pl.col("interval") > since)
    own = own.drop("since")
    current = own.filter(pl.col("interval") >= begin)
    end = begin if trained is None else min(begin, trained + 1)
    reference = own.filter(
        (pl.col("interval") < end) & (pl.col("interval") >= end - REFERENCE_WINDOWS * length)
    )
    both = set(reference["machine_id"]) & set(current["machine_id"])
    asked = set(rows.filter(pl.col("interval") >= begin)["machine_id"])
    return Windows(
        reference.filter(pl.col("machine_id").is_in(both)),
        current.filter(pl.col("machine_id").is_in(both)),
        length,
        tuple(sorted(_unusual(repairs, begin, end, length) & both)),
        tuple(sorted(asked - both)),
    )


def examine(windows: Windows, kind: Kind, features: Sequence[str]) -> list[Finding]:
    """One finding per feature, in the given order."""
    return [_finding(windows, kind, name) for name in features]


def has_drifted(findings: Sequence[Finding]) -> bool:
    """Whether a new model may help: data or predictions drifted. Bad sensors need a technician."""
    return any(f.verdict is Verdict.DRIFTED and f.kind is not Kind.QUALITY for f in findings)


def sample(rows: pl.DataFrame) -> pl.DataFrame:
    """At most MAX_ROWS rows, always the same ones."""
    return rows if rows.height <= MAX_ROWS else rows.sample(MAX_ROWS, seed=0)


def _unusual(repairs: pl.DataFrame, begin: int, end: int, length: int) -> set[str]:
    """Machines repaired in the current window, if more than in any reference window.

    Repairs at the usual rate need no excuse: the calibration windows had them too.
    """

    def repaired(start: int, stop: int) -> set[str]:
        inside = pl.col("interval").is_between(start, stop, closed="left")
        return set(repairs.filter(inside)["machine_id"])

    now = repaired(begin, begin + length)
    starts = range(end - REFERENCE_WINDOWS * length, end - length + 1)
    usual = max((len(repaired(s, s + length)) for s in starts), default=0)
    return now if len(now) > usual else set()


def _finding(windows: Windows, kind: Kind, feature: str) -> Finding:
    chosen = ["machine_id", "interval", feature]
    reference, current = (
        sample(side.select(chosen).drop_nulls()) for side in (windows.reference, windows.current)
    )
    sizes = reference.height, current.height
    unchanged = _unchanged(reference, feature, windows.length)
    if min(sizes) < MIN_ROWS or not unchanged.size:
        return Finding(kind, feature, None, None, Verdict.UNKNOWN, (), *sizes)
    threshold = float(max(FLOOR, NOISE * unchanged.mean(), unchanged.max()))
    value = psi(_values(reference, feature), _values(current, feature))
    verdict, machines = Verdict.STEADY, tuple[str, ...]()
    if value >= threshold:
        is_context = _repairs_explain(windows.repaired, reference, current, feature, threshold)
        verdict = Verdict.CONTEXT if is_context else Verdict.DRIFTED
        machines = () if is_context else _moved_most(reference, current, feature)
    return Finding(kind, feature, value, threshold, verdict, machines, *sizes)


def _unchanged(reference: pl.DataFrame, feature: str, length: int) -> Floats:
    """Index of windows of the reference against the rest of it; empty when there are too few."""
    if reference.is_empty():
        return np.zeros(0)
    interval, values = reference["interval"].to_numpy(), _values(reference, feature)
    first, stop = int(interval.min()), int(interval.max()) + 1
    if stop - first < FEWEST_WINDOWS * length:
        return np.zeros(0)
    found = []
    for start in range(first, stop - length + 1, max(1, length // 2)):
        inside = (interval >= start) & (interval < start + length)
        if inside.sum() >= MIN_ROWS and (~inside).sum() >= MIN_ROWS:
            found.append(psi(values[~inside], values[inside]))
    return np.array(found) if len(found) >= FEWEST_WINDOWS else np.zeros(0)


def _repairs_explain(
    repaired: Sequence[str],
    reference: pl.DataFrame,
    current: pl.DataFrame,
    feature: str,
    threshold: float,
) -> bool:
    """Whether the change is gone, or nothing is left to judge by, without the repaired machines."""
    if not repaired:
        return False
    others = ~pl.col("machine_id").is_in(repaired)
    before, now = reference.filter(others), current.filter(others)
    if min(before.height, now.height) < MIN_ROWS:
        return True
    # Chance grows as rows get fewer: the expected index is proportional to 1/n + 1/m.
    noise = (1 / before.height + 1 / now.height) / (1 / reference.height + 1 / current.height)
    return psi(_values(before, feature), _values(now, feature)) < threshold * noise


def _moved_most(reference: pl.DataFrame, current: pl.DataFrame, feature: str) -> tuple[str, ...]:
    """Machines by how much more often their bins are hit now than in the reference."""
    between = edges(_values(reference, feature))
    now = _values(current, feature)
    gain = np.log(shares(now, between) / shares(_values(reference, feature), between))
    moved = (
        current.with_columns(gain=pl.Series(gain[np.searchsorted(between, now)]))
        .group_by("machine_id")
        .agg(pl.col("gain").mean())
        .filter(pl.col("gain") > 0)
        .sort(["gain", "machine_id"], descending=[True, False])
    )
    return tuple(moved["machine_id"].head(WORST_MACHINES))


def _values(rows: pl.DataFrame, feature: str) -> Floats:
    return rows[feature].to_numpy().astype(np.float64)
