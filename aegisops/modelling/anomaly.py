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
from aegisops.modelling.calibration import Calibration
from aegisops.modelling.rows import Floats, Matrix, failure_times, healthy, matrix, outcomes
from aegisops.modelling.split import CALIBRATE, TRAIN, machine_groups
from aegisops.modelling.training import CROSS_FIT_BELOW, CROSS_FIT_GROUPS

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

Flags = npt.NDArray[np.bool_]

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
    """Fit on healthy rows of the folds `train` and `calibrate`; other folds are not looked at.

    A score's probability and usual range come from rows no tree has seen, as the failure model's
    do: the calibrate fold scored by trees of the train fold; or, when that holds few failures, rows
    of both folds scored by trees of other machines. (A fold with four failures in two days said
    28 % where 7 % came true.) Then the forest is fitted again on both folds. None when the class
    has no windowed feature that ever reported, or too few healthy rows.
    """
    rows = rows.filter(pl.col("fold").is_in([TRAIN, CALIBRATE])).sort("machine_id", "ts")
    horizon = machine_class.horizon if horizon is None else horizon
    sound = healthy(rows, horizon, machine_class)
    data = matrix(rows, machine_class)
    # A channel that never reported has no median and tells nothing.
    inputs = [
        i
        for i, spec in enumerate(machine_class.features)
        if spec.window is not None and np.isfinite(data[sound, i]).any()
    ]
    if not inputs or sound.sum() < FEWEST_HEALTHY:
        return None
    held_out, how = _held_out(rows, machine_class, seed)
    unseen = _unseen_scores(data, sound, held_out, inputs, seed)
    judged = np.isfinite(unseen)
    if (judged & sound).sum() < FEWEST_HEALTHY:
        return None
    scores, y = unseen[judged], outcomes(rows)[judged]
    failures = _failures(rows.filter(pl.Series(judged)), machine_class).height
    usual, curve = _calibration(scores, y, sound[judged], failures)
    forest = replace(
        _fitted(data[sound], inputs, seed),
        usual=np.array(usual),
        knots_score=curve.x,
        knots_probability=curve.y,
    )
    about = {
        "trees": TREES,
        "samples": SAMPLES,
        "inputs": [machine_class.vector[i] for i in inputs],
        "missing": "healthy median",
        "healthy_rows": int(sound.sum()),
        "calibration": {"method": curve.method, "rows": how, "failures": failures},
        "unseen_pr_auc": metrics.average_precision(y, scores),
        "unseen_roc_auc": metrics.roc_auc(y, scores),
    }
    return AnomalyModel(forest, about)


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


def _fitted(sound: Matrix, inputs: list[int], seed: int) -> Forest:
    """An uncalibrated forest of healthy rows [n, d]."""
    raw = sound[:, inputs]
    raw = np.where(np.isfinite(raw), raw, np.float32(np.nan))
    medians = np.nan_to_num(_medians(raw))
    filled = np.where(np.isnan(raw), medians, raw)
    return export(isolation_forest(filled, seed), np.array(inputs, np.int32), medians)


def _medians(raw: Matrix) -> Matrix:
    """Medians [k] of the values that are there; NaN for a column without any."""
    known = np.isfinite(raw)
    columns = [raw[known[:, k], k] for k in range(raw.shape[1])]
    return np.array([np.median(c) if c.size else np.nan for c in columns], np.float32)


def _held_out(
    rows: pl.DataFrame, machine_class: MachineClass, seed: int
) -> tuple[list[Flags], str]:
    """Parts [n] of the rows that are scored by trees of all other rows, and what they are."""
    late = (rows["fold"] == CALIBRATE).to_numpy()
    few = _failures(rows.filter(pl.Series(late)), machine_class).height < CROSS_FIT_BELOW
    machines = _failures(rows, machine_class)["machine_id"].n_unique()
    if few and machines >= CROSS_FIT_GROUPS:
        groups = machine_groups(rows["machine_id"], CROSS_FIT_GROUPS, seed)
        return [groups == group for group in range(CROSS_FIT_GROUPS)], "cross_fitted"
    return [late], "calibrate_fold"


def _unseen_scores(
    data: Matrix, sound: Flags, held_out: list[Flags], inputs: list[int], seed: int
) -> Floats:
    """Scores [n] by forests that saw nothing of the row's part; NaN in no part or without one."""
    scores = np.full(len(data), np.nan)
    for held in held_out:
        others = data[sound & ~held]
        if held.any() and len(others) >= FEWEST_HEALTHY:
            scores[held] = anomaly.score(_fitted(others, inputs, seed), data[held])
    return scores


def _failures(rows: pl.DataFrame, machine_class: MachineClass) -> pl.DataFrame:
    """Distinct failures (machine_id, t in µs) that rows look ahead to."""
    times = pl.Series("t", failure_times(rows, machine_class))
    return pl.DataFrame([rows["machine_id"], times]).filter(pl.col("t") >= 0).unique()


def _calibration(
    scores: Floats, y: npt.NDArray[np.int8], sound: Flags, failures: int
) -> tuple[float, Calibration]:
    """The score below which 95 of 100 healthy rows stay, and what each score means."""
    # Calibration is written for log-odds; standardised scores have about their size.
    centre, spread = float(np.median(scores[sound])), float(scores[sound].std()) or 1.0
    curve = calibration.fit((scores - centre) / spread, y.astype(float), failures)
    usual = float(np.quantile(scores[sound], 0.95))
    return usual, replace(curve, x=centre + spread * curve.x)


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
