from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import pytest

from aegisops import audit_chain, scoring
from aegisops.settings import RedisSettings, Settings
from serving.contract import Prediction, ProblemDocument
from tests.serving.conftest import SOUND, SPINDLE, WORN, Fleet, Running, running, vector_of

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def test_a_worn_machine_is_explained_with_reason_mode_and_action(
    api: Running, fleet: Fleet
) -> None:
    fleet.add("worn", WORN)
    answer = await api.predict("worn")
    assert answer.status_code == 200
    found = Prediction.model_validate_json(answer.content)
    assert found.risk == "high"
    assert found.served_by == "production"
    assert found.source == "cache"
    assert found.contributions[0].feature == "vibration_rms_1h"
    assert found.contributions[0].value == WORN
    assert found.contributions[0].unit == "m/s²"
    assert found.contributions[0].normal_range is not None
    assert found.failure_mode is not None
    assert found.failure_mode.code == "bearing_wear"
    assert found.recommended_action is not None
    assert found.recommended_action.procedure == "SP-BRG-04"
    assert "vibration RMS" in found.explanation
    assert found.limit_violations[0].level == "high"
    assert found.data_quality.status == "good"
    assert found.feature_age_seconds is not None
    assert 0.9 < found.feature_age_seconds < 60


async def test_the_number_is_exactly_what_the_bundle_gives(
    api: Running, fleet: Fleet, promoted: Path
) -> None:
    fleet.add("m", SOUND)
    answer = (await api.predict("m")).json()
    vector = vector_of(SOUND)[np.newaxis]
    scores = scoring.score(scoring.load_bundle(promoted), vector)
    assert answer["probability"] == scores.probability[0]
    assert (
        answer["contributions"][0]["contribution"]
        == scores.contributions[0].flat[np.abs(scores.contributions[0]).argmax()]
    )
    assert answer["model"]["digest"] == scoring.bundle_digest(promoted)


async def test_an_unknown_machine_is_a_404_problem(api: Running) -> None:
    answer = await api.predict("nobody")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    found = ProblemDocument.model_validate_json(answer.content)
    assert found.type == "/api/problems/unknown-machine"
    assert (await api.client.get(found.type)).json()["status"] == 404


async def test_a_machine_without_any_reading_gets_no_invented_number(
    api: Running, fleet: Fleet
) -> None:
    fleet.add("silent")
    found = Prediction.model_validate_json((await api.predict("silent")).content)
    assert found.served_by == "abstained"
    assert found.cause == "no_readings"
    assert found.probability is None
    assert found.risk == "unknown"
    assert found.contributions == []


async def test_low_coverage_is_an_instrument_fault_not_a_risk(api: Running, fleet: Fleet) -> None:
    fleet.add("patchy", WORN, coverage=0.2)
    found = Prediction.model_validate_json((await api.predict("patchy")).content)
    assert (found.served_by, found.cause) == ("abstained", "low_coverage")
    assert found.data_quality.status == "instrument_fault"
    assert found.data_quality.coverage == 0.2
    assert found.probability is None


async def test_without_a_bundle_the_limit_rules_answer_and_say_so(
    settings: Settings, fleet: Fleet
) -> None:
    fleet.add("worn", WORN)
    fleet.add("sound", SOUND)
    async with running(settings) as api:
        worn = Prediction.model_validate_json((await api.predict("worn")).content)
        sound = Prediction.model_validate_json((await api.predict("sound")).content)
        metrics = (await api.client.get("/metrics")).text
    assert (worn.served_by, worn.cause, worn.risk) == ("thresholds", "no_model", "high")
    assert worn.probability is None
    assert worn.model is None
    assert worn.recommended_action is not None
    assert sound.risk == "normal"
    assert 'rung="thresholds"' in metrics


