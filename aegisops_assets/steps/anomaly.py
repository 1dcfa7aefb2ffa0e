"""ml/training_set → the Isolation Forest of each class, fitted once and kept for the bundle.

A kept forest belongs to the rows, class and seed it was fitted on; for any others it is fitted
again. So the bundle's bytes do not depend on which step came first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from aegisops import anomaly as scored
from aegisops.errors import UntrustedBundle
from aegisops.modelling import anomaly
from aegisops.modelling.anomaly import AnomalyModel
from aegisops.modelling.fitting import Recipe
from aegisops.modelling.rows import Floats, healthy, matrix
from aegisops.modelling.split import TEST
from aegisops.scoring import ANOMALY_FOREST
from aegisops_assets.steps import training
from aegisops_assets.steps.platform import Fleet, Platform

ABOUT = "about.json"


@dataclass(frozen=True)
class Fitted:
    """One class's forest, and how it tells test rows apart that no tree has seen."""

    machine_class: str
    model: AnomalyModel | None
    """None when the class has too few healthy rows or no windowed feature that reported."""
    rows: int
    """Of the folds `train` and `calibrate`."""
    usual: float
    """Score below which 95 of 100 healthy training rows stay."""
    healthy: Floats
    """Scores of healthy test rows."""
    before_failure: Floats
    """Scores of test rows that a failure follows within the horizon."""

    @property
    def figures(self) -> dict[str, Any]:
        """For the asset's page; shares are null without such rows."""
        if self.model is None:
            return {"rows": self.rows, "skipped": "too few healthy rows"}
        sound = self.model.about["healthy_rows"]
        return {
            "rows": sound,
            "share_of_training_rows": sound / self.rows,
            "inputs": len(self.model.about["inputs"]),
            "healthy_test_rows_called_unusual": _share_above(self.healthy, self.usual),
            "failing_test_rows_called_unusual": _share_above(self.before_failure, self.usual),
            "unseen_roc_auc": _finite(self.model.about["unseen_roc_auc"]),
            "unseen_pr_auc": _finite(self.model.about["unseen_pr_auc"]),
        }


def build(platform: Platform, *, classes: Iterable[str] = ()) -> list[Fitted]:
    """Fit and keep the forest of every class that has a training set."""
    made = []
    for fleet in platform.fleets(classes):
        rows = training.training_rows(platform, fleet)
        if rows.is_empty():
            continue
        horizon = training.horizon(platform, fleet)
        model = forest_of(platform, fleet, rows, horizon, Recipe().seed)
        made.append(_judged(fleet, rows, horizon, model))
    return made


def forest_of(
    platform: Platform, fleet: Fleet, rows: pl.DataFrame, horizon: int, seed: int
) -> AnomalyModel | None:
    """The forest of exactly these rows: the kept one, or fitted now and kept."""
    folder = platform.settings.forests_dir / fleet.machine_class.name
    key = _key(fleet, rows, horizon, seed)
    try:
        kept = json.loads((folder / ABOUT).read_text())
        if kept["key"] == key:
            return _load(folder, kept["about"], len(fleet.machine_class.vector))
    except (OSError, ValueError, KeyError, UntrustedBundle):
        pass  # nothing kept, or unreadable: fit it again
    model = anomaly.fit(rows, fleet.machine_class, horizon=horizon, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)  # a crash between two files must not pair them
    if model is not None:
        scored.save(model.forest, folder / ANOMALY_FOREST)
    about = None if model is None else model.about
    (folder / ABOUT).write_text(json.dumps({"key": key, "about": about}))
    return model


def _load(folder: Path, about: dict[str, Any] | None, width: int) -> AnomalyModel | None:
    if about is None:
        return None
    return AnomalyModel(scored.load(folder / ANOMALY_FOREST, width), about)


def _key(fleet: Fleet, rows: pl.DataFrame, horizon: int, seed: int) -> str:
    whole = hashlib.sha256(rows.hash_rows(seed=0).to_numpy().tobytes())
    declared = fleet.machine_class.model_dump(mode="json")
    limits = [anomaly.TREES, anomaly.SAMPLES]
    whole.update(json.dumps([declared, horizon, seed, limits], sort_keys=True).encode())
    return whole.hexdigest()


def _judged(fleet: Fleet, rows: pl.DataFrame, horizon: int, model: AnomalyModel | None) -> Fitted:
    name = fleet.machine_class.name
    test, nothing = rows.filter(pl.col("fold") == TEST), np.array([])
    fitted = rows.height - test.height
    if model is None:
        return Fitted(name, None, fitted, float("nan"), nothing, nothing)
    scores = scored.score(model.forest, matrix(test, fleet.machine_class))
    known = np.isfinite(scores)
    sound = healthy(test, horizon, fleet.machine_class)
    failing = (test["label"] == 1).to_numpy()
    return Fitted(
        name,
        model,
        fitted,
        float(model.forest.usual),
        scores[known & sound],
        scores[known & failing],
    )


def _share_above(scores: Floats, usual: float) -> float | None:
    return float((scores > usual).mean()) if scores.size else None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
