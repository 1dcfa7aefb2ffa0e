"""From tables to a report, a warning and, rarely, a new model."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import numpy as np
import polars as pl
import pytest

from aegisops.names import REGIME_CHANGE
from aegisops.schemas.tables import DRIFT, EVENTS, FEATURES, TILES
from aegisops_assets.definitions import build_definitions, defs
from aegisops_assets.drift import CHECKS, COOL_DOWN, due
from aegisops_assets.steps import drift
from tests.aegisops_assets.conftest import MACHINES_COUNT, SECOND, frame, make_platform, register

pytestmark = [
    pytest.mark.slow,
    # Third parties warn while they are imported.
    pytest.mark.filterwarnings("default"),
]
NOW = datetime(2026, 1, 2, tzinfo=UTC)
CYCLES, SINCE = 1400, 1120  # 35 intervals of 40 cycles; the last 7 are the current window
EVERYONE = [f"press-{m}" for m in range(MACHINES_COUNT)]


def vectors(shift=0.0, coverage=1.0):
    """Features straight into gold: force, its spread and deviation, oil, oil's slope, …"""
    rng = np.random.default_rng(5)
    ts = np.tile(np.arange(0, CYCLES, 10), MACHINES_COUNT)
    changed = ts >= SINCE
    force = 900 + rng.normal(0, 20, len(ts)) + changed * shift
    columns = [force, rng.normal(25, 2, len(ts)), force - 900, rng.normal(45, 1, len(ts))]
    columns += [rng.normal(0, 1, len(ts)), ts % 300, np.full(len(ts), 400.0)]
    return pl.DataFrame(
        {
            "machine_id": np.repeat(EVERYONE, CYCLES // 10),
            "machine_class": "press",
            "feature_set": "press@1",
            "ts": ts * SECOND,
            "vector": np.stack(columns, axis=1).astype(np.float64),
            "coverage": np.where(changed, coverage, 1.0),
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")), pl.col("vector").arr.to_list())


def platform_with(folder, **options):
    platform = make_platform(folder)
    register(platform.lake)
    platform.lake.append(FEATURES, vectors(**options))
    return platform


def events(kind, code, machines=EVERYONE):
    columns = {"machine_id": machines, "ts": [(SINCE - 1) * SECOND] * len(machines), "type": kind}
    return frame(columns | {"code": code, "detail": ""}, f"events/{code}")


def reported(platform, run="r1", now=NOW):
    return drift.report(platform, run_id=run, now=now)[0]


def verdicts(found):
    return {f.feature: f.verdict for f in found.findings}


def test_a_shift_is_reported_with_machines_and_the_alarms_it_makes_doubtful(tmp_path):
    platform = platform_with(tmp_path, shift=60.0)
    found = reported(platform)
    rows = {r["feature"]: r for r in platform.lake.scan(DRIFT).collect().iter_rows(named=True)}
    drifted = {name for name, row in rows.items() if row["drifted"]}
    assert drifted == {"force_mean_20c", "force_deviation_100c"}
    force = rows["force_mean_20c"]
    assert force["value"] > force["threshold"]
    assert set(force["machines"]) <= set(EVERYONE)
    assert force["doubtful_modes"] == ["die_crack"]
    assert force["current_from"] == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=SINCE)
    page = drift.page(platform, found)
    assert page.stat().st_size > 100_000
    said = json.loads(page.with_suffix(".json").read_text())
    assert said["drifted"] is True
    values = {m["config"]["column"]: m["value"] for m in said["evidently"]["metrics"]}
    assert values["force_mean_20c"] == pytest.approx(force["value"])


def test_what_only_grows_is_not_compared(tmp_path):
    assert "time_since_overhaul" not in verdicts(reported(platform_with(tmp_path)))


@pytest.mark.parametrize(("kind", "code"), [("maintenance", "die"), ("maintenance", REGIME_CHANGE)])
def test_repairs_and_new_regimes_in_the_event_log_are_context(tmp_path, kind, code):
    platform = platform_with(tmp_path, shift=60.0)
    columns = events(kind, code).with_columns(pl.col("ts") + pl.duration(seconds=1))
    platform.lake.append(EVENTS, columns)
    found = reported(platform)
    assert not found.has_drifted
    assert (found.new_regime if code == REGIME_CHANGE else found.repaired) == tuple(EVERYONE)


def test_worse_sensors_are_told_apart_from_drift(tmp_path):
    found = reported(platform_with(tmp_path, coverage=0.6))
    assert [f.feature for f in found.quality] == ["coverage"]
    assert not found.has_drifted


def test_bad_values_of_one_channel_are_seen_in_the_tiles(copied):
    old = reported(copied)
    tiles = copied.lake.scan(TILES).collect()
    late = (pl.col("tile_start").cast(pl.Int64) >= 1300 * SECOND) & (pl.col("channel") == "oil")
    worse = pl.when(late).then(pl.col("n")).otherwise("n_bad")
    copied.lake.overwrite(TILES, tiles.with_columns(n_bad=worse))
    assert verdicts(old)["oil_bad_share"] == "steady"
    assert verdicts(reported(copied))["oil_bad_share"] == "drifted"


def test_scores_of_the_verified_production_model_are_compared(copied):
    found = reported(copied)
    assert verdicts(found)["log_odds"] == "steady"
    pointer = copied.settings.bundles_dir / "press" / "production.json"
    bundle = copied.bundle_dir("press", json.loads(pointer.read_text())["version"])
    (bundle / "manifest.json").write_text("{}")
    altered = reported(copied)
    assert "log_odds" not in verdicts(altered)
    assert altered.note


def test_only_the_last_pages_are_kept_and_every_json(tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "KEPT_PAGES", 2)
    platform = platform_with(tmp_path)
    for day in range(3):
        reported(platform, f"run-{day}", NOW + timedelta(days=day))
    folder = platform.settings.drift_reports_dir / "press"
    assert [p.name[:8] for p in sorted(folder.glob("*.html"))] == ["20260103", "20260104"]
    assert len(list(folder.glob("*.json"))) == 3


def test_the_job_warns_and_succeeds(tmp_path):
    platform = platform_with(tmp_path, shift=60.0, coverage=0.6)
    done = build_definitions(platform).resolve_job_def("drift").execute_in_process()
    checks = {e.check_name: e for e in done.get_asset_check_evaluations()}
    assert done.success
    # Without a model in production nothing is said of remaining life.
    said = {name: check.passed for name, check in checks.items()}
    assert said == dict.fromkeys(CHECKS, False) | {"remaining_life_covered": True}
    assert {check.severity for check in checks.values()} == {dg.AssetCheckSeverity.WARN}
    assert not any(check.blocking for check in checks.values())
    assert "force_mean_20c" in checks["no_drift"].description
    metadata = done.asset_materializations_for_node("ml__drift_report")[0].metadata
    assert metadata["press_page"].value.startswith("file://")
    assert len(metadata["press_plot"].value) < 100_000


def tick(platform, instance, cursor=None):
    sensor = defs.get_sensor_def("drift_retrain")
    context = dg.build_sensor_context(
        instance, cursor=cursor, resources={"platform": platform}, definitions=defs
    )
    return sensor.evaluate_tick(context)


def test_drift_asks_for_one_new_model_and_then_waits(tmp_path):
    platform = platform_with(tmp_path, shift=60.0)
    job = defs.resolve_job_def("train_and_promote")
    with dg.DagsterInstance.ephemeral() as instance:
        assert not tick(platform, instance).run_requests
        found = reported(platform, "r0")
        first = tick(platform, instance)
        request = first.run_requests[0]
        assert request.run_key == "drift@r0"
        assert dg.validate_run_config(job, request.run_config)

        def on_night(night):
            """The drift goes on, and is reported every night."""
            later = replace(found, run_id=f"r{night}", checked_at=NOW + timedelta(days=night))
            platform.lake.append(DRIFT, drift._rows(later))
            return tick(platform, instance, first.cursor)

        assert not any(on_night(night).run_requests for night in range(1, COOL_DOWN.days))
        again = on_night(COOL_DOWN.days)
        assert [r.run_key for r in again.run_requests] == [f"drift@r{COOL_DOWN.days}"]
        assert not tick(platform, instance, again.cursor).run_requests


def test_a_failed_retraining_is_not_repeated_and_an_unfinished_one_not_doubled(tmp_path):
    platform = platform_with(tmp_path, shift=60.0)
    reported(platform)
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(defs.resolve_job_def("train_and_promote"))
        assert not tick(platform, instance).run_requests
        instance.report_run_failed(run)
        asked = tick(platform, instance)
        assert len(asked.run_requests) == 1
        instance.report_run_failed(
            instance.create_run_for_job(defs.resolve_job_def("train_and_promote"))
        )
        assert not tick(platform, instance, asked.cursor).run_requests


def test_bad_sensors_ask_for_no_new_model(tmp_path):
    platform = platform_with(tmp_path, coverage=0.6)
    reported(platform)
    with dg.DagsterInstance.ephemeral() as instance:
        assert not tick(platform, instance).run_requests


def test_the_cool_down_is_per_class():
    newest = {"a": ("r2", NOW, True), "b": ("r2", NOW, True), "c": ("r2", NOW, False)}
    assert set(due({"a": NOW.isoformat()}, newest)) == {"b"}


def test_retraining_makes_no_drift_report():
    steps = {node.name for node in defs.resolve_job_def("train_and_promote").nodes}
    assert "ml__drift_report" not in steps
