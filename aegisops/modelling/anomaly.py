"""Fits the Isolation Forest of a machine class on healthy rows, and calibrates it. No I/O.

It looks only at features over a window: attributes say what a machine is, and times since and
totals grow without end, so a machine that merely runs on would look ever more unusual.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from aegisops import anomaly
from aegisops.anomaly import Forest, Ints
from aegisops.machines import MachineClass
from aegisops.modelling import calibration, metrics
from aegisops.modelling.rows import Floats, Matrix, failure_times, healthy, matrix, outcomes
from aegisops.modelling.split import CALIBRATE, TRAIN

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

TREES = 100
SAMPLES = 256
"""Rows a tree sees. Liu et al. found no gain beyond 256; larger samples hide clustered anomalies
behind one another."""
FEWEST_HEALTHY = SAMPLES
EULER_GAMMA = 0.5772156649015329


@dataclass(frozen=True)
class AnomalyModel:
    """A fitted forest and what the manifest says of it."""

    forest: Forest
    about: dict[str, Any]


def fit(
    rows: pl.DataFrame, machine_class: MachineClass, *, horizon: int | None = None, seed: int = 0
) -> AnomalyModel | None:
    """Fit on healthy rows of the train fold, calibrate on the whole calibrate fold.

    The probability of a score is the share of the calibrate fold's rows that failed within the
    horizon: later rows, which no tree has seen. None when the class has no windowed feature or
    fewer than `FEWEST_HEALTHY` healthy rows, or when nothing is left to calibrate on.
    """
    inputs = [i for i, spec in enumerate(machine_class.features) if spec.window is not None]
    horizon = machine_class.horizon if horizon is None else horizon
    rows = rows.sort("machine_id", "ts")
    sound = pl.Series(healthy(rows, horizon, machine_class))
    train = rows.filter((pl.col("fold") == TRAIN) & sound)
    later = rows.filter(pl.col("fold") == CALIBRATE)
    if not inputs or train.height < FEWEST_HEALTHY or later.is_empty():
        return None
    raw = matrix(train, machine_class)[:, inputs]
    raw[~np.isfinite(raw)] = np.nan
    seen: npt.NDArray[np.bool_] = np.isfinite(raw).any(axis=0)
    if not seen.any():
        return None
    # A channel that never reported has no median and tells nothing.
    inputs, raw = [i for i, known in zip(inputs, seen.tolist(), strict=True) if known], raw[:, seen]
    medians = np.nanmedian(raw, axis=0).astype(np.float32)
    fitted = isolation_forest(np.where(np.isnan(raw), medians, raw), seed)
    forest = export(fitted, np.array(inputs, np.int32), medians)
    model = _calibrated(forest, later, machine_class, horizon)
    if model is not None:
        model.about["healthy_rows"] = train.height
    return model


def isolation_forest(data: Matrix, seed: int) -> IsolationForest:
    """scikit-learn's forest on rows [n, k] without missing values; equal input, equal trees."""
    from sklearn.ensemble import IsolationForest

    model = IsolationForest(
        n_estimators=TREES, max_samples=min(SAMPLES, len(data)), random_state=seed, n_jobs=1
    )
    return model.fit(data)


def export(fitted: IsolationForest, inputs: Ints, medians: npt.NDArray[np.float32]) -> Forest:
    """The trees as arrays. Not calibrated: every score means one half."""
    roots, parts, first, deepest = [], [], 0, 0
    for estimator in fitted.estimators_:
        tree = estimator.tree_
        leaf = tree.children_left < 0
        own = np.arange(tree.node_count)
        depth = _depths(tree.children_left, tree.children_right)
        parts.append(
            (
                np.where(leaf, 0, tree.feature),
                np.where(leaf, np.inf, tree.threshold),
                np.where(leaf, own, tree.children_left) + first,
                np.where(leaf, own, tree.children_right) + first,
                np.where(leaf, depth + _average_path(tree.n_node_samples), 0.0),
            )
        )
        roots.append(first)
        first, deepest = first + tree.node_count, max(deepest, int(depth.max()))
    feature, threshold, left, right, path = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    return Forest(
        inputs=inputs,
        medians=medians,
        roots=np.array(roots, np.int32),
        feature=feature.astype(np.int32),
        threshold=threshold,
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        path=path,
        depth=np.array(deepest, np.int32),
        average_path=_average_path(np.array(fitted.max_samples_)),
        usual=np.array(1.0),
        knots_score=np.array([0.0, 1.0]),
        knots_probability=np.array([0.5, 0.5]),
    )


def _calibrated(
    forest: Forest,
    later: pl.DataFrame,
    machine_class: MachineClass,
    horizon: int,
) -> AnomalyModel | None:
    """The forest with knots and its usual range from rows it was not fitted on."""
    found = anomaly.score(forest, matrix(later, machine_class))
    judged = np.isfinite(found)
    later, found = later.filter(pl.Series(judged)), found[judged]
    sound = found[healthy(later, horizon, machine_class)]
    if len(sound) < FEWEST_HEALTHY:
        return None
    y = outcomes(later)
    failed = pl.DataFrame({"m": later["machine_id"], "t": failure_times(later, machine_class)})
    failures = failed.filter(pl.col("t") >= 0).unique().height
    # Calibration is written for log-odds; standardised scores have about their size.
    centre, spread = float(np.median(sound)), float(sound.std()) or 1.0
    curve = calibration.fit((found - centre) / spread, y.astype(float), failures)
    about = {
        "trees": len(forest.roots),
        "samples": SAMPLES,
        "inputs": [machine_class.vector[i] for i in forest.inputs],
        "missing": "healthy median",
        "calibration": {"method": curve.method, "rows": len(y), "failures": failures},
        "unseen_pr_auc": metrics.average_precision(y, found),
        "unseen_roc_auc": metrics.roc_auc(y, found),
    }
    calibrated = replace(
        forest,
        usual=np.array(np.quantile(sound, 0.95)),
        knots_score=centre + spread * curve.x,
        knots_probability=curve.y,
    )
    return AnomalyModel(calibrated, about)


def _depths(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Floats:
    """Depth [m] of every node of one tree; a parent has a smaller number than its children."""
    depth = np.zeros(len(left))
    for node in np.flatnonzero(left >= 0):
        depth[left[node]] = depth[right[node]] = depth[node] + 1
    return depth


def _average_path(samples: npt.NDArray[Any]) -> Floats:
    """c(n) of Liu et al.: mean path length of an unsuccessful search among n samples."""
    n = np.asarray(samples, float)
    many = np.maximum(n, 3)  # the formula holds from 3 on
    mean = 2 * (np.log(many - 1) + EULER_GAMMA) - 2 * (many - 1) / many
    return np.where(n <= 1, 0.0, np.where(n <= 2, 1.0, mean))  # noqa: PLR2004
