"""From margins (log-odds) to probabilities that mean what they say, as knots. Pure.

With few failures a logistic curve (Platt 1999, with his smoothed targets) has only two parameters
to get wrong; with many, isotonic regression follows any monotone shape. Both are stored as knots
(x margin, y probability), so that serving needs `numpy.interp` and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from aegisops.machines.model import Costs
from aegisops.modelling.rows import Floats

ISOTONIC_FROM_FAILURES = 100
KNOTS = 129
_FLOOR = 1e-5
"""No finite record shows a probability of 0 or 1."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Knots, ascending in x and y; constant beyond the ends."""

    x: Floats
    y: Floats
    method: Literal["platt", "isotonic"]

    def __call__(self, margin: Floats) -> Floats:
        """Probabilities [n] of margins [n]."""
        return np.interp(margin, self.x, self.y)


def fit(margin: Floats, y: Floats, failures: int) -> Calibration:
    """Calibrate on rows the model was not fitted on; `failures` is the number of distinct ones."""
    if failures >= ISOTONIC_FROM_FAILURES:
        return _isotonic(margin, y)
    return _platt(margin, y)


def _platt(margin: Floats, y: Floats) -> Calibration:
    positives = float(y.sum())
    negatives = len(y) - positives
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope, intercept = 1.0, 0.0
    for _ in range(100):
        p = _sigmoid(slope * margin + intercept)
        w = np.maximum(p * (1 - p), 1e-12)
        gradient = np.array([np.dot(p - target, margin), np.sum(p - target)])
        cross = np.dot(w, margin)
        # A small ridge keeps the step finite when the classes are perfectly apart.
        hessian = np.array([[np.dot(w, margin * margin) + 1e-6, cross], [cross, w.sum() + 1e-6]])
        step = np.linalg.solve(hessian, gradient)
        size = float(np.abs(step).max())
        step *= min(1.0, 2.0 / size) if size else 1.0
        slope, intercept = slope - step[0], intercept - step[1]
        if size < 1e-9:  # noqa: PLR2004
            break
    slope = max(slope, 1e-3)  # a calibration never turns the ranking round
    low, high = float(margin.min()) - 2.0, float(margin.max()) + 2.0
    x = np.linspace(low, high, KNOTS)
    return Calibration(x, np.clip(_sigmoid(slope * x + intercept), _FLOOR, 1 - _FLOOR), "platt")


def _isotonic(margin: Floats, y: Floats) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression(out_of_bounds="clip").fit(margin, y)
    fitted = steps.predict(margin)
    # One knot at the mean margin of each level: between levels the ranking is kept.
    levels, index = np.unique(fitted, return_inverse=True)
    x = np.bincount(index, margin) / np.bincount(index)
    if len(x) == 1:
        x, levels = np.array([x[0], x[0] + 1.0]), np.array([levels[0], levels[0]])
    if len(x) > KNOTS:
        keep = np.unique(np.linspace(0, len(x) - 1, KNOTS).round().astype(np.int64))
        x, levels = x[keep], levels[keep]
    return Calibration(x, np.clip(levels, _FLOOR, 1 - _FLOOR), "isotonic")


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -700, 700))))


def cost_threshold(costs: Costs) -> float:
    """Probability from which acting is cheaper than waiting.

    Acting costs a planned stop if the failure was coming, a false alarm if not; waiting costs a
    missed failure if it was: p·planned_stop + (1-p)·false_alarm = p·missed_failure.
    """
    saved = costs.missed_failure - costs.planned_stop
    if saved <= 0:
        return 0.5
    return costs.false_alarm / (costs.false_alarm + saved)
