"""From the API's answer over Delta back to the same answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from aegisops import audit_log, scoring
from aegisops.cli import app
from aegisops.lake import Lake
from aegisops.schemas.tables import PREDICTIONS
from aegisops.settings import Settings
from tests.serving.conftest import SOUND, WORN, Fleet, promote, running, store, write_bundle

pytestmark = pytest.mark.anyio


def replay(settings: Settings, identity: str, code: int = 0) -> Any:
    folder = ("--data-dir", str(settings.data_dir))
    result = CliRunner().invoke(app, ["replay-prediction", identity, *folder, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout else result.output


def forge(settings: Settings, column: str, value: object) -> None:
    lake = Lake(settings.lake_root)
    rows = lake.scan(PREDICTIONS).collect()
    kind = rows.schema[column]
    lake.overwrite(PREDICTIONS, rows.with_columns(pl.lit(value, kind).alias(column)))


async def test_every_answer_comes_out_again_bit_for_bit_with_its_reasons(
    settings: Settings, answers: list[dict[str, Any]]
) -> None:
    rungs = set()
    for answer in answers:
        again = replay(settings, answer["prediction_id"])
        rungs.add(answer["served_by"])
        assert again["equal"] is True
        assert again["served_by"] == answer["served_by"]
        if answer["served_by"] == "abstained":
            assert again["computed"] is None
            continue
        assert again["computed"]["probability"] == answer["probability"]
        assert again["computed"]["risk"] == answer["risk"]
        assert again["explanation"] == answer["explanation"]
        if answer["served_by"] == "production":
            told = [(c["feature"], c["contribution"]) for c in answer["contributions"]]
            assert [(c["feature"], c["contribution"]) for c in again["contributions"]] == told
    assert rungs == {"production", "thresholds", "abstained"}


async def test_the_log_of_an_api_holds(settings: Settings, answers: list[dict[str, Any]]) -> None:
    heads, faults = audit_log.check(Lake(settings.lake_root))
    assert faults == []
    assert [head.records for head in heads] == [len(answers)]


async def test_an_altered_probability_is_not_equal_and_the_record_not_intact(
    settings: Settings, answers: list[dict[str, Any]]
) -> None:
    forge(settings, "probability", 0.5)
    again = replay(settings, answers[0]["prediction_id"], code=1)
    assert again["differences"] == ["probability"]
    assert again["is_record_intact"] is False
    folder = ("--data-dir", str(settings.data_dir))
    shown = CliRunner().invoke(app, ["replay-prediction", answers[0]["prediction_id"], *folder])
    assert "not equal: probability" in shown.output


async def test_a_bundle_that_is_gone_is_said_with_its_digest(
    settings: Settings, answers: list[dict[str, Any]], promoted: Path
) -> None:
    shutil.rmtree(promoted)
    said = replay(settings, answers[0]["prediction_id"], code=2)
    assert "not kept any more" in said
    assert answers[0]["model"]["digest"] in said


async def test_an_altered_bundle_is_refused(
    settings: Settings, answers: list[dict[str, Any]], promoted: Path
) -> None:
    (promoted / "manifest.json").write_text((promoted / "manifest.json").read_text() + " ")
    assert "signature not valid" in replay(settings, answers[0]["prediction_id"], code=2)


async def test_another_signed_bundle_of_the_same_version_is_refused(
    settings: Settings, answers: list[dict[str, Any]], promoted: Path
) -> None:
    shutil.rmtree(promoted.parent)
    write_bundle(settings, trees=5)
    promote(settings, "1")
    assert "which answered" in replay(settings, answers[0]["prediction_id"], code=2)


async def test_a_record_cannot_lead_out_of_the_bundles_folder(
    settings: Settings, answers: list[dict[str, Any]]
) -> None:
    forge(settings, "model_version", "../../elsewhere")
    assert "no version" in replay(settings, answers[0]["prediction_id"], code=2)


async def test_an_answer_of_the_anomaly_model_comes_out_again_bit_for_bit(
    settings: Settings, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(settings, forest=True)
    promote(settings, "1")
    for i, rms in enumerate((SOUND, WORN)):
        fleet.add(f"m{i}", rms)

    def broken(*_: object) -> None:
        raise RuntimeError("the booster failed")

    async with running(settings) as api:
        monkeypatch.setattr(scoring, "score", broken)
        given = [(await api.predict(f"m{i}")).json() for i in range(2)]
        store(settings, await api.records(2))
    for answer in given:
        assert answer["served_by"] == "anomaly"
        again = replay(settings, answer["prediction_id"])
        assert again["equal"] is True
        assert again["computed"]["probability"] == answer["probability"]
        assert again["computed"]["risk"] == answer["risk"]
        assert again["explanation"] == answer["explanation"]
