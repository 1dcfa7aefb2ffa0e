"""Fits the model of a machine class: boosters, calibration, thresholds, normal ranges. No I/O.

`any` failure is one booster of its own, not a mixture of the mode boosters: its margin alone
decides the served probability, so its exact SHAP values explain exactly what is served. The mode
booster only ranks the modes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xgboost as xgb

from aegisops.machines import MachineClass
from aegisops.modelling import calibration, metrics
from aegisops.modelling.calibration import Calibration
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

Labels = npt.NDArray[Any]
Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""

CROSS_FIT_BELOW = 50
"""With fewer failures in the calibrate fold, calibration uses cross-fitted rows of both folds."""
CROSS_FIT_GROUPS = 4
MANY_ROWS = 200_000
"""From here on the default recipe uses two threads."""
ROUND_SHARES = (0.4, 0.6, 0.8, 1.0)
"""Shares of the recipe's trees that cross-fitting chooses from."""
HIGH_CEILING = 0.9
"""`high` never asks for more certainty than this."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one training; equal recipe, rows and version of xgboost give equal bytes."""

    rounds: int = 25
    """Boosting rounds of `parallel_trees` trees; 200 trees cost serving about 0.3 ms a row."""
    parallel_trees: int = 8
    """Small forests instead of single trees: with tens of failures, averaging beats boosting on
    (PR-AUC on unseen machines .60 against .56 of the Azure rows at 24 h without errors)."""
    min_rounds: int = 10
    """Early stopping on few failures is noisy; it may not stop before this."""
    early_stopping: int = 8
    mode_rounds: int = 25
    mode_parallel_trees: int = 2
    max_depth: int = 3
    learning_rate: float = 0.25
    subsample: float = 0.7
    columns: float = 0.3
    min_child_weight: float = 5.0
    reg_lambda: float = 1.0
    positive_weight: float = 1.0
    """Weight of a row before a failure; calibration makes up for it."""
    seed: int = 0
    threads: int = 1
    """Never the number of cores: sums in another order give other bytes. On small data and a busy
    box, threads that wait for each other made a fit ten times slower."""

    def parameters(self) -> dict[str, Any]:
        """Booster parameters."""
        return {
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "max_depth": self.max_depth,
            "learning_rate": self.learning_rate,
            "subsample": self.subsample,
            "colsample_bynode": self.columns,
            "min_child_weight": self.min_child_weight,
            "reg_lambda": self.reg_lambda,
            "num_parallel_tree": self.parallel_trees,
            "scale_pos_weight": self.positive_weight,
            "seed": self.seed,
            "nthread": self.threads,
            "verbosity": 0,
        }


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
    recipe = recipe or Recipe(threads=1 if rows.height < MANY_ROWS else 2)
    late = (rows["fold"] == CALIBRATE).to_numpy()
    data, y = matrix(rows, machine_class, names), outcomes(rows)
    progress("choosing the number of trees and calibrating", 0.05)
    fitter = _Fitter(data, names, recipe)
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
        horizon=machine_class.horizon if horizon is None else horizon,
        inputs=names,
        recipe=recipe,
        rounds=rounds,
        failure=booster,
        modes=modes,
        mode_booster=mode_booster,
        calibration=curve,
        calibrated_on="calibrate_fold" if groups is None else "cross_fitted",
        thresholds=_thresholds(y[use], probability, machine_class),
        mode_thresholds=mode_thresholds,
        normals=_normals(rows, data, names, horizon or machine_class.horizon, machine_class),
        training={
            "rows": float(len(y)),
            "positive_rows": float(y.sum()),
            "failures": float(failures),
            "machines": float(rows["machine_id"].n_unique()),
            "unseen_pr_auc": metrics.average_precision(y[use], probability),
            "unseen_brier": metrics.brier(y[use], probability),
        },
    )


@dataclass(frozen=True, slots=True)
class _Fitter:
    """The training matrix and how boosters are fitted on parts of it."""

    data: Matrix
    names: tuple[str, ...]
    recipe: Recipe

    def fit(self, y: Labels, where: Labels | slice, rounds: int) -> xgb.Booster:
        matrix_ = self._dmatrix(y, where)
        parameters = self.recipe.parameters()
        if y.ndim > 1:
            parameters["num_parallel_tree"] = self.recipe.mode_parallel_trees
        return xgb.train(parameters, matrix_, rounds)

    def early_stopped(self, y: Labels, late: Labels) -> tuple[int, Floats]:
        """The number of trees the late rows like best, and their margins by that many."""
        recipe = self.recipe
        booster = xgb.train(
            recipe.parameters(),
            self._dmatrix(y, ~late),
            recipe.rounds,
            evals=[(self._dmatrix(y, late), "late")],
            early_stopping_rounds=recipe.early_stopping,
            verbose_eval=False,
        )
        rounds = min(max(int(booster.best_iteration) + 1, recipe.min_rounds), recipe.rounds)
        return rounds, self.margins(booster, late, min(rounds, booster.num_boosted_rounds()))

    def cross_fitted(self, y: Labels, groups: Labels) -> tuple[int, Floats]:
        """The number of trees with the best PR-AUC on unseen machines, and margins [n] by them.

        Log loss would stop earlier: on unseen machines it punishes confidence, which calibration
        mends, while the ranking still improves.
        """
        choices = sorted({max(1, round(share * self.recipe.rounds)) for share in ROUND_SHARES})
        unseen = self.unseen_margins(y, groups, choices)
        quality = [metrics.average_precision(y, margin) for margin in unseen]
        best = int(np.argmax(quality))
        return choices[best], unseen[best]

    def unseen_margins(
        self, y: Labels, groups: Labels, rounds: Sequence[int]
    ) -> tuple[Floats, ...]:
        """Margins like `y` per number of trees; each row's booster saw no row of its machine."""
        scored = tuple(np.zeros(y.shape) for _ in rounds)
        for group in np.unique(groups):
            held = groups == group
            booster = self.fit(y, ~held, max(rounds))
            for margin, trees in zip(scored, rounds, strict=True):
                margin[held] = self.margins(booster, held, trees).reshape(margin[held].shape)
        return scored

    def margins(self, booster: xgb.Booster, where: Labels, rounds: int) -> Floats:
        raw = booster.inplace_predict(
            self.data[where],
            predict_type="margin",
            validate_features=False,
            iteration_range=(0, rounds),
        )
        return np.asarray(raw, dtype=np.float64)

    def _dmatrix(self, y: Labels, where: Labels | slice) -> xgb.DMatrix:
        return xgb.DMatrix(
            self.data[where],
            y[where],
            feature_names=list(self.names),
            nthread=self.recipe.threads,
        )


def _learnable_modes(rows: pl.DataFrame, machine_class: MachineClass) -> tuple[str, ...]:
    """Declared modes that occur; a mode without an example cannot be learned."""
    seen = set(rows["failure_modes"].explode(empty_as_null=True).drop_nulls().to_list())
    return tuple(mode for mode in machine_class.failure_modes if mode in seen)


def _mode_thresholds(
    fitter: _Fitter, y: Labels, late: Labels, groups: Labels | None, modes: Sequence[str]
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


def _thresholds(y: Labels, probability: Floats, machine_class: MachineClass) -> dict[str, float]:
    elevated = calibration.cost_threshold(machine_class.costs)
    f1 = metrics.best_f1_threshold(y, probability)
    return {"elevated": elevated, "high": max(elevated, min(f1, HIGH_CEILING)), "f1": f1}


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
