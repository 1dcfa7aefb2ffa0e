import json

import dagster as dg
import numpy as np
import polars as pl
import pytest

from aegisops import anomaly, names, scoring, signing
from aegisops.names import Alias
from aegisops.schemas.tables import EVENTS, FEATURES, LABELS, MODEL_DECISIONS, READINGS, TILES
from aegisops_assets import materialize
from aegisops_assets.definitions import defs
from aegisops_assets.steps import features, promotion, tiles, training, validation
from tests.aegisops_assets.conftest import CYCLES, fill, make_platform, press_history, register

pytestmark = [
    pytest.mark.slow,
    # Third parties warn while they are imported and while MLflow makes its database.
    pytest.mark.filterwarnings("default"),
]


def test_a_new_class_with_another_clock_goes_the_whole_way_without_code(finished):
    platform, result = finished
    assert result["success"], result
    assert result["failed_checks"] == {}
    pointer = json.loads((platform.settings.bundles_dir / "press" / "production.json").read_text())
    bundle_dir = platform.bundle_dir("press", pointer["version"])
    assert signing.verify(bundle_dir, platform.keys().public) == pointer["digest"]
    bundle = scoring.load_bundle(bundle_dir)
    worn = [1150.0, 120.0, 150.0, 45.0, 0.0, 280.0, 400.0]
    fresh = [900.0, 25.0, 0.0, 45.0, 0.0, 100.0, 400.0]
    risk = scoring.score(bundle, np.array([worn, fresh])).probability
    assert risk[0] > 0.5
    assert risk[1] < 0.1
    assert bundle.forest is not None
    unusual = anomaly.score(bundle.forest, np.array([worn, fresh]))
    assert unusual[0] > unusual[1]
    chance = anomaly.calibrate(bundle.forest, unusual)
    assert chance[0] > chance[1]


def test_every_row_has_a_vector_and_a_reason_for_its_label(finished):
    platform, _ = finished
    rows = platform.lake.scan(FEATURES).collect()
    labels = platform.lake.scan(LABELS).collect()
    assert rows.height == labels.height == 9 * CYCLES // 10
    assert labels["provenance"].null_count() == 0
    assert {"failure", "survived", "end_of_data"} <= set(labels["provenance"])
    assert labels.filter(pl.col("label") == 1)["failure_modes"].list.first().unique().to_list() == [
        "die_crack"
    ]


def test_the_decision_is_recorded_with_its_evidence(finished):
    platform, _ = finished
    decision = platform.lake.scan(MODEL_DECISIONS).collect().row(0, named=True)
    assert decision["decision"] == "promoted"
    assert decision["decided_by"].startswith("dagster run")
    figures = json.loads(decision["evidence"])["figures"]
    assert figures["candidate"]["pr_auc"] > figures["prevalence"]
    assert figures["anomaly"]["roc_auc"] > 0.5
    assert {"pr_auc_gain", "low", "high"} <= set(figures["gain_over_anomaly"])
    production = platform.registry.by_alias("press", Alias.PRODUCTION)
    assert production is not None
    assert production.digest == decision["model_digest"]


def test_the_same_data_gives_the_same_digest_and_no_second_version(copied):
    before = copied.registry.by_alias("press", Alias.CANDIDATE)
    training.build_set(copied)
    again = training.train(copied)[0]
    assert again.digest == before.digest
    assert again.registered.version == before.version
    assert len(copied.registry.history("press")) == 1


@pytest.mark.parametrize("part", ["manifest.json", "failure.ubj", "anomaly.npz"])
def test_an_altered_bundle_is_not_promoted(copied, part):
    candidate = copied.registry.by_alias("press", Alias.CANDIDATE)
    bundle = copied.bundle_dir("press", candidate.tags["bundle_version"])
    (copied.settings.bundles_dir / "press" / "production.json").unlink()
    path = bundle / part
    path.write_bytes(path.read_bytes() + b" ")
    decision = promotion.promote(copied, decided_by="test")[0]
    assert not decision.promoted
    assert not (copied.settings.bundles_dir / "press" / "production.json").exists()
    recorded = copied.lake.scan(MODEL_DECISIONS).collect().sort("decided_at").row(-1, named=True)
    assert recorded["decision"] == "refused"
    assert not validation.validate(copied)[0].passed


def test_a_candidate_that_was_never_validated_is_not_promoted(copied):
    candidate = copied.registry.by_alias("press", Alias.CANDIDATE)
    bundle = copied.bundle_dir("press", candidate.tags["bundle_version"])
    bundle.with_name(validation.EVIDENCE).unlink()
    (copied.settings.bundles_dir / "press" / "production.json").unlink()
    decision = promotion.promote(copied, decided_by="test")[0]
    assert not decision.promoted
    assert "no validation evidence" in decision.reason


def test_incremental_and_full_builds_give_the_same_tables(tmp_path):
    parts, whole = make_platform(tmp_path / "parts"), make_platform(tmp_path / "whole")
    for platform in (parts, whole):
        register(platform.lake)
    # 1,500 cycles are 1,500 s after 1970: shift the second half over a midnight.
    first, second = press_history(cycles=700), press_history(first_cycle=700, cycles=800)
    later = pl.col("ts") + pl.duration(hours=23, minutes=50)
    second = tuple(rows.with_columns(later) for rows in second)
    for platform, steps in ((parts, [first, second]), (whole, [first, second])):
        for readings, events in steps:
            platform.lake.append(READINGS, readings)
            platform.lake.append(EVENTS, events)
            if platform is parts:
                tiles.build(platform)
                features.build(platform)
    tiles.build(whole)
    features.build(whole)
    for table in (TILES, FEATURES):
        one, other = (
            platform.lake.scan(table).collect().sort(table.keys) for platform in (parts, whole)
        )
        assert one.height
        assert one.equals(other, null_equal=True)
    untouched = parts.lake.version(TILES)
    assert tiles.build(parts).days == ()
    assert parts.lake.version(TILES) == untouched


def test_a_row_that_breaks_its_declaration_stops_the_run_before_the_next_layer(copied, monkeypatch):
    spoiled = tiles.build

    def with_negative_counts(platform, **options):
        written = spoiled(platform, **options)
        rows = platform.lake.scan(TILES).collect()
        platform.lake.overwrite(TILES, rows.with_columns(n=-pl.col("n")))
        return written

    monkeypatch.setattr(tiles, "build", with_negative_counts)
    before = copied.lake.version(FEATURES)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize.run(copied, "build_features", instance=instance)
    assert not result["success"]
    assert "silver/tiles:ranges" in result["failed_checks"]
    assert copied.lake.version(FEATURES) == before


def test_new_bronze_rows_are_reported_and_ask_for_features_once(tmp_path):
    platform = make_platform(tmp_path)
    fill(platform.lake)
    sensor = defs.get_sensor_def("bronze_changes")
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor):
            context = dg.build_sensor_context(
                instance, cursor=cursor, resources={"platform": platform}, definitions=defs
            )
            return sensor.evaluate_tick(context)

        first = tick(None)
        assert [r.run_key for r in first.run_requests] == ["features@1--1-1"]
        reported = {"/".join(e.asset_key.path) for e in first.asset_events}
        assert reported == {names.BRONZE_MACHINES, names.BRONZE_READINGS, names.BRONZE_EVENTS}
        again = tick(first.cursor)
        assert again.asset_events == []
        tiles.build(platform)
        assert tick(first.cursor).run_requests == []
