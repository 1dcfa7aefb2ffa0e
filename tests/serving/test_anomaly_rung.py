from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aegisops import anomaly, scoring
from aegisops.settings import ApiSettings, Settings
from serving.contract import Prediction
from serving.patience import IN_A_ROW, REST_SECONDS, Patience
from tests.serving.conftest import (
    SOUND,
    SPINDLE,
    WORN,
    Fleet,
    Running,
    promote,
    running,
    vector_of,
    write_bundle,
)

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
def promoted(settings: Settings) -> Path:
    folder = write_bundle(settings, forest=True)
    promote(settings, "1")
    return folder


def _broken(*_: object) -> None:
    raise RuntimeError("booster")


async def ask(api: Running, machine_id: str, **more: object) -> Prediction:
    answer = await api.predict(machine_id, **more)
    assert answer.status_code == 200, answer.text
    return Prediction.model_validate_json(answer.content)


async def test_a_well_model_answers_itself(api: Running, fleet: Fleet) -> None:
    fleet.add("m", SOUND)
    assert (await ask(api, "m")).served_by == "production"


async def test_when_the_model_raises_the_anomaly_model_answers_and_says_so(
    api: Running, fleet: Fleet, promoted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "score", _broken)
    fleet.add("worn", WORN)
    fleet.add("sound", SOUND)
    worn, sound = await ask(api, "worn"), await ask(api, "sound")
    assert (worn.served_by, worn.cause) == ("anomaly", "model_failed")
    assert worn.explanation.startswith(
        "Operation looks unlike this machine class's healthy operation: vibration RMS over "
    )
    assert "booster" not in (worn.detail or "")
    assert {c.feature for c in worn.contributions[:2]} == {"vibration_rms_1h", "vibration_rms_5m"}
    assert worn.contributions[0].contribution is None
    assert worn.contributions[0].normal_range is not None
    assert worn.failure_mode is not None
    assert (worn.failure_mode.code, worn.failure_mode.share) == ("bearing_wear", None)
    assert worn.model is not None
    assert worn.model.digest == scoring.bundle_digest(promoted)
    assert sound.explanation.startswith("Operation looks like this machine class's healthy")
    assert sound.probability is not None
    assert worn.probability is not None
    assert sound.probability < 0.3 < worn.probability
    assert sound.risk == "normal"


async def test_the_probability_is_the_forests_own_to_the_last_bit(
    api: Running, fleet: Fleet, promoted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "score", _broken)
    fleet.add("m", WORN)
    found = await ask(api, "m")
    forest = scoring.load_bundle(promoted).forest
    assert forest is not None
    vector = vector_of(WORN)[np.newaxis]
    assert found.probability == anomaly.calibrate(forest, anomaly.score(forest, vector))[0]


async def test_a_limit_alarm_is_not_hidden_by_a_calmer_forest(
    api: Running, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "score", _broken)
    fleet.add("worn", WORN)
    found = await ask(api, "worn")
    assert found.probability is not None
    assert found.probability < 0.7  # `elevated` by the forest alone
    assert found.limit_violations[0].level == "high"
    assert found.risk == "high"
    assert "Limit rule" in found.explanation


async def test_the_rung_is_in_metrics_and_audit(
    api: Running, fleet: Fleet, promoted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "score", _broken)
    fleet.add("m", SOUND)
    found = await ask(api, "m")
    (record,) = await api.records(1)
    assert record["served_by"] == "anomaly"
    assert record["probability"] == found.probability
    assert record["model_digest"] == scoring.bundle_digest(promoted)
    assert 'rung="anomaly"' in (await api.client.get("/metrics")).text


