"""Candidates pass through the shadow, and every validation leaves a report."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from aegisops import scoring, shadow_comparison
from aegisops.cli import app
from aegisops.modelling.fitting import Recipe
from aegisops.names import Alias
from aegisops.schemas.tables import FEATURES, PREDICTIONS, SHADOW_SCORES
from aegisops_assets.steps import promotion, report, shadow, training, validation

pytestmark = [
    pytest.mark.slow,
    # Third parties warn while they are imported and while MLflow makes its database.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def second(copied):
    """A platform with a second, validated candidate beside the model in production."""
    training.train(copied, recipe=Recipe(rounds=30, seed=1))
    assert validation.validate(copied)[0].passed
    return copied


def test_the_first_model_needs_no_shadow(finished):
    platform, result = finished
    assert result["assets"]["ml/shadow"]["press"]["action"] == "none"
    assert platform.releases().pointer("press", Alias.PRODUCTION) is not None


def test_a_second_candidate_waits_in_the_shadow_and_is_promoted_with_evidence(second, monkeypatch):
    known = second.releases()
    before = known.pointer("press", Alias.PRODUCTION)
    (placed,) = shadow.place(second, decided_by="run 1")
    assert placed.action == "shadowed"
    (waiting,) = promotion.promote(second, decided_by="run 1")
    assert waiting.is_waiting
    assert "0 of 200 served vectors" in waiting.reason
    assert known.pointer("press", Alias.PRODUCTION) == before
    (kept,) = shadow.place(second, decided_by="run 2")
    assert kept.action == "kept"
    monkeypatch.setattr(shadow_comparison, "ENOUGH_PAIRS", 0)
    (made,) = promotion.promote(second, decided_by="run 3")
    assert made.promoted, made.reason
    assert known.pointer("press", Alias.PRODUCTION).version == made.model_version
    assert known.pointer("press", Alias.SHADOW) is None
    row = next(d for d in known.decisions("press")[::-1] if d["decision"] == "promoted")
    assert '"shadow"' in row["evidence"]


def test_an_altered_shadow_is_refused(second):
    known = second.releases()
    before = known.pointer("press", Alias.PRODUCTION)
    (placed,) = shadow.place(second, decided_by="run")
    booster = second.bundle_dir("press", placed.version) / "failure.ubj"
    booster.write_bytes(booster.read_bytes() + b" ")
    (made,) = promotion.promote(second, decided_by="run")
    assert not made.promoted
    assert not made.is_waiting
    assert known.pointer("press", Alias.PRODUCTION) == before
    assert known.pointer("press", Alias.SHADOW) is None


def test_a_shadow_keeps_its_place_for_a_week(second):
    (first,) = shadow.place(second, decided_by="run")
    training.train(second, recipe=Recipe(rounds=31, seed=1))
    validation.validate(second)
    (kept,) = shadow.place(second, decided_by="run")
    assert (kept.action, kept.version) == ("kept", first.version)
    later = datetime.now(UTC) + timedelta(days=8)
    (placed,) = shadow.place(second, decided_by="run", now=later)
    assert placed.action == "shadowed"
    assert placed.version != first.version


def served(platform, production, shadow):
    """What the lake writer keeps of 300 answers that the shadow scored too."""
    rows = platform.lake.scan(FEATURES).sort("machine_id", "ts").collect().gather_every(4)
    rows = rows.head(300).with_row_index("i")
    ids = pl.format("id-{}", "i")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    source = {
        "_topic": pl.lit("t"), "_partition": pl.lit(0, pl.Int32),
        "_offset": pl.col("i").cast(pl.Int64), "_index": pl.lit(0, pl.Int32),
        "_ingested_at": pl.lit(now), "date": pl.lit(now.date()),
    }  # fmt: skip

    def said(pointer):
        bundle = scoring.load_bundle(platform.bundle_dir("press", pointer.version))
        data = np.array(rows["vector"].to_list(), np.float32)
        return pl.Series(scoring.probabilities(bundle, data))

    answers = rows.with_columns(probability=said(production)).select(
        ids.alias("prediction_id"), "machine_id", pl.lit(now).alias("asked_at"),
        pl.lit("ann-7").alias("subject"), pl.lit("production").alias("served_by"), "probability",
        pl.lit("normal").alias("risk"), pl.lit(None, pl.String).alias("failure_mode"),
        pl.lit(production.version).alias("model_version"),
        pl.lit(production.digest).alias("model_digest"), "feature_set",
        pl.col("ts").alias("features_at"), "vector", pl.lit("cache").alias("source"),
        pl.lit(1, pl.Int64).alias("latency_us"), pl.lit("api").alias("instance"),
        pl.col("i").cast(pl.Int64).alias("chain_seq"), pl.lit("x").alias("previous_digest"),
        pl.lit("y").alias("digest"), **source,
    )  # fmt: skip
    scores = rows.with_columns(probability=said(shadow)).select(
        ids.alias("prediction_id"), "machine_id", pl.lit(now).alias("scored_at"),
        pl.lit(shadow.version).alias("model_version"), pl.lit(shadow.digest).alias("digest"),
        "probability", **source,
    )  # fmt: skip
    platform.lake.append(PREDICTIONS, answers.select(list(PREDICTIONS.columns)))
    platform.lake.append(SHADOW_SCORES, scores.select(list(SHADOW_SCORES.columns)))


def compared(platform, *options):
    settings = platform.settings
    environment = {"AEGIS_CLASSES_DIR": str(settings.classes_dir)}
    command = ["models", "compare", "--data-dir", str(settings.data_dir), *options]
    return CliRunner().invoke(app, command, env=environment)


def test_models_compare_tells_what_both_models_said_of_what_was_served(second):
    shadow.place(second, decided_by="run")
    known = second.releases()
    served(second, *(known.pointer("press", a) for a in (Alias.PRODUCTION, Alias.SHADOW)))
    answer = compared(second, "--json")
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert (told["pairs"], told["is_enough"]) == (300, True)
    assert told["known_outcomes"] > 100
    assert told["failures_ahead"] > 0
    for figure in ("mean_difference", "brier_gain", "pr_auc_gain"):
        assert told[f"{figure}_low"] <= told[figure] <= told[f"{figure}_high"]
    shown = compared(second)
    assert "Brier gain" in shown.output
    assert told["shadow"] in shown.output


def test_models_compare_without_a_shadow_says_how_to_begin_one(copied):
    answer = compared(copied)
    assert answer.exit_code != 0
    assert "aegisops models shadow" in f"{answer.output}{answer.exception}"


def test_the_report_of_a_second_candidate_shows_the_model_in_production(second):
    candidate = second.registry.by_alias("press", Alias.CANDIDATE).tags["bundle_version"]
    bundle = second.bundle_dir("press", candidate)
    evidence = validation.load(bundle)
    production = second.releases().pointer("press", Alias.PRODUCTION)
    assert evidence.figures["production"]["version"] == production.version
    text = report.write_all(second, [evidence])["press"].read_text()
    curves, modes = text.split("Curves</h2>")[1].split("Failure modes</h2>")
    # In the precision-recall, ROC and reliability curves; per mode; and per class.
    assert curves.count("production") >= 3
    per_mode, classes = modes.split("All classes of this run</h2>")
    assert "production" in per_mode
    assert "production" in classes
    assert "press" in classes


def test_the_validation_report_is_one_file_beside_the_bundle_and_in_mlflow(finished):
    platform, _ = finished
    pointer = platform.releases().pointer("press", Alias.PRODUCTION)
    path = platform.bundle_dir("press", pointer.version).with_name(report.FILE)
    text = path.read_text()
    assert text.count("<svg") >= 4
    for heading in ("Curves", "Failure modes", "Remaining life", "Without the maintenance"):
        assert heading in text
    assert "http" not in text.replace("http://www.w3.org", "")
    kept = list((platform.settings.data_dir / "mlflow").rglob(report.FILE))
    assert text in {page.read_text() for page in kept}
