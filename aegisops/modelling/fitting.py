"""The settings of a training, and boosters fitted on parts of its matrix. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from aegisops.modelling import metrics
from aegisops.modelling.rows import Floats, Matrix

Labels = npt.NDArray[Any]

ROUND_SHARES = (0.4, 0.6, 0.8, 1.0)
"""Shares of the recipe's trees that cross-fitting chooses from."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one training; equal recipe, rows and version of xgboost give equal bytes."""

    rounds: int = 40
    """Boosting rounds of `parallel_trees` trees; 40 trees of depth 5 cost serving about 0.05 ms a
    row with their exact SHAP values, 200 of depth 3 twice that."""
    parallel_trees: int = 1
    """Above 1: small forests instead of single trees, for very few failures."""
    min_rounds: int = 10
    """Early stopping on few failures is noisy; it may not stop before this."""
    early_stopping: int = 8
    mode_rounds: int = 25
    mode_parallel_trees: int = 2
    max_depth: int = 5
    learning_rate: float = 0.15
    subsample: float = 0.7
    columns: float = 0.8
    min_child_weight: float = 5.0
    reg_lambda: float = 1.0
    positive_weight: float = 1.0
    """Weight of a row before a failure; calibration makes up for it."""
    ignored: tuple[str, ...] = ()
    """Inputs no tree may ask for; the vector stays the class's."""
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


@dataclass(frozen=True, slots=True)
class Fitter:
    """The training matrix and how boosters are fitted on parts of it."""

    data: Matrix
    names: tuple[str, ...]
    recipe: Recipe

    def __post_init__(self) -> None:
        # A column without a value offers no split, so what is in it later does not matter.
        ignored = [i for i, name in enumerate(self.names) if name in self.recipe.ignored]
        if ignored:
            blanked = self.data.copy()
            blanked[:, ignored] = np.nan
            object.__setattr__(self, "data", blanked)

    def fit(self, y: Labels, where: Labels | slice, rounds: int) -> xgb.Booster:
        """A booster of some rows; one output per column of `y`."""
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
        """Log-odds of some rows by the booster's first `rounds`."""
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
