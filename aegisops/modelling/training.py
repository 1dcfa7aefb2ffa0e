"""Fits the model of a machine class: boosters, calibration, thresholds, normal ranges. No I/O.

`any` failure is one booster of its own, not a mixture of the mode boosters: its margin alone
decides the served probability, so its exact SHAP values explain exactly what is served. The mode
booster only ranks the modes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import xgboost as xgb

from aegisops.machines import MachineClass
from aegisops.modelling import calibration, metrics
from aegisops.modelling.calibration import Calibration
from aegisops.modelling.fitting import Fitter, Labels, Recipe
from aegisops.modelling.measure import Exam
from aegisops.modelling.rows import (
    Floats,
    Matrix,
    failure_times,
    healthy,
    matrix,
    mode_outcomes,
    outcomes,
)
from aegisops.modelling.split import CALIBRATE, TRAIN, machine_groups
from aegisops.scoring import margins

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""

CROSS_FIT_BELOW = 50
"""With fewer failures in the calibrate fold, calibration uses cross-fitted rows of both folds."""
CROSS_FIT_GROUPS = 4
MANY_ROWS = 200_000
"""From here on the default recipe uses two threads."""
FALSE_ALERT_EVERY = 30
"""Horizons a machine runs, on average, between two false alerts at `high`: a month of days."""
HIGH_CEILING = 0.75
"""`high` never asks for more certainty than this."""


@dataclass(frozen=True)
class Model:
    """A fitted model in memory; `bundle.write` makes it a folder."""

    machine_class: MachineClass
    horizon: int
    inputs: tuple[str, ...]
    recipe: Recipe
    rounds: int
    failure: xgb.Booster
    modes: tuple[str, ...]
    mode_booster: xgb.Booster | None
    calibration: Calibration
    calibrated_on: str
    """`cross_fitted` or `calibrate_fold`."""
    thresholds: dict[str, float]
    """elevated (from costs), high, f1 (best F1 on the calibration rows): probabilities."""
    mode_thresholds: dict[str, float]
    normals: dict[str, dict[str, float]]
    training: dict[str, float] = field(default_factory=dict)
    """Counts and figures of the training span, for the manifest."""

    def probability(self, data: Matrix) -> Floats:
        """Calibrated probabilities [n] of float32 rows [n, d] in the order of `inputs`."""
        return self.calibration(margins(self.failure, data))

    def mode_probability(self, data: Matrix) -> Floats:
        """Probabilities [n, k] per mode, uncalibrated."""
        if self.mode_booster is None:
            return np.zeros((len(data), 0))
        raw = self.mode_booster.inplace_predict(data, validate_features=False)
        return np.asarray(raw, dtype=np.float64).reshape(len(data), len(self.modes))


def fit(
    rows: pl.DataFrame,
    machine_class: MachineClass,
    *,
    horizon: int | None = None,
    inputs: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    progress: Progress = lambda *_: None,
) -> Model:
    """Fit on the folds `train` and `calibrate` of labelled rows; other folds are not looked at.

    The number of trees and the calibration come from rows a booster has not seen: the calibrate
    fold, which is later in time; or, when that holds few failures, rows of both folds scored by
    boosters of other machines. Then the booster is fitted again on both folds.
    """
    names = tuple(inputs or machine_class.vector)
    rows = rows.filter(pl.col("fold").is_in([TRAIN, CALIBRATE])).sort("machine_id", "ts")
    horizon_ = machine_class.horizon if horizon is None else horizon
    recipe = recipe or Recipe(threads=1 if rows.height < MANY_ROWS else 2)
    late = (rows["fold"] == CALIBRATE).to_numpy()
    data, y = matrix(rows, machine_class, names), outcomes(rows)
    progress("choosing the number of trees and calibrating", 0.05)
    fitter = Fitter(data, names, recipe)
    failed = pl.DataFrame(
        {"machine_id": rows["machine_id"], "t": failure_times(rows, machine_class), "late": late}
    ).filter(pl.col("t") >= 0)
    few = failed.filter("late").unique().height < CROSS_FIT_BELOW
    groups: Labels | None = None
    if few and failed["machine_id"].n_unique() >= CROSS_FIT_GROUPS:
        groups = machine_groups(rows["machine_id"], CROSS_FIT_GROUPS, recipe.seed)
        use = np.ones(len(y), dtype=bool)
        rounds, unseen = fitter.cross_fitted(y, groups)
    else:
        use = late
        rounds, unseen = fitter.early_stopped(y, late)
    failures = failed.select("machine_id", "t").unique().height
    curve = calibration.fit(unseen, y[use].astype(float), failures)
    probability = curve(unseen)
    progress("fitting on all training rows", 0.6)
    everything = slice(None)
    booster = fitter.fit(y, everything, rounds)
    modes = _learnable_modes(rows, machine_class)
    mode_y = mode_outcomes(rows, modes)
    mode_booster, mode_thresholds = None, {}
    if modes:
        progress("fitting failure modes", 0.75)
        mode_booster = fitter.fit(mode_y, everything, recipe.mode_rounds)
        mode_thresholds = _mode_thresholds(fitter, mode_y, late, groups, modes)
    progress("fitted", 1.0)
    return Model(
        machine_class=machine_class,
        horizon=horizon_,
        inputs=names,
        recipe=recipe,
        rounds=rounds,
        failure=booster,
        modes=modes,
        mode_booster=mode_booster,
        calibration=curve,
        calibrated_on="calibrate_fold" if groups is None else "cross_fitted",
        thresholds=_thresholds(rows.filter(use), horizon_, probability, machine_class),
        mode_thresholds=mode_thresholds,
        normals=_normals(rows, data, names, horizon_, machine_class),
        training={
            "rows": float(len(y)),
            "positive_rows": float(y.sum()),
            "failures": float(failures),
            "machines": float(rows["machine_id"].n_unique()),
            "unseen_pr_auc": metrics.average_precision(y[use], probability),
            "unseen_brier": metrics.brier(y[use], probability),
        },
    )


def _learnable_modes(rows: pl.DataFrame, machine_class: MachineClass) -> tuple[str, ...]:
    """Declared modes that occur; a mode without an example cannot be learned."""
    seen = set(rows["failure_modes"].explode(empty_as_null=True).drop_nulls().to_list())
    return tuple(mode for mode in machine_class.failure_modes if mode in seen)


def _mode_thresholds(
    fitter: Fitter, y: Labels, late: Labels, groups: Labels | None, modes: Sequence[str]
) -> dict[str, float]:
    """Per mode the probability with the best F1 on rows its booster has not seen."""
    rounds = fitter.recipe.mode_rounds
    if groups is not None:
        (unseen,) = fitter.unseen_margins(y, groups, [rounds])
    else:
        unseen = fitter.margins(fitter.fit(y, ~late, rounds), late, rounds)
        y = y[late]
    p = 1 / (1 + np.exp(-unseen.reshape(len(y), len(modes))))
    return {
        mode: metrics.best_f1_threshold(y[:, k], p[:, k]) if y[:, k].any() else 0.5
        for k, mode in enumerate(modes)
    }


def _thresholds(
    rows: pl.DataFrame, horizon: int, probability: Floats, machine_class: MachineClass
) -> dict[str, float]:
    """From costs, from a budget of false alerts, and from F1; on rows the boosters had not seen."""
    elevated = calibration.cost_threshold(machine_class.costs)
    line = Exam(rows, machine_class, horizon).timeline
    allowed = len(line.ts) * line.step / (FALSE_ALERT_EVERY * horizon)
    budget = metrics.false_alert_threshold(line, probability, allowed)
    return {
        "elevated": elevated,
        "high": max(elevated, min(budget, HIGH_CEILING)),
        "f1": metrics.best_f1_threshold(outcomes(rows), probability),
    }


def _normals(
    rows: pl.DataFrame,
    data: Matrix,
    names: Sequence[str],
    horizon: int,
    machine_class: MachineClass,
) -> dict[str, dict[str, float]]:
    """5, 50 and 95 % points of rows at least two horizons away from the next failure."""
    sound = healthy(rows, horizon, machine_class)
    normals = {}
    for i, name in enumerate(names):
        column = data[sound, i]
        column = column[np.isfinite(column)]
        if column.size:
            low, median, high = (float(q) for q in np.quantile(column, [0.05, 0.5, 0.95]))
            normals[name] = {"low": low, "median": median, "high": high}
    return normals