async def test_a_model_that_raises_falls_to_the_limit_rules(
    api: Running, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("booster")

    monkeypatch.setattr(scoring, "score", broken)
    fleet.add("worn", WORN)
    found = Prediction.model_validate_json((await api.predict("worn")).content)
    assert (found.served_by, found.cause, found.risk) == ("thresholds", "model_failed", "high")
    assert "booster" not in (found.detail or "")


async def test_given_features_are_used_and_marked(api: Running, fleet: Fleet) -> None:
    fleet.add("m", SOUND)
    given = dict.fromkeys(SPINDLE.vector, 0.0) | {"vibration_rms_1h": WORN}
    found = Prediction.model_validate_json((await api.predict("m", features=given)).content)
    assert found.source == "request"
    assert found.risk == "high"
    assert found.features_at is None
    sparse = Prediction.model_validate_json(
        (await api.predict("m", features={"vibration_rms_1h": WORN})).content
    )
    assert sparse.cause == "low_coverage"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"machine_id": 7}',
        b'{"machine_id": ""}',
        b'{"machine_id": "m", "surprise": 1}',
        b'{"machine_id": "m", "at": "yesterday"}',
        b'{"machine_id": "m", "features": {"no_such": 1}}',
        b'{"machine_id": "m", "features": {"vibration_rms_1h": "hot"}}',
        b'{"machine_id": "m", "features": {"vibration_rms_1h": NaN}}',
        b'{"machine_id": ' + b"[" * 20_000,
        b"\xff\xfe",
    ],
)
async def test_a_request_outside_the_contract_is_a_422_that_names_the_field(
    api: Running, fleet: Fleet, body: bytes
) -> None:
    fleet.add("m", SOUND)
    answer = await api.client.post("/api/v1/predict", content=body)
    assert answer.status_code == 422, answer.text
    found = ProblemDocument.model_validate_json(answer.content)
    assert found.detail
    assert "Traceback" not in answer.text


async def test_a_surprise_is_a_500_without_its_text(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret path /etc")

    monkeypatch.setattr(api.service.predictions, "predict", broken)
    answer = await api.predict("m")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


async def test_every_answer_is_in_the_audit_log_in_one_unbroken_chain(
    api: Running, fleet: Fleet
) -> None:
    fleet.add("worn", WORN)
    fleet.add("patchy", WORN, coverage=0.1)
    asked = ["worn", "patchy"] * 10
    answers = [a.json() for a in await asyncio.gather(*(api.predict(m) for m in asked))]
    assert [a["machine_id"] for a in answers] == asked
    records = await api.records(len(asked))
    assert audit_chain.verify(records) == []
    by_id = {r["prediction_id"]: r for r in records}
    for answer in answers:
        record = by_id[answer["prediction_id"]]
        assert record["subject"] == "tester"
        assert record["probability"] == answer["probability"]
        assert record["served_by"] == answer["served_by"]
        assert record["machine_id"] == answer["machine_id"]
    worn = by_id[answers[0]["prediction_id"]]
    assert worn["model_digest"] == answers[0]["model"]["digest"]
    assert worn["vector"][SPINDLE.vector.index("vibration_rms_1h")] == WORN
    records[7]["risk"] = "normal" if records[7]["risk"] != "normal" else "high"
    assert audit_chain.verify(records)


async def test_redis_away_is_answered_from_the_lake_or_not_at_all(
    settings: Settings, promoted: Path, fleet: Fleet
) -> None:
    fleet.add("m", SOUND)
    away = settings.model_copy(update={"redis": RedisSettings(url="redis://127.0.0.1:1/0")})
    async with running(away) as api:
        answer = await api.predict("m")
        assert answer.status_code == 404  # neither store can say that there is such a machine
        status = (await api.client.get("/api/v1/system/status")).json()
    assert status["status"] == "degraded"
    assert status["dependencies"]["online_store"]["status"] == "away"


async def test_a_batch_keeps_its_order_and_marks_unknown_machines(
    api: Running, fleet: Fleet
) -> None:
    fleet.add("a", SOUND)
    fleet.add("b", WORN)
    ids = ["b", "ghost", "a", "b"]
    answer = await api.client.post("/api/v1/predict/batch", json={"machine_ids": ids})
    rows = answer.json()
    assert [row["machine_id"] for row in rows] == ids
    assert rows[1]["problem"]["status"] == 404
    assert [rows[i]["risk"] for i in (0, 2, 3)] == ["high", "normal", "high"]
    assert len(await api.records(3)) == 3


async def test_a_batch_is_one_answer_a_line_when_asked_for(api: Running, fleet: Fleet) -> None:
    for i in range(300):
        fleet.add(f"m{i:03}", SOUND)
    async with api.client.stream(
        "POST",
        "/api/v1/predict/batch",
        json={"all": True, "machine_class": "cnc_spindle"},
        headers={"Accept": "application/x-ndjson"},
    ) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        rows = [json.loads(line) async for line in answer.aiter_lines()]
    assert [row["machine_id"] for row in rows] == [f"m{i:03}" for i in range(300)]
    assert all(math.isclose(row["probability"], rows[0]["probability"]) for row in rows)


async def test_a_batch_needs_machines_or_all_but_not_both(api: Running) -> None:
    for body in ({}, {"all": True, "machine_ids": ["a"]}, {"machine_ids": []}):
        answer = await api.client.post("/api/v1/predict/batch", json=body)
        assert answer.status_code == 422
