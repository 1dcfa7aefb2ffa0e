"""Writes a fitted model as a bundle folder, its only I/O; equal models give equal bytes.

No wall clock and no machine name enters the bytes: `trained_at` and the versions are arguments.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aegisops import anomaly, remaining_life
from aegisops.errors import Permanent
from aegisops.modelling.anomaly import AnomalyModel
from aegisops.modelling.remaining_life import LifeModel
from aegisops.modelling.training import Model
from aegisops.names import model_name
from aegisops.remaining_life import LIFE_BOOSTER
from aegisops.scoring import (
    ANOMALY_FOREST,
    FAILURE_BOOSTER,
    FORMAT,
    MANIFEST,
    MODES_BOOSTER,
    bundle_digest,
)


def write(
    model: Model,
    directory: Path,
    *,
    version: str,
    trained_at: str,
    data_versions: Mapping[str, int] | None = None,
    metrics: Mapping[str, Any] | None = None,
    anomaly_model: AnomalyModel | None = None,
    life_model: LifeModel | None = None,
) -> str:
    """Write the bundle as `directory` in one rename; returns its digest.

    Args:
        model: must use the class's whole vector.
        directory: `<bundles>/<class>/<version>/bundle`; a version is never overwritten.
        version: version within the class.
        trained_at: ISO-8601 UTC time.
        data_versions: Delta table → version the rows came from.
        metrics: figures to carry along; NaN becomes null.
        anomaly_model: the forest that answers when the booster cannot.
        life_model: the model of the remaining life.

    Raises `Permanent` when `directory` already holds another bundle.
    """
    if model.inputs != model.machine_class.vector:
        raise Permanent("a bundle needs a model of the class's whole vector; fit without `inputs`")
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=directory.parent))
    try:
        content = manifest(
            model,
            version=version,
            trained_at=trained_at,
            data_versions=data_versions or {},
            metrics=metrics or {},
        )
        if anomaly_model is not None:
            content["anomaly"] = anomaly_model.about
            anomaly.save(anomaly_model.forest, draft / ANOMALY_FOREST)
        if life_model is not None:
            life = life_model.life
            content["remaining_life"] = remaining_life.about(life) | life_model.about
            (draft / LIFE_BOOSTER).write_bytes(life.booster.save_raw("ubj"))
        # Keys keep their order: the order of a class's channels is the order of its vector.
        text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
        (draft / MANIFEST).write_text(text + "\n", encoding="utf-8")
        (draft / FAILURE_BOOSTER).write_bytes(model.failure.save_raw("ubj"))
        if model.mode_booster is not None:
            (draft / MODES_BOOSTER).write_bytes(model.mode_booster.save_raw("ubj"))
        draft.chmod(0o755)
        digest = bundle_digest(draft)
        if directory.exists():
            if bundle_digest(directory) != digest:
                raise Permanent(f"{directory}: holds another bundle; versions are never rewritten")
            return digest
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return digest


def manifest(
    model: Model,
    *,
    version: str,
    trained_at: str,
    data_versions: Mapping[str, int],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """What a bundle says about itself."""
    machine_class = model.machine_class
    return {
        "format": FORMAT,
        "name": model_name(machine_class.name),
        "version": version,
        "machine_class": machine_class.model_dump(mode="json"),
        "feature_set": machine_class.feature_set,
        "vector": list(model.inputs),
        "horizon_us": model.horizon,
        "thresholds": model.thresholds,
        "calibration": {
            "x": model.calibration.x.tolist(),
            "y": model.calibration.y.tolist(),
            "of": "log_odds",
            "method": model.calibration.method,
            "rows": model.calibrated_on,
        },
        "any_failure": "one booster; its margin, calibrated, is the probability",
        "modes": list(model.modes),
        "mode_thresholds": model.mode_thresholds,
        "normals": model.normals,
        "recipe": {**asdict(model.recipe), "chosen_rounds": model.rounds},
        "training": model.training,
        "trained_at": trained_at,
        "data_versions": dict(data_versions),
        "metrics": dict(metrics),
    }


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
