"""A small fleet with known truth: two failure modes, each announced by its own channel."""

import numpy as np
import polars as pl
import pytest

from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_HOUR
from aegisops.modelling import anomaly, bundle, remaining_life
from aegisops.modelling.fitting import Recipe
from aegisops.modelling.labels import label_rows
from aegisops.modelling.rows import labelled
from aegisops.modelling.split import folds
from aegisops.modelling.training import fit

H = US_PER_HOUR
HOURS = 400
EVENTS_SCHEMA = {"machine_id": pl.String, "ts": pl.Int64, "type": pl.String, "code": pl.String}


def pump(**changes) -> MachineClass:
    declared = {
        "name": "pump",
        "title": "Pump",
        "horizon": "12h",
        "step": "1h",
        "stale_after": "2h",
        "channels": {
            "vibration": {"unit": "mm/s", "period": "1h", "limits": [0, 100]},
            "temperature": {"unit": "°C", "period": "1h", "limits": [-40, 200]},
        },
        "events": {
            "leak": {"type": "error", "code": "E7"},
            "maintenance": {"type": "maintenance"},
        },
        "attributes": {"make": {"values": ["north", "south"]}},
        "windows": {"1h": "1h", "6h": "1h"},
        "statistics": {
            "vibration": ["rms_1h", "kurtosis_6h"],
            "temperature": ["mean_6h"],
            "leak": ["count_6h"],
            "maintenance": ["time_since"],
        },
        "failure_modes": {
            "bearing": {"title": "Bearing wear", "action": "Replace the bearing."},
            "seal": {"title": "Seal leak", "action": "Replace the seal.", "procedure": "P-2"},
            "never": {"title": "Never seen", "action": "Nothing."},
        },
        "thresholds": [
            {"feature": "vibration_rms_1h", "warning": 6, "alarm": 9, "failure_mode": "bearing"},
            {"feature": "temperature_mean_6h", "warning": 62, "alarm": 75, "failure_mode": "seal"},
        ],
    }
    return MachineClass.model_validate(declared | changes)


def fleet(machines: int = 24, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Feature rows and events; every machine fails twice, with 18 h of rising symptoms."""
    random = np.random.default_rng(seed)
    features, events = [], []
    for m in range(machines):
        machine_id = f"p{m:02d}"
        failures = (int(random.integers(60, 180)), int(random.integers(220, 360)))
        modes = [("bearing", "seal")[int(random.integers(2))] for _ in failures]
        for t, mode in zip(failures, modes, strict=True):
            events.append((machine_id, t * H, "failure", mode))
            events.append((machine_id, t * H, "maintenance", mode))
        for t in range(HOURS):
            coming = zip(failures, modes, strict=True)
            ahead = next(((f - t, mode) for f, mode in coming if f > t), (999, ""))
            wear = max(0.0, 1 - ahead[0] / 18)
            since = min((t - f for f in failures if f <= t), default=t + 100)
            vector = [
                3 + random.normal(0, 0.6) + 6 * wear * (ahead[1] == "bearing"),
                random.normal(0, 0.5) + 3 * wear * (ahead[1] == "bearing"),
                50 + random.normal(0, 3) + 20 * wear * (ahead[1] == "seal"),
                float(random.random() < 0.01 + 0.3 * (wear > 0.5)),
                float(since),
                float(m % 2),
            ]
            features.append((machine_id, t * H, vector))
    return (
        pl.DataFrame(
            features,
            schema={"machine_id": pl.String, "ts": pl.Int64, "vector": pl.List(pl.Float64)},
            orient="row",
        ),
        pl.DataFrame(events, schema=EVENTS_SCHEMA, orient="row"),
    )


QUICK = Recipe(rounds=15, parallel_trees=4, mode_rounds=15)


@pytest.fixture(scope="session")
def pump_class():
    return pump()


@pytest.fixture(scope="session")
def history():
    return fleet()


@pytest.fixture(scope="session")
def training_rows(pump_class, history):
    features, events = history
    rows = labelled(features, label_rows(features, events, pump_class))
    return folds(rows, pump_class, pump_class.horizon, seed=1)


@pytest.fixture(scope="session")
def model(pump_class, training_rows):
    return fit(training_rows, pump_class, recipe=QUICK)


@pytest.fixture(scope="session")
def anomaly_model(pump_class, training_rows):
    return anomaly.fit(training_rows, pump_class)


@pytest.fixture(scope="session")
def bundle_dir(model, tmp_path_factory):
    return write_pump_bundle(model, tmp_path_factory.mktemp("bundles") / "pump" / "1" / "bundle")


@pytest.fixture(scope="session")
def forest_bundle_dir(model, anomaly_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "pump" / "2" / "bundle"
    return write_pump_bundle(model, folder, anomaly_model=anomaly_model)


@pytest.fixture(scope="session")
def life_model(pump_class, training_rows):
    return remaining_life.fit(training_rows, pump_class)


@pytest.fixture(scope="session")
def life_bundle_dir(model, life_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "pump" / "3" / "bundle"
    return write_pump_bundle(model, folder, life_model=life_model)


def write_pump_bundle(model, folder, **more):
    bundle.write(
        model,
        folder,
        version="1",
        trained_at="2026-01-01T00:00:00Z",
        data_versions={"gold/features": 3},
        metrics={"pr_auc": 0.9, "undefined": float("nan")},
        **more,
    )
    return folder
