"""What a plain logistic regression and a plain random forest get from the same rows. Pure.

Both get the rows, inputs and folds of the model. Each chooses its alarm threshold as the model
does, on rows of the training span it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aegisops.modelling import metrics
from aegisops.modelling.metrics import Labels
from aegisops.modelling.rows import Floats, Matrix


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline: probabilities of rows, and its alarm threshold."""

    probability: Callable[[Matrix], Floats]
    threshold: float


def logistic_regression(data: Matrix, y: Labels, late: Labels, seed: int = 0) -> Baseline:
    """Standardised inputs, missing = median, balanced classes, scikit-learn's defaults."""
    from sklearn.linear_model import LogisticRegression

    def build() -> object:
        return LogisticRegression(class_weight="balanced", max_iter=2_000, random_state=seed)

    return _fit(build, data, y, late)


def random_forest(data: Matrix, y: Labels, late: Labels, seed: int = 0) -> Baseline:
    """100 trees, missing = median, balanced classes, scikit-learn's defaults."""
    from sklearn.ensemble import RandomForestClassifier

    def build() -> object:
        return RandomForestClassifier(100, class_weight="balanced", random_state=seed, n_jobs=1)

    return _fit(build, data, y, late)


def _fit(build: Callable[[], object], data: Matrix, y: Labels, late: Labels) -> Baseline:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(where: Labels) -> Callable[[Matrix], Floats]:
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        pipeline = make_pipeline(imputer, StandardScaler(), build())
        pipeline.fit(data[where], y[where])

        def probability(rows: Matrix) -> Floats:
            return np.asarray(pipeline.predict_proba(rows)[:, 1], dtype=np.float64)

        return probability

    early = ~late
    if y[early].any() and y[late].any():
        threshold = metrics.best_f1_threshold(y[late], fitted(early)(data[late]))
    else:
        threshold = 0.5
    return Baseline(fitted(np.ones(len(y), dtype=bool)), threshold)
