"""Every rung of the ladder, forced by a real fault, seen in answer, metrics and audit record.

Finer cases: test_anomaly_rung.py, test_lake_features.py, test_model_slot.py; Redis away:
test_predict.py; stale features: test_lake_features.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aegisops import scoring
from aegisops.settings import ApiSettings, Settings
from serving.contract import Prediction
from serving.lake_features import LakeFeatures
from tests.serving.conftest import SOUND, SPINDLE, Fleet, promote, running, write_bundle

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

NEVER_IN_TIME = ApiSettings(model_poll_seconds=0.02, model_budget_seconds=0.0)
IN_A_ROW = 3


def _nothing(_: World) -> None:
    pass


@dataclass
class World:
    """What a fault may break before the API starts."""

    settings: Settings
    fleet: Fleet
    bundle: Path
    patch: pytest.MonkeyPatch


def bundle_deleted(world: World) -> None:
    for path in world.bundle.iterdir():
        path.unlink()


def one_byte_flipped(world: World) -> None:
    path = world.bundle / "failure.ubj"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def an_older_format(world: World) -> None:
    from aegisops import signing

    path = world.bundle / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    signing.sign(world.bundle, signing.ensure_keys(world.settings.keys_dir).private)
    promote(world.settings, "1")


def model_raises(world: World) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("booster")

    world.patch.setattr(scoring, "score", broken)


def model_too_slow(world: World) -> None:
    world.settings = world.settings.model_copy(update={"api": NEVER_IN_TIME})


def features_absent(world: World) -> None:
    world.fleet.drop_features("m")


def lake_down(world: World) -> None:
    def broken(*_: object) -> None:
        raise OSError("disk")

    features_absent(world)
    world.patch.setattr(LakeFeatures, "vectors", broken)


@pytest.mark.parametrize(
    ("fault", "rung", "cause"),
    [
        pytest.param(fault, *seen, id=fault.__name__.strip("_"))
        for fault, *seen in [
            (_nothing, "production", None),
            (model_raises, "anomaly", "model_failed"),
            (model_too_slow, "anomaly", "model_too_slow"),
            (bundle_deleted, "thresholds", "no_model"),
            (one_byte_flipped, "thresholds", "no_model"),
            (an_older_format, "thresholds", "no_model"),
            (features_absent, "abstained", "no_readings"),
            (lake_down, "abstained", "lake_away"),
        ]
    ],
)
async def test_the_rung_is_in_the_answer_the_metrics_and_the_audit_record(
    settings: Settings,
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[World], None],
    rung: str,
    cause: str | None,
) -> None:
    world = World(settings, fleet, write_bundle(settings, forest=True), monkeypatch)
    promote(settings, "1")
    fleet.add("m", SOUND)
    if fault is not model_raises:  # it must load and warm up before it breaks
        fault(world)
    async with running(world.settings) as api:
        if fault is model_raises:
            fault(world)
        asked = IN_A_ROW + 1 if fault is model_too_slow else 1
        for _ in range(asked):
            answer = Prediction.model_validate_json((await api.predict("m")).content)
        record = (await api.records(asked))[-1]
        metrics = (await api.client.get("/metrics")).text
    assert (answer.served_by, answer.cause) == (rung, cause)
    assert (answer.probability is None) is (rung in {"thresholds", "abstained"})
    assert (record["prediction_id"], record["served_by"]) == (answer.prediction_id, rung)
    (counted,) = [
        line
        for line in metrics.splitlines()
        if line.startswith("aegis_serving_predictions_total") and f'rung="{rung}"' in line
    ]
    assert counted.endswith(" 1.0")
    is_refused = fault in {bundle_deleted, one_byte_flipped, an_older_format}
    refusals = f'bundles_refused_total{{machine_class="{SPINDLE.name}"}} 1.0'
    assert (refusals in metrics) is is_refused
