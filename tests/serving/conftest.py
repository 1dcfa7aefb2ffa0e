"""A whole API on real parts: redis-server, a signed bundle, an outbox; Kafka is a recorder."""

from __future__ import annotations

import asyncio
import atexit
import io
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import httpx
import numpy as np
import polars as pl
import pytest
import xgboost as xgb

from aegisops import anomaly, signing
from aegisops.embedded.redis_server import RedisServer
from aegisops.lake import Lake
from aegisops.machines import MachineClass, load_class
from aegisops.modelling.anomaly import export, isolation_forest
from aegisops.names import PREDICTIONS_TOPIC, features_key, machine_key
from aegisops.online_store import FeatureVector, Machine, OnlineStore, connect
from aegisops.schemas import avro
from aegisops.schemas.tables import PREDICTIONS
from aegisops.scoring import bundle_digest
from aegisops.settings import ApiSettings, RedisSettings, Settings
from aegisops.tokens import mint
from serving.app import create_app
from serving.outbox import Outbox
from serving.service import Service, build

SPINDLE = load_class("cnc_spindle")
WORN, SOUND = 9.0, 2.0


@dataclass
class Recorder:
    """A producer that delivers at once, or not at all."""

    sent: list[tuple[str, str, bytes]] = field(default_factory=list)
    failure: Exception | None = None

    def prepare(self) -> None:
        pass

    def publish(
        self, topic: str, key: str, value: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        if self.failure is None:
            self.sent.append((topic, key, value))
        done(self.failure)

    def poll(self) -> None:
        pass

    def close(self) -> None:
        pass


def write_bundle(
    settings: Settings,
    machine_class: MachineClass = SPINDLE,
    version: str = "1",
    trees: int = 20,
    *,
    forest: bool = False,
    life: bool = False,
) -> Path:
    """A signed bundle whose risk follows vibration RMS; not yet promoted."""
    folder = settings.bundles_dir / machine_class.name / version / "bundle"
    folder.parent.mkdir(parents=True)
    template = _TEMPLATES.get((machine_class.name, version, trees))
    if template is None:
        template = _TEMPLATES[machine_class.name, version, trees] = _train(
            Path(tempfile.mkdtemp(prefix="bundle-")), machine_class, version, trees
        )
        atexit.register(shutil.rmtree, template, ignore_errors=True)
    shutil.copytree(template, folder)
    if forest:
        _add_forest(folder, machine_class)
    if life:
        _add_life(folder, machine_class)
    signing.sign(folder, signing.ensure_keys(settings.keys_dir).private)
    return folder


_TEMPLATES: dict[tuple[str, str, int], Path] = {}


def _train(folder: Path, machine_class: MachineClass, version: str, trees: int) -> Path:
    rng = np.random.default_rng(int(version))
    width = len(machine_class.vector)
    x = rng.normal(size=(400, width)).astype(np.float32)
    x[:, machine_class.vector.index("vibration_rms_1h")] = rng.uniform(1, 10, 400)
    y = (x[:, machine_class.vector.index("vibration_rms_1h")] > 6).astype(float)
    data = xgb.DMatrix(x, y, feature_names=list(machine_class.vector))
    params = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1}
    failure = xgb.train(params, data, trees)
    modes = sorted(machine_class.failure_modes)
    many = xgb.DMatrix(
        x, np.stack([y, *([1 - y] * (len(modes) - 1))], 1), feature_names=list(machine_class.vector)
    )
    failure.save_model(folder / "failure.ubj")
    xgb.train(params, many, 5).save_model(folder / "modes.ubj")
    manifest = {
        "format": 1,
        "name": f"failure-{machine_class.name}",
        "version": version,
        "machine_class": machine_class.model_dump(mode="json"),
        "feature_set": machine_class.feature_set,
        "vector": list(machine_class.vector),
        "horizon_us": machine_class.horizon,
        "thresholds": {"elevated": 0.3, "high": 0.7},
        "calibration": {"x": [-6.0, 6.0], "y": [0.01, 0.99]},
        "modes": modes,
        "normals": {n: {"low": -1.0, "median": 0.0, "high": 1.0} for n in machine_class.vector},
        "trained_at": "2026-01-01T00:00:00Z",
        "data_versions": {},
        "metrics": {},
    }
    # Sorted, as bundles of older versions are: only `vector` then tells the order of the inputs.
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))
    return folder