async def test_a_model_that_gives_no_number_for_one_machine_still_answers_for_the_other(
    api: Running, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = scoring.score

    def without_first(bundle: scoring.Bundle, vectors: np.ndarray) -> scoring.Scores:
        scores = score(bundle, vectors)
        scores.probability[0] = np.nan
        return scores

    monkeypatch.setattr(scoring, "score", without_first)
    fleet.add("a", SOUND)
    fleet.add("b", SOUND)
    answer = await api.client.post("/api/v1/predict/batch", json={"machine_ids": ["a", "b"]})
    rows = answer.json()
    rows = rows["predictions"] if isinstance(rows, dict) else rows
    assert [row["served_by"] for row in rows] == ["anomaly", "production"]
    assert rows[0]["cause"] == "model_failed"


async def test_a_model_that_is_too_slow_rests_while_the_anomaly_model_answers(
    settings: Settings, promoted: Path, fleet: Fleet
) -> None:
    never_fast_enough = ApiSettings(model_poll_seconds=0.02, model_budget_seconds=0.0)
    fleet.add("m", SOUND)
    async with running(settings.model_copy(update={"api": never_fast_enough})) as api:
        served = [(await ask(api, "m")).served_by for _ in range(IN_A_ROW)]
        resting = await ask(api, "m")
        state = (await api.client.get("/api/v1/system/status")).json()
    assert served == ["production"] * IN_A_ROW
    assert (resting.served_by, resting.cause) == ("anomaly", "model_too_slow")
    (model,) = [m for m in state["models"] if m["machine_class"] == SPINDLE.name]
    assert (model["rung"], model["has_anomaly_model"]) == ("anomaly", True)


async def test_with_most_features_missing_the_forest_is_silent_and_the_limit_rules_answer(
    api: Running, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "score", _broken)
    fleet.add("m", SOUND)
    windowed = [s.name for s in SPINDLE.features if s.window is not None]
    others = [s.name for s in SPINDLE.features if s.window is None]
    half = (len(windowed) - 1) // 2
    assert (half + len(others)) / len(SPINDLE.features) >= SPINDLE.min_coverage
    given = dict.fromkeys(["vibration_rms_1h", *others], 1.0)
    given |= dict.fromkeys([n for n in windowed if n not in given][: half - 1], 0.0)
    found = await ask(api, "m", features=given)
    assert (found.served_by, found.cause) == ("thresholds", "model_failed")


@pytest.mark.parametrize("forest", [False, True])
async def test_below_the_forest_come_the_limit_rules(
    settings: Settings, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, forest: bool
) -> None:
    write_bundle(settings, version="2", forest=forest)
    promote(settings, "2")
    fleet.add("worn", WORN)
    async with running(settings) as api:
        monkeypatch.setattr(scoring, "score", _broken)
        monkeypatch.setattr(anomaly, "score", _broken)
        found = await ask(api, "worn")
    assert (found.served_by, found.cause, found.risk) == ("thresholds", "model_failed", "high")


async def test_a_forest_altered_after_signing_takes_the_whole_bundle_with_it(
    settings: Settings, promoted: Path, fleet: Fleet
) -> None:
    path = promoted / "anomaly.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    fleet.add("m", SOUND)
    async with running(settings) as api:
        found = await ask(api, "m")
    assert (found.served_by, found.cause) == ("thresholds", "no_model")


async def test_health_follows_the_rung(
    api: Running, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "score", _broken)
    fleet.add("m", SOUND)
    found = json.loads((await api.client.get("/api/v1/health/m")).content)
    assert found["served_by"] == "anomaly"
    assert {part["name"] for part in found["parts"]} == {"failure_risk", "limits"}


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_one_late_call_is_forgiven_and_several_in_a_row_bring_a_rest() -> None:
    clock = Clock()
    patience = Patience(0.1, clock)
    for seconds in (0.2, 0.2, 0.05, 0.2, 0.2):
        patience.took("model", 1, seconds)
    assert not patience.rests("model")
    patience.took("model", 1, 0.2)
    assert patience.rests("model")
    assert not patience.rests("the next model")


def test_after_the_rest_one_call_decides() -> None:
    clock = Clock()
    patience = Patience(0.1, clock)
    for _ in range(IN_A_ROW):
        patience.took("model", 1, 0.2)
    clock.now += REST_SECONDS
    assert not patience.rests("model")
    patience.took("model", 1, 0.2)
    assert patience.rests("model")
    clock.now += REST_SECONDS
    patience.took("model", 1, 0.05)
    patience.took("model", 1, 0.2)
    assert not patience.rests("model")


def test_the_budget_grows_with_the_number_of_vectors() -> None:
    patience = Patience(0.1, Clock())
    for _ in range(IN_A_ROW):
        patience.took("model", 6_400, 9.0)
    assert not patience.rests("model")
