"""Fits the remaining-life model of a class and finds what its scores mean. No I/O.

A booster of accelerated failure times (Barnwal, Cho and Hocking 2022) learns from failures and
from rows that were only followed for a while. Its own spread is one number for all rows and is not
used: intervals are Kaplan-Meier quantiles of rows of other machines at similar scores, widened for
the number of failures behind them as split conformal prediction does. What people prevented and
what the record does not reach counts as "longer than followed" and not as survival.

Lives longer than `REACH` horizons count as censored there: far away machines look alike, and what
could be learned is the calendar. Where so many machines went on beyond it that no upper bound can
be given, the model says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xgboost as xgb

from aegisops import remaining_life
from aegisops.machines import MachineClass
from aegisops.modelling.rows import Floats, Ints, Matrix, matrix
from aegisops.modelling.split import CALIBRATE, TRAIN, machine_groups
from aegisops.remaining_life import Life

Flags = npt.NDArray[np.bool_]

REACH = 4
"""Horizons; nothing is said about a longer life."""
COVERAGE = 0.9
GROUPS = 4
"""Parts of the fleet; each is scored by a booster of the others."""
ENOUGH_FAILURES = 60
"""Behind an interval where there are as many: 5 % of 60 is three."""
FEWEST_FAILURES = 10
"""The smallest and the largest of 10 lives hold the next one 9 times of 11."""
MOST_ROWS = 60_000
"""Rows of neighbouring steps are near copies: of more rows, every k-th is used."""
ROUNDS = 60
_SHORTEST = 1e-2


@dataclass(frozen=True)
class LifeModel:
    """A fitted model and what the manifest says beside its knots."""

    life: Life
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lives:
    """Remaining lives of n rows, in hours (cycles)."""

    hours: Floats
    """[n] how long the row was followed, at most the reach."""
    failed: Flags
    """[n] whether it ended with a failure."""
    failure: Ints
    """[n] number of the failure it ended with; -1 without."""

    def take(self, where: Flags | Ints | slice) -> Lives:
        """Some of the rows."""
        return Lives(self.hours[where], self.failed[where], self.failure[where])


def lives(rows: pl.DataFrame, machine_class: MachineClass, horizon: int) -> Lives:
    """Remaining lives of labelled rows, censored at the reach."""
    reach = REACH * horizon / machine_class.hour
    followed = rows["hours_followed"].to_numpy()
    ahead = rows["hours_to_failure"].fill_null(np.inf).to_numpy()
    failed = (ahead <= followed) & (ahead <= reach)
    time = rows["ts"].to_numpy() + (np.where(failed, ahead, 0) * machine_class.hour).round()
    key = pl.struct(rows["machine_id"], pl.Series("t", time.astype(np.int64)))
    number = rows.select(key.rank("dense").cast(pl.Int64)).to_series().to_numpy()
    return Lives(
        np.clip(np.minimum(followed, ahead), _SHORTEST, reach),
        failed,
        np.where(failed, number, -1),
    )


def fit(
    rows: pl.DataFrame,
    machine_class: MachineClass,
    *,
    horizon: int | None = None,
    ignored: Sequence[str] = (),
    seed: int = 0,
    threads: int = 1,
) -> LifeModel | None:
    """Fit on the folds `train` and `calibrate`; other folds are not looked at.

    `ignored` are inputs no tree may ask for. None when too few failures are known for any interval.
    """
    rows = rows.filter(pl.col("fold").is_in([TRAIN, CALIBRATE])).sort("machine_id", "ts")
    rows = rows.gather_every(-(-rows.height // MOST_ROWS)) if rows.height else rows
    horizon = machine_class.horizon if horizon is None else horizon
    known = lives(rows, machine_class, horizon)
    if np.unique(known.failure[known.failed]).size < FEWEST_FAILURES:
        return None
    data = matrix(rows, machine_class)
    names = list(machine_class.vector)
    # A column without a value offers no split, so what is in it later does not matter.
    data[:, [names.index(name) for name in ignored]] = np.nan
    groups = machine_groups(rows["machine_id"], GROUPS, seed)
    unseen = np.full(len(data), np.nan)
    for group in range(GROUPS):
        held = groups == group
        if held.any() and known.failed[~held].any():
            booster = _booster(data[~held], known.take(~held), names, seed, threads)
            unseen[held] = _score(booster, data[held])
    judged = np.isfinite(unseen)
    booster = _booster(data, known, names, seed, threads)
    life = meaning(booster, unseen[judged], known.take(judged))
    if life is None:
        return None
    about = {
        "rows": len(data),
        "failures": int(np.unique(known.failure[known.failed]).size),
        "reach_horizons": REACH,
        "rounds": ROUNDS,
        "unseen": check(life, unseen[judged], known.take(judged)),
    }
    return LifeModel(life, about)


def meaning(booster: xgb.Booster, scores: Floats, known: Lives) -> Life | None:
    """The knots that held-out scores [n] and lives give; None when they support no interval.

    Bins hold as many failures as there are to spare. Where the lowest large bin has no upper end,
    smaller ones reach only as far as the trend is clear.
    """
    order = np.argsort(scores, kind="stable")
    scores, known = scores[order], known.take(order)
    failing = np.flatnonzero(known.failed)
    # Not all failures of a small fleet show themselves: half of them must do.
    half = np.unique(known.failure[failing]).size // 2
    enough = int(np.clip(half, FEWEST_FAILURES, ENOUGH_FAILURES))
    for size in (enough, enough // 2, FEWEST_FAILURES):
        life = _knots(booster, scores, known, max(size, FEWEST_FAILURES))
        if life is not None:
            return life
    return None


def _knots(booster: xgb.Booster, scores: Floats, known: Lives, enough: int) -> Life | None:
    """The same with bins of `enough` failures; scores ascending."""
    failing = np.flatnonzero(known.failed)
    knots, fewest, first = [], np.inf, 0
    while (end := _bin_end(known, failing, first, enough)) is not None:
        there = known.take(slice(first, end))
        n = np.unique(there.failure[there.failed]).size
        quantiles = [kaplan_meier(there, level) for level in (*_levels(n), 0.5)]
        if not np.isfinite(quantiles).all():
            break
        low, high, median = quantiles
        knots.append((float(np.median(scores[first:end][there.failed])), low, median, high))
        fewest, last, first = min(fewest, n), float(scores[end - 1]), end
    if not knots:
        return None
    # A better score never means a longer life; bins that cross are levelled.
    score, low, median, high = np.maximum.accumulate(np.array(knots), axis=0).T
    apart = np.r_[True, np.diff(score) > 0]
    return Life(
        booster,
        score[apart],
        low[apart],
        median[apart],
        high[apart],
        trend_below=last,
        coverage=float(min(COVERAGE, (fewest - 1) / (fewest + 1))),
    )


def _bin_end(known: Lives, failing: Ints, first: int, enough: int) -> int | None:
    """End of the smallest bin from `first` on that holds rows of `enough` failures."""
    ahead = failing[failing >= first]
    _, seen = np.unique(known.failure[ahead], return_index=True)
    if len(seen) < enough:
        return None
    return int(ahead[np.sort(seen)[enough - 1]]) + 1


def _levels(n: int) -> tuple[float, float]:
    """Levels of the interval's ends among n failures; with few, the outermost ones."""
    left_out = (1 - COVERAGE) / 2
    lowest = np.floor((n + 1) * left_out) / n
    return float(lowest), float(min(np.ceil((n + 1) * (1 - left_out)) / n, n / (n + 1)))


