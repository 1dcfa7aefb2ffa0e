"""The API as people run it, pinned to its own cores, with everything it needs on the others.

Real Redis, schema registry and Kafka protocol (the quick start's broker), a signed bundle of the
product's largest size in production and another as the shadow. Feature vectors are written as the
feature worker writes them and kept fresh. No measurement here.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xgboost as xgb

from aegisops import anomaly, signing
from aegisops.cli.stack import Stack
from aegisops.machines import MachineClass, load_class
from aegisops.modelling.anomaly import export, isolation_forest
from aegisops.names import model_name
from aegisops.online_store import FeatureVector, Machine, OnlineStore, connect
from aegisops.scoring import bundle_digest
from aegisops.settings import Settings
from aegisops.tokens import mint

CLASS = load_class("azure_pdm")
"""27 inputs and four failure modes: the widest class that is shipped."""
TREES, DEPTH = 200, 4
SERVER_CORE = 0
FRESH_SECONDS = 60.0


@dataclass(frozen=True)
class Api:
    """A running API to send load to."""

    settings: Settings
    stack: Stack
    machines: list[str]
    pid: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.settings.api.port}"

    @property
    def token(self) -> str:
        """An operator's token that outlives any benchmark."""
        return mint(self.settings, "bench", "operator", lifetime_seconds=86_400)

    def rss_mb(self) -> float:
        """Resident memory in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def descriptors(self) -> int:
        """Open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def other_cores() -> set[int]:
    """Every core but the server's; the same one on a box with one core."""
    return set(range(os.cpu_count() or 1)) - {SERVER_CORE} or {SERVER_CORE}


@contextlib.contextmanager
def serving(
    folder: Path,
    *,
    machines: int = 100,
    cores: set[int] | None = None,
    shadow: bool = True,
    program: Sequence[str] = ("serving",),
) -> Iterator[Api]:
    """An API with features for `machines` machines.

    `cores` it may use (default: one); `program`: module that is the API, with its arguments.
    """
    os.sched_setaffinity(0, other_cores())  # what starts from here on stays off the server's core
    settings = Settings(data_dir=folder)
    with Stack(settings) as stack:
        stack.start_services()
        settings = stack.settings
        model(settings, "1", "production", seed=0)
        if shadow:
            model(settings, "2", "shadow", seed=1)
        names = [f"machine-{i:05}" for i in range(machines)]
        store = OnlineStore(connect(settings.redis))
        store.register([Machine(name, CLASS.name, "plant", "line", {}) for name in names])
        vectors = rows(machines, seed=2)
        over = threading.Event()

        def refresh() -> None:
            while True:
                ts = round(time.time() * 1e6)
                store.write_features(
                    [
                        FeatureVector(name, CLASS.feature_set, ts, vector, 1.0)
                        for name, vector in zip(names, vectors, strict=True)
                    ],
                    {CLASS.feature_set: CLASS.vector},
                )
                if over.wait(FRESH_SECONDS):
                    return

        fresh = threading.Thread(target=refresh)
        fresh.start()
        try:
            os.sched_setaffinity(0, cores or {SERVER_CORE})  # children inherit it
            stack.start_api(program)
            os.sched_setaffinity(0, other_cores())
            stack.wait_for_api()
            yield Api(settings, stack, names, stack.pids()["api"])
        finally:
            over.set()
            fresh.join()


def rows(count: int, seed: int, machine_class: MachineClass = CLASS) -> np.ndarray:
    """Vectors [count, d]; categories hold category numbers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, len(machine_class.vector)))
    for i, name in enumerate(machine_class.vector):
        if name in machine_class.attributes:
            values = machine_class.attributes[name].values
            x[:, i] = rng.integers(0, len(values), count) if values else rng.uniform(0, 20, count)
    return x


def model(settings: Settings, version: str, alias: str, seed: int) -> Path:
    """A signed bundle of TREES × DEPTH with a mode booster and a forest, under `alias`."""
    folder = settings.bundles_dir / CLASS.name / version / "bundle"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    x = rows(4_000, seed).astype(np.float32)
    y = (x[:, :4].sum(axis=1) + rng.normal(size=len(x)) > 3).astype(float)
    modes = sorted(CLASS.failure_modes)
    which = np.stack([y * (rng.integers(0, len(modes), len(x)) == k) for k in range(len(modes))], 1)
    names = list(CLASS.vector)
    parameters = {"objective": "binary:logistic", "max_depth": DEPTH, "nthread": 1, "seed": seed}
    parameters |= {"learning_rate": 0.05, "colsample_bynode": 0.3}
    xgb.train(parameters, xgb.DMatrix(x, y, feature_names=names), TREES).save_model(
        folder / "failure.ubj"
    )
    xgb.train(parameters, xgb.DMatrix(x, which, feature_names=names), 25).save_model(
        folder / "modes.ubj"
    )
    inputs = np.array([i for i, s in enumerate(CLASS.features) if s.window], np.int32)
    medians = np.zeros(len(inputs), np.float32)
    anomaly.save(
        export(isolation_forest(x[:, inputs], seed=0), inputs, medians), folder / "anomaly.npz"
    )
    manifest = {
        "format": 1,
        "name": model_name(CLASS.name),
        "version": version,
        "machine_class": CLASS.model_dump(mode="json"),
        "feature_set": CLASS.feature_set,
        "vector": names,
        "horizon_us": CLASS.horizon,
        "thresholds": {"elevated": 0.1, "high": 0.5},
        "calibration": {"x": [-6.0, 6.0], "y": [0.01, 0.99]},
        "modes": modes,
        "normals": {n: {"low": -1.6, "median": 0.0, "high": 1.6} for n in names},
        "anomaly": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    signing.sign(folder, signing.ensure_keys(settings.keys_dir).private)
    pointer = {"version": version, "digest": bundle_digest(folder)}
    (folder.parents[1] / f"{alias}.json").write_text(json.dumps(pointer))
    return folder