def _add_life(folder: Path, machine_class: MachineClass) -> None:
    """Vibration shortens the life, and a calm machine shows no trend."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, len(machine_class.vector))).astype(np.float32)
    rms = machine_class.vector.index("vibration_rms_1h")
    x[:, rms] = rng.uniform(1, 10, 600)
    hours = np.exp(5 - 0.4 * x[:, rms])
    data = xgb.DMatrix(x, feature_names=list(machine_class.vector))
    data.set_float_info("label_lower_bound", hours)
    data.set_float_info("label_upper_bound", hours)
    params = {"objective": "survival:aft", "max_depth": 3, "nthread": 1}
    xgb.train(params, data, 30).save_model(folder / "life.ubj")
    knots = {"score": [1, 3], "low": [1, 10], "median": [3, 20], "high": [9, 40]}
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["remaining_life"] = knots | {"trend_below": 3.0, "coverage": 0.9}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _add_forest(folder: Path, machine_class: MachineClass) -> None:
    """A forest that knows vectors around 0 with a vibration RMS of 1 to 3; calibrated by hand."""
    rng = np.random.default_rng(0)
    inputs = [i for i, spec in enumerate(machine_class.features) if spec.window is not None]
    x = rng.normal(size=(1_000, len(machine_class.vector))).astype(np.float32)
    rms = rng.uniform(1, 3, 1_000)
    for name in {"vibration_rms_1h", "vibration_rms_5m"} & set(machine_class.vector):
        x[:, machine_class.vector.index(name)] = rms
    x = x[:, inputs]
    forest = export(
        isolation_forest(x, seed=0), np.array(inputs, np.int32), np.zeros(len(inputs), np.float32)
    )
    knots = {
        "knots_score": np.array([0.38, 0.42, 0.45]),
        "knots_probability": np.array([0.01, 0.25, 0.5]),
    }
    anomaly.save(replace(forest, usual=np.array(0.42), **knots), folder / "anomaly.npz")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"anomaly": {}}))


def promote(settings: Settings, version: str, machine_class: MachineClass = SPINDLE) -> None:
    base = settings.bundles_dir / machine_class.name
    pointer = {"version": version, "digest": bundle_digest(base / version / "bundle")}
    draft = base / "draft.json"
    draft.write_text(json.dumps(pointer))
    draft.replace(base / "production.json")


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """A database of our own on the shared server; it is emptied after each test."""
    return redis_server.url.removesuffix("/0") + "/7"


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Iterator[Settings]:
    made = Settings(
        data_dir=tmp_path,
        redis=RedisSettings(url=redis_url),
        api=ApiSettings(model_poll_seconds=0.02),
    )
    yield made
    client = connect(made.redis)
    client.flushdb()
    client.close()


def vector_of(rms: float) -> np.ndarray:
    """Model inputs of a machine that vibrates like this."""
    vector = np.zeros(len(SPINDLE.vector))
    for window in ("1h", "5m"):
        vector[SPINDLE.vector.index(f"vibration_rms_{window}")] = rms
    return vector


@dataclass
class Fleet:
    """Writes what the feature worker would have written."""

    settings: Settings

    def add(
        self,
        machine_id: str,
        rms: float | None = None,
        *,
        age: float = 1.0,
        coverage: float = 1.0,
        machine_class: str = "cnc_spindle",
        area: str = "A",
        stopped: bool = False,
    ) -> None:
        client = connect(self.settings.redis)
        store = OnlineStore(client)
        store.register([Machine(machine_id, machine_class, "S", area, {})])
        if rms is not None:
            vector = vector_of(rms)
            if stopped:
                vector[SPINDLE.vector.index("vibration_rms_5m")] = 0.05
            ts = round((time.time() - age) * 1e6)
            store.write_features(
                [FeatureVector(machine_id, SPINDLE.feature_set, ts, vector, coverage)],
                {SPINDLE.feature_set: SPINDLE.vector},
            )
        client.close()

    def drop_features(self, machine_id: str) -> None:
        client = connect(self.settings.redis)
        client.delete(features_key(machine_id))
        client.close()

    def drop(self, machine_id: str) -> None:
        client = connect(self.settings.redis)
        client.delete(features_key(machine_id), machine_key(machine_id))
        client.close()


@pytest.fixture
def fleet(settings: Settings) -> Fleet:
    return Fleet(settings)


@pytest.fixture
def promoted(settings: Settings) -> Path:
    folder = write_bundle(settings)
    promote(settings, "1")
    return folder


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def api(settings: Settings, promoted: Path) -> AsyncIterator[Running]:
    async with running(settings) as started:
        yield started


@dataclass
class Running:
    """A started API and a client that calls it."""

    service: Service
    client: httpx.AsyncClient
    recorder: Recorder

    @property
    def outbox(self) -> Outbox:
        return self.service.outbox

    async def predict(self, machine_id: str, **more: object) -> httpx.Response:
        body = {"machine_id": machine_id, **more}
        return await self.client.post("/api/v1/predict", json=body)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the background work run until it has done something."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the pump sets no event
                await asyncio.sleep(0.005)

    async def records(self, count: int) -> list[dict[str, object]]:
        """The first `count` audit records that reached Kafka, decoded."""
        await self.until(lambda: len(self.recorder.sent) >= count)
        schema = avro.contract(PREDICTIONS_TOPIC).schema
        bodies = [io.BytesIO(value) for topic, _, value in self.recorder.sent]
        return [fastavro.schemaless_reader(body, schema, None) for body in bodies]


@asynccontextmanager
async def running(
    settings: Settings, role: str = "operator", *, kafka: bool = False, **scope: list[str]
) -> AsyncIterator[Running]:
    recorder = Recorder()
    service = build(settings, publisher=None if kafka else recorder)
    app = create_app(service)
    token = mint(settings, "tester", role, **scope)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://api", headers=headers
        ) as client:
            yield Running(service, client, recorder)


def store(settings: Settings, records: list[dict[str, Any]]) -> None:
    """What the lake writer does with audit records."""
    source = {"_topic": "t", "_partition": 0, "_index": 0, "_ingested_at": datetime.now(UTC)}
    rows = [r | source | {"_offset": i} for i, r in enumerate(records)]
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("asked_at", "features_at").cast(pl.Datetime("us", "UTC"))
    )
    Lake(settings.lake_root).append(PREDICTIONS, frame)


@pytest.fixture
async def answers(settings: Settings, promoted: Path, fleet: Fleet) -> list[dict[str, Any]]:
    """Answers of the API, alone and in a batch, of three rungs; their records are in Delta."""
    for i in range(4):
        fleet.add(f"m{i}", WORN if i % 2 else SOUND + i / 7)
    fleet.add("silent")
    async with running(settings) as api:
        given = [(await api.predict("m0")).json()]
        batch = await api.client.post("/api/v1/predict/batch", json={"machine_ids": ["m1", "m2"]})
        given += batch.json()
        given.append((await api.predict("silent")).json())
        given.append((await api.predict("m3", features=dict.fromkeys(SPINDLE.vector, 7.7))).json())
        (settings.bundles_dir / "cnc_spindle" / "production.json").unlink()
        await api.until(lambda: api.service.slots.get("cnc_spindle") is None)
        given.append((await api.predict("m3")).json())
        store(settings, await api.records(len(given)))
    return given