def kaplan_meier(known: Lives, level: float) -> float:
    """Hours by which a share `level` of the rows has failed; inf when it is never reached."""
    order = np.argsort(known.hours, kind="stable")
    hours, failed = known.hours[order], known.failed[order]
    at_risk = len(hours) - np.arange(len(hours))
    alive = np.cumprod(1 - failed / at_risk)
    # Rows of one failure pass a bin one after the other; the last digit is rounding.
    reached = np.flatnonzero(failed & (1 - alive >= level - 1e-9))
    return float(hours[reached[0]]) if reached.size else np.inf


def check(life: Life, scores: Floats, known: Lives) -> dict[str, float]:
    """How intervals of scores [n] held: coverage, share answered, median error and width.

    Coverage is over answered rows whose life is known to be inside or outside; a row that was not
    followed to the interval's end is neither.
    """
    said = remaining_life.estimate(life, scores)
    answered = np.isfinite(said.median)
    above = known.hours > said.high
    decided = answered & (known.failed | above)
    inside = known.failed & (known.hours >= said.low) & ~above
    near = known.failed & decided
    failing = known.failed
    return {
        "coverage": _mean(inside[decided]),
        "rows_answered": float(answered.sum()),
        "share_of_failing_rows_answered": _mean(answered[failing]),
        "failures": float(np.unique(known.failure[near]).size),
        "median_error_h": _median(np.abs(said.median - known.hours)[near]),
        "median_width_h": _median((said.high - said.low)[answered]),
    }


def examine(
    life: Life, rows: pl.DataFrame, machine_class: MachineClass, horizon: int
) -> dict[str, float]:
    """`check` on labelled rows."""
    known = lives(rows, machine_class, horizon)
    return check(life, _score(life.booster, matrix(rows, machine_class)), known)


def _booster(data: Matrix, known: Lives, names: list[str], seed: int, threads: int) -> xgb.Booster:
    rows = xgb.DMatrix(data, feature_names=names, nthread=threads)
    rows.set_float_info("label_lower_bound", known.hours)
    rows.set_float_info("label_upper_bound", np.where(known.failed, known.hours, np.inf))
    parameters = {
        "objective": "survival:aft",
        "aft_loss_distribution": "normal",
        "aft_loss_distribution_scale": 1.0,
        "tree_method": "hist",
        "max_depth": 4,
        "learning_rate": 0.15,
        "subsample": 0.7,
        "colsample_bynode": 0.8,
        "min_child_weight": 5.0,
        "seed": seed,
        "nthread": threads,
        "verbosity": 0,
    }
    return xgb.train(parameters, rows, ROUNDS)


def _score(booster: xgb.Booster, data: Matrix) -> Floats:
    raw = booster.inplace_predict(data, predict_type="margin", validate_features=False)
    return np.asarray(raw, dtype=np.float64).reshape(-1)


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _median(values: Floats) -> float:
    return float(np.median(values)) if values.size else float("nan")
