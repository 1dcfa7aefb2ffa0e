"""How unlike healthy operation a vector is: an Isolation Forest as plain arrays. Only numpy.

Liu, Ting and Zhou 2008: a point that random splits separate early is unlike the rest. The score is
2^(-mean path / c(samples)), in (0, 1); higher is more unusual. `modelling.anomaly` fits the forest
with scikit-learn on healthy rows; the numbers here equal its `score_samples` (negated).

The forest lies in the signed bundle as an .npz of plain arrays, read without pickle.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aegisops.errors import BadInput, UntrustedBundle

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

MOST_MISSING = 0.5
"""A missing input is taken as its healthy median, so it never looks unusual. With a larger share
missing than this, the score would tell of the medians and not of the machine."""
_ROWS = 1_024
"""Rows walked together; 100 trees then need under 1 MB an array."""


@dataclass(frozen=True)
class Forest:
    """t trees of m nodes together, over k inputs; every field is an array as it is stored.

    A node's left child is taken when input `feature` ≤ `threshold`. A leaf is its own child, so a
    walk of `depth` steps ends in a leaf wherever it is.
    """

    inputs: Ints
    """[k] positions of the forest's inputs in the class's vector."""
    medians: npt.NDArray[np.float32]
    """[k] healthy medians, for missing values."""
    roots: Ints
    """[t] nodes."""
    feature: Ints
    """[m] positions in `inputs`."""
    threshold: Floats
    """[m] in the input's unit; +inf at leaves."""
    left: Ints
    right: Ints
    path: Floats
    """[m] at leaves the path length, with what its samples would still need; 0 elsewhere."""
    depth: Ints
    """Scalar: longest walk."""
    average_path: Floats
    """Scalar c(samples): mean path length of a random tree of as many samples."""
    usual: Floats
    """Scalar: held-out healthy rows score below it 95 times of 100."""
    knots_score: Floats
    """[q] calibration: scores, ascending."""
    knots_probability: Floats
    """[q] share of held-out rows with this score that failed within the horizon."""


def score(forest: Forest, vectors: npt.ArrayLike) -> Floats:
    """Scores [n] in (0, 1) of vectors [n, d] in the class's vector order; NaN = missing.

    NaN for a vector with a larger share of the forest's inputs missing than `MOST_MISSING`. Raises
    `BadInput` when the vectors are too short for the forest.
    """
    data = np.asarray(vectors, dtype=np.float32)
    if data.ndim != 2 or data.shape[1] <= forest.inputs.max():  # noqa: PLR2004
        raise BadInput("vector_shape", f"vectors of shape {data.shape} do not fit the forest")
    data = data[:, forest.inputs]
    missing = ~np.isfinite(data)
    data = np.where(missing, forest.medians, data)
    paths = [_paths(forest, data[i : i + _ROWS]) for i in range(0, len(data), _ROWS)]
    mean = np.concatenate([np.empty(0), *paths]) / len(forest.roots)
    scores = np.exp2(-mean / forest.average_path)
    return np.where(missing.mean(axis=1) > MOST_MISSING, np.nan, scores)


def calibrate(forest: Forest, scores: Floats) -> Floats:
    """Probabilities [n] of scores: linear between the knots, constant beyond; NaN stays NaN."""
    return np.interp(scores, forest.knots_score, forest.knots_probability)


def save(forest: Forest, path: Path) -> None:
    """Write the arrays; equal forests give equal bytes (zip members carry a fixed date)."""
    arrays: dict[str, Any] = {f.name: getattr(forest, f.name) for f in fields(Forest)}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path, width: int) -> Forest:
    """Read a forest for vectors of `width` inputs; `UntrustedBundle` when it is not one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            forest = Forest(**{f.name: stored[f.name] for f in fields(Forest)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UntrustedBundle(
            f"{path}: not a readable forest ({error}); train the model again"
        ) from error
    if not _fits_together(forest, width):
        raise UntrustedBundle(f"{path}: the forest's arrays do not fit together; train again")
    return forest


def _paths(forest: Forest, rows: npt.NDArray[np.float32]) -> Floats:
    """Sum over trees of the path length [n] of rows [n, k] without missing values."""
    count, width = rows.shape
    values, first = rows.ravel(), (np.arange(count) * width)[:, None]
    node = np.broadcast_to(forest.roots, (count, len(forest.roots)))
    for _ in range(int(forest.depth)):
        goes_left = values[first + forest.feature[node]] <= forest.threshold[node]
        node = np.where(goes_left, forest.left[node], forest.right[node])
    total: Floats = forest.path[node].sum(axis=1)
    return total


def _fits_together(forest: Forest, width: int) -> bool:
    """Whether every index points to something, so that scoring cannot leave the arrays."""
    nodes = len(forest.path)
    per_node = (forest.feature, forest.threshold, forest.left, forest.right)
    scalars = (forest.depth, forest.average_path, forest.usual)
    return (
        all(len(array) == nodes for array in per_node)
        and len(forest.medians) == len(forest.inputs)
        and len(forest.knots_score) == len(forest.knots_probability)
        and all(array.shape == () for array in scalars)
        and float(forest.average_path) > 0
        and _within(forest.inputs, width)
        and _within(forest.feature, len(forest.inputs))
        and all(_within(array, nodes) for array in (forest.roots, forest.left, forest.right))
    )


def _within(index: Ints, count: int) -> bool:
    if not index.size or not np.issubdtype(index.dtype, np.integer):
        return False
    return int(index.min()) >= 0 and int(index.max()) < count
