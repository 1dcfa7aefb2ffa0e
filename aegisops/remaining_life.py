"""How long a machine has left, with an interval, or no answer. Only numpy and xgboost.

A booster of an accelerated-failure-time model gives a score (log of hours left). What a score
means is read from machines the booster had not seen: Kaplan-Meier (1958) quantiles of their
remaining lives at similar scores, as `modelling.remaining_life` found them. From the score on
where even the upper quantile is no shorter than an ordinary remaining life nothing is said: there
the machine shows no trend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from aegisops.errors import UntrustedBundle

Floats = npt.NDArray[np.float64]

LIFE_BOOSTER = "life.ubj"
"""File in the bundle folder; the knots are in the manifest's `remaining_life`."""


@dataclass(frozen=True)
class Life:
    """The booster and what its scores mean; hours are cycles on a cycle clock."""

    booster: xgb.Booster
    score: Floats
    """[q] knots, ascending: log of hours."""
    low: Floats
    """[q] hours; so many or more are left in all but half of what the interval leaves out."""
    median: Floats
    """[q] hours."""
    high: Floats
    """[q] hours."""
    trend_below: float
    """No answer for scores above."""
    coverage: float
    """Share of remaining lives the interval is made to hold, such as 0.9."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hours (cycles) left of n machines; NaN where nothing is said."""

    median: Floats
    low: Floats
    high: Floats


def estimate(life: Life, scores: Floats) -> Estimate:
    """What scores [n] mean: linear between the knots, constant below the first."""
    shown = scores <= life.trend_below

    def at(hours: Floats) -> Floats:
        return np.where(shown, np.interp(scores, life.score, hours), np.nan)

    return Estimate(at(life.median), at(life.low), at(life.high))


def scores(life: Life, data: npt.NDArray[np.float32] | xgb.DMatrix) -> Floats:
    """Scores [n] of vectors [n, d], or of a matrix that was made for another booster already."""
    if isinstance(data, xgb.DMatrix):
        raw = life.booster.predict(data, output_margin=True, validate_features=False)
    else:
        raw = life.booster.inplace_predict(data, predict_type="margin", validate_features=False)
    return np.asarray(raw, dtype=np.float64).reshape(-1)


def about(life: Life) -> dict[str, Any]:
    """The manifest's `remaining_life`."""
    return {
        "score": life.score.tolist(),
        "low": life.low.tolist(),
        "median": life.median.tolist(),
        "high": life.high.tolist(),
        "trend_below": life.trend_below,
        "coverage": life.coverage,
    }


def load(booster: xgb.Booster, declared: Mapping[str, Any]) -> Life:
    """The model of a bundle; `UntrustedBundle` when its knots cannot be read as such."""
    try:
        knots = {
            k: np.atleast_1d(np.asarray(declared[k], float))
            for k in ("score", "low", "median", "high")
        }
        life = Life(
            booster,
            **knots,
            trend_below=float(declared["trend_below"]),
            coverage=float(declared["coverage"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UntrustedBundle(
            f"the manifest's remaining_life is not readable ({error}); train the model again"
        ) from error
    if not _fit_together(life):
        raise UntrustedBundle("the knots of remaining_life do not fit together; train again")
    return life


def _fit_together(life: Life) -> bool:
    curves = (life.low, life.median, life.high)
    if not life.score.size or any(curve.shape != life.score.shape for curve in curves):
        return False
    in_order = (life.low <= life.median) & (life.median <= life.high)
    return bool(in_order.all() and (np.diff(life.score) > 0).all())
