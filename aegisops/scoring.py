"""A model bundle and its scores: what serving runs per request. Only numpy and xgboost.

A bundle is a folder with manifest.json, failure.ubj (the booster of any failure), if there are
failure modes modes.ubj (one output per mode), and, unless healthy rows were too few, anomaly.npz
(the forest that stands in for the boosters), and, unless failures were too few, life.ubj (the
booster of remaining life). Whether the folder may be trusted is `signing`'s question, not asked
here.

The calibrated probability is a function of the failure booster's margin alone, and the
contributions are that booster's exact TreeSHAP values (Lundberg et al. 2018), so the explanation
is of the number that is served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from aegisops import anomaly, remaining_life
from aegisops.errors import BadInput, UntrustedBundle
from aegisops.machines import MachineClass
from aegisops.remaining_life import LIFE_BOOSTER

Floats = npt.NDArray[np.float64]

FORMAT = 1
MANIFEST, FAILURE_BOOSTER, MODES_BOOSTER = "manifest.json", "failure.ubj", "modes.ubj"
ANOMALY_FOREST = "anomaly.npz"


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle. `failure` and `modes` are safe to call from several threads."""

    directory: Path
    digest: str
    """sha256 of the content, see `bundle_digest`."""
    manifest: Mapping[str, Any]
    failure: xgb.Booster
    mode_booster: xgb.Booster | None
    forest: anomaly.Forest | None = None
    life: remaining_life.Life | None = None

    @cached_property
    def machine_class(self) -> MachineClass:
        """The machine class the model was trained for, as it was then."""
        return MachineClass.model_validate(self.manifest["machine_class"])

    @cached_property
    def vector(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return tuple(self.manifest["vector"])

    @cached_property
    def modes(self) -> tuple[str, ...]:
        """Failure modes in the order of `Scores.mode_probability`'s columns."""
        return tuple(self.manifest["modes"]) if self.mode_booster is not None else ()

    @property
    def name(self) -> str:
        """Registered name of the model."""
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        """Version of the bundle within its machine class."""
        return str(self.manifest["version"])

    @property
    def feature_set(self) -> str:
        """Version of the vector's meaning; a vector of another set must not be scored."""
        return str(self.manifest["feature_set"])

    @property
    def horizon_us(self) -> int:
        """The probability is of a failure within this time, in µs."""
        return int(self.manifest["horizon_us"])

    @cached_property
    def thresholds(self) -> Mapping[str, float]:
        """Probabilities from which the risk is `elevated` and `high`."""
        return dict(self.manifest["thresholds"])

    @cached_property
    def normals(self) -> Mapping[str, Mapping[str, float]]:
        """Per feature the 5, 50 and 95 % points of healthy rows: `low`, `median`, `high`."""
        return dict(self.manifest["normals"])

    @cached_property
    def knots(self) -> tuple[Floats, Floats]:
        """Calibration: margins (log-odds) and the probabilities they mean, both ascending."""
        calibration = self.manifest["calibration"]
        return np.asarray(calibration["x"], float), np.asarray(calibration["y"], float)

    def risk(self, probability: float) -> str:
        """`normal`, `elevated` or `high`."""
        limits = self.thresholds
        if probability >= limits["high"]:
            return "high"
        return "elevated" if probability >= limits["elevated"] else "normal"


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of n vectors of d features, k failure modes."""

    probability: Floats
    """[n] calibrated probability of a failure within the horizon."""
    contributions: Floats
    """[n, d] exact SHAP values in log-odds; with `bias` they sum to `margin`."""
    bias: Floats
    """[n] log-odds of the average row."""
    mode_probability: Floats
    """[n, k] probability that this mode fails within the horizon; uncalibrated, for ranking."""
    margin: Floats
    """[n] log-odds before calibration."""
    remaining_life: remaining_life.Estimate | None
    """[n] hours left; None when the bundle has no model of it."""


def bundle_digest(directory: Path) -> str:
    """sha256 over the sorted (relative path, sha256 of the bytes) of every file in the folder."""
    whole = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(directory).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def load_bundle(directory: Path | str, nthread: int = 1) -> Bundle:
    """Read a bundle folder; `nthread` threads score a batch (1 is fastest for single rows).

    Raises `UntrustedBundle` when the folder is not a bundle this code understands.
    """
    directory = Path(directory)
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        failure = _booster(directory / FAILURE_BOOSTER, nthread)
        has_modes = (directory / MODES_BOOSTER).exists()
        modes = _booster(directory / MODES_BOOSTER, nthread) if has_modes else None
        # Bundles from before the forest and the remaining life do not declare them.
        has_life = "remaining_life" in manifest
        lives = _booster(directory / LIFE_BOOSTER, nthread) if has_life else None
    except (OSError, ValueError, xgb.core.XGBoostError) as error:
        raise UntrustedBundle(
            f"{directory}: not a readable model bundle ({error}); export the model again"
        ) from error
    if manifest.get("format") != FORMAT:
        raise UntrustedBundle(
            f"{directory}: bundle format {manifest.get('format')!r}, this version reads {FORMAT}; "
            "export the model again or upgrade"
        )
    # xgboost does not check names of plain arrays: a manifest in another order would score
    # silently wrong numbers.
    for booster in filter(None, (failure, modes, lives)):
        if booster.feature_names != manifest["vector"]:
            raise UntrustedBundle(f"{directory}: booster and manifest disagree on the inputs")
    forest = life = None
    if "anomaly" in manifest:
        forest = anomaly.load(directory / ANOMALY_FOREST, len(manifest["vector"]))
    if lives is not None:
        life = remaining_life.load(lives, manifest["remaining_life"])
    return Bundle(directory, bundle_digest(directory), manifest, failure, modes, forest, life)


def _booster(path: Path, nthread: int) -> xgb.Booster:
    booster = xgb.Booster()
    booster.load_model(bytearray(path.read_bytes()))
    booster.set_param({"nthread": nthread})
    return booster


def score(bundle: Bundle, vectors: npt.ArrayLike) -> Scores:
    """Score vectors [n, d] in the bundle's vector order; NaN = missing.

    Raises `BadInput` when the width is not the bundle's.
    """
    data = np.ascontiguousarray(vectors, dtype=np.float32)
    if data.ndim != 2 or data.shape[1] != len(bundle.vector):  # noqa: PLR2004
        raise BadInput(
            "vector_shape",
            f"vectors of shape {data.shape}; {bundle.feature_set} has {len(bundle.vector)} inputs",
        )
    # One matrix for all calls: making one costs as much as the trees of a single row. The
    # names were checked at load; checking them per request costs more than the trees.
    matrix = xgb.DMatrix(data, nthread=1)
    raw = bundle.failure.predict(matrix, output_margin=True, validate_features=False)
    margin = raw.astype(np.float64)
    parts = bundle.failure.predict(matrix, pred_contribs=True, validate_features=False)
    parts = parts.astype(np.float64)
    return Scores(
        probability=calibrate(bundle, margin),
        contributions=parts[:, :-1],
        bias=parts[:, -1],
        mode_probability=_mode_probability(bundle, matrix),
        margin=margin,
        remaining_life=_remaining_life(bundle, matrix),
    )


def probabilities(bundle: Bundle, vectors: npt.ArrayLike) -> Floats:
    """Only the calibrated probabilities [n]; the same numbers as `score`, without explanations."""
    return calibrate(bundle, margins(bundle.failure, np.asarray(vectors, dtype=np.float32)))


def margins(booster: xgb.Booster, data: npt.NDArray[np.float32]) -> Floats:
    """Log-odds [n] of float32 vectors [n, d]."""
    raw = booster.inplace_predict(data, predict_type="margin", validate_features=False)
    return np.asarray(raw, dtype=np.float64).reshape(len(data))


def calibrate(bundle: Bundle, margin: Floats) -> Floats:
    """Probabilities of margins: linear between the bundle's knots, constant beyond them."""
    return np.interp(margin, *bundle.knots)


def _mode_probability(bundle: Bundle, matrix: xgb.DMatrix) -> Floats:
    rows = matrix.num_row()
    if bundle.mode_booster is None:
        return np.zeros((rows, 0))
    raw = bundle.mode_booster.predict(matrix, validate_features=False)
    return np.asarray(raw, dtype=np.float64).reshape(rows, len(bundle.modes))


def _remaining_life(bundle: Bundle, matrix: xgb.DMatrix) -> remaining_life.Estimate | None:
    if bundle.life is None:
        return None
    return remaining_life.estimate(bundle.life, remaining_life.scores(bundle.life, matrix))
