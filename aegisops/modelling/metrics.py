"""Figures of merit, each with a bootstrap interval over machines. Pure numpy.

Rows of one machine are not independent, so intervals resample whole machines: a machine drawn
twice counts with weight 2. Every metric therefore takes weights [n].

Alerts, lead time and budget are judged per failure, as a planner would: one alert is raised when a
probability reaches the threshold and then holds for one horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[Any]

NAN = float("nan")
US_PER_WEEK = 7 * 24 * 3_600 * 1_000_000


class Ranking:
    """Rows sorted once by probability, so that each bootstrap weight costs only a sum."""

    def __init__(self, y: Labels, p: Floats) -> None:
        """`y` [n] 0 or 1, `p` [n] any score, higher = likelier."""
        self._order = np.argsort(-p, kind="stable")
        self._ends = np.flatnonzero(np.diff(p[self._order], append=-np.inf))
        self._y = y[self._order].astype(np.float64)

    def average_precision(self, w: Floats | None = None) -> float:
        """Area under precision-recall as a sum of precision × recall steps.

        NaN without a positive row.
        """
        hits, alarms = self._cumulative(w)
        if hits[-1] == 0:
            return NAN
        precision = np.divide(hits, alarms, out=np.zeros_like(hits), where=alarms > 0)
        return float(np.sum(precision * np.diff(hits, prepend=0.0)) / hits[-1])

    def roc_auc(self, w: Floats | None = None) -> float:
        """Area under the ROC curve; ties count half. NaN without both outcomes."""
        hits, alarms = self._cumulative(w)
        negatives = alarms[-1] - hits[-1]
        if hits[-1] == 0 or negatives == 0:
            return NAN
        tpr = np.concatenate(([0.0], hits / hits[-1]))
        fpr = np.concatenate(([0.0], (alarms - hits) / negatives))
        return float(np.trapezoid(tpr, fpr))

    def _cumulative(self, w: Floats | None) -> tuple[Floats, Floats]:
        """Weighted hits and alarms at each distinct threshold, from the highest down."""
        weight = np.ones(len(self._y)) if w is None else w[self._order]
        return np.cumsum(weight * self._y)[self._ends], np.cumsum(weight)[self._ends]


def average_precision(y: Labels, p: Floats, w: Floats | None = None) -> float:
    """See `Ranking.average_precision`."""
    return Ranking(y, p).average_precision(w)


def roc_auc(y: Labels, p: Floats, w: Floats | None = None) -> float:
    """See `Ranking.roc_auc`."""
    return Ranking(y, p).roc_auc(w)


def brier(y: Labels, p: Floats, w: Floats | None = None) -> float:
    """Mean squared difference of probability and outcome."""
    return float(np.average((p - y) ** 2, weights=w))


def calibration_error(y: Labels, p: Floats, w: Floats | None = None, bins: int = 10) -> float:
    """Expected calibration error over `bins` equal widths of probability (Naeini et al. 2015)."""
    weight = np.ones(len(y)) if w is None else w
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    n = np.bincount(index, weight, bins)
    gap = np.abs(np.bincount(index, weight * y, bins) - np.bincount(index, weight * p, bins))
    return float(gap.sum() / n.sum())


def reliability(y: Labels, p: Floats, bins: int = 10) -> list[dict[str, float]]:
    """Points of the reliability curve: mean probability, observed share and rows per bin."""
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    return [
        {
            "predicted": float(p[index == b].mean()),
            "observed": float(y[index == b].mean()),
            "rows": int((index == b).sum()),
        }
        for b in range(bins)
        if (index == b).any()
    ]


def precision_recall_f1(
    y: Labels, p: Floats, threshold: float, w: Floats | None = None
) -> tuple[float, float, float]:
    """Row-wise precision, recall and F1 of `p >= threshold`; 0 where there is no alarm."""
    weight = np.ones(len(y)) if w is None else w
    alarm = p >= threshold
    hit = float(weight[alarm & (y == 1)].sum())
    alarms, positives = float(weight[alarm].sum()), float(weight[y == 1].sum())
    if positives == 0:
        return NAN, NAN, NAN
    return (
        hit / alarms if alarms else 0.0,
        hit / positives,
        2 * hit / (alarms + positives),
    )


def best_f1_threshold(y: Labels, p: Floats) -> float:
    """Threshold with the best F1: halfway between its last alarm and the next value below."""
    order = np.argsort(-p, kind="stable")
    p, hits = p[order], np.cumsum(y[order])
    ends = np.flatnonzero(np.diff(p, append=-np.inf))
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
    best = ends[int(np.argmax(f1))]
    below = p[best + 1] if best + 1 < len(p) else p[best]
    return float((p[best] + below) / 2)


@dataclass(frozen=True, slots=True)
class Timeline:
    """When rows were scored and when machines failed; all times int µs."""

    machine: Ints
    """[n] machine number of each row; rows sorted by machine, then time."""
    ts: Ints
    """[n]"""
    failure_machine: Ints
    """[f] machine number of each failure."""
    failure_ts: Ints
    """[f] distinct per machine."""
    horizon: int
    step: int
    """Time one row stands for."""

    @property
    def machine_weeks(self) -> float:
        """Observed time."""
        return len(self.ts) * self.step / US_PER_WEEK

    def axis(self) -> tuple[Ints, Ints]:
        """Rows [n] and failures [f] on one time axis in µs, machine after machine.

        One horizon after any row of a machine, or before any of its failures, no other machine
        is met: so one sorted search answers for all machines.
        """
        every = np.concatenate((self.ts, self.failure_ts))
        first = int(every.min(initial=np.iinfo(np.int64).max))
        span = int(every.max(initial=first)) - first + 2 * self.horizon
        return (
            self.machine * span + (self.ts - first),
            self.failure_machine * span + (self.failure_ts - first),
        )


def alerts(timeline: Timeline, p: Floats, threshold: float) -> Ints:
    """Row indices at which an alert is raised; each silences its machine for one horizon."""
    above = np.flatnonzero(p >= threshold)
    at = timeline.axis()[0][above]
    # The next alert after each row that could raise one; the loop then walks over alerts alone.
    following = np.searchsorted(at, at + timeline.horizon).tolist()
    raised: list[int] = []
    i = 0
    while i < len(following):
        raised.append(i)
        i = following[i]
    return above[np.array(raised, dtype=np.int64)]


def lead_times(timeline: Timeline, p: Floats, threshold: float) -> Floats:
    """Warning time [f] in µs before each failure, NaN for a missed one.

    Counted from the first row at or above the threshold within one horizon before the failure.
    """
    rows, failed = timeline.axis()
    warned = rows[p >= threshold]
    first = np.searchsorted(warned, failed - timeline.horizon)
    lead = failed - np.append(warned, np.iinfo(np.int64).max)[first]
    return np.where(lead > 0, lead, NAN).astype(np.float64)


def budget_threshold(timeline: Timeline, p: Floats, alerts_per_machine_week: float) -> float:
    """Lowest threshold (to 1 in 10⁶ ranks) that keeps within the budget of alerts."""
    allowed = alerts_per_machine_week * timeline.machine_weeks
    levels = np.unique(p)
    low, high = 0, len(levels)  # levels[high:] keeps within the budget
    while low < high:
        middle = (low + high) // 2
        if len(alerts(timeline, p, float(levels[middle]))) <= allowed:
            high = middle
        else:
            low = middle + 1
    return float(levels[low]) if low < len(levels) else float(np.nextafter(levels[-1], np.inf))


def false_alert_threshold(timeline: Timeline, p: Floats, allowed: float) -> float:
    """Lowest value of `p` from which on at most `allowed` alerts are false."""
    levels = np.unique(p)
    low, high = 0, len(levels)  # levels[high:] keeps within what is allowed
    while low < high:
        middle = (low + high) // 2
        if false_alerts(timeline, p, float(levels[middle])) <= allowed:
            high = middle
        else:
            low = middle + 1
    return float(levels[min(low, len(levels) - 1)])


def false_alerts(timeline: Timeline, p: Floats, threshold: float) -> int:
    """Alerts with no failure of their machine within the horizon after them."""
    raised = alerts(timeline, p, threshold)
    rows, failed = timeline.axis()
    failed, at = np.sort(failed), rows[raised]
    following = np.searchsorted(failed, at, side="right")
    ahead = np.append(failed, np.iinfo(np.int64).max)[following] - at
    return int((ahead > timeline.horizon).sum())


def machine_weights(machine: Ints, replicates: int, seed: int) -> Floats:
    """[replicates, machines] how often each machine is drawn, with replacement."""
    machines = int(machine.max()) + 1 if machine.size else 0
    random = np.random.default_rng(seed)
    drawn = random.integers(0, machines, size=(replicates, machines))
    weights = np.zeros((replicates, machines))
    np.add.at(weights, (np.arange(replicates)[:, None], drawn), 1.0)
    return weights


def interval(values: Floats, level: float = 0.95) -> dict[str, float | None]:
    """Percentile interval `{low, high}` of a metric's bootstrap replicates [r].

    Replicates without the failures the metric needs (NaN) are left out; None if all are.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return {"low": None, "high": None}
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return {"low": float(low), "high": float(high)}
