import json
from datetime import date, timedelta

import dagster as dg
import polars as pl
import pytest

from aegisops.schemas.tables import FEATURES, LABELS, MACHINES, READINGS, TILES
from aegisops_assets.definitions import defs
from aegisops_assets.steps import features, labels, promotion, tiles, training, validation
from tests.aegisops_assets.conftest import (
    INGESTED,
    PRESS,
    fill,
    frame,
    make_platform,
    press_history,
    register,
)

pytestmark = [
    pytest.mark.slow,
    # Third parties warn while they are imported and while MLflow makes its database.
    pytest.mark.filterwarnings("default"),
]
HOUR = 3_600_000_000


def build(platform, **options):
    tiles.build(platform, **options)
    features.build(platform, **options)


def tables(platform):
    return [platform.lake.scan(t).collect().sort(t.keys) for t in (TILES, FEATURES)]


def assert_a_full_build_changes_nothing(platform):
    before = tables(platform)
    build(platform, full=True)
    for one, other in zip(before, tables(platform), strict=True):
        assert one.height
        assert one.equals(other, null_equal=True)


def registration(machine_id, machine_class="press", tonnage=400):
    return pl.DataFrame(
        {
            "machine_id": [machine_id],
            "machine_class": machine_class,
            "site": "north",
            "area": "stamping",
            "attributes": json.dumps({"tonnage": tonnage}),
            "registered_at": INGESTED,
        }
    )


@pytest.fixture
def built(tmp_path):
    platform = make_platform(tmp_path)
    register(platform.lake)
    readings, _ = press_history(cycles=200)
    platform.lake.append(READINGS, readings)
    build(platform)
    return platform


def test_readings_from_before_the_registration_of_their_machine_become_features(built):
    readings, _ = press_history(cycles=200)
    early = readings.filter(pl.col("machine_id") == "press-0")
    built.lake.append(READINGS, early.with_columns(machine_id=pl.lit("late")))
    build(built)
    assert "late" not in set(tables(built)[0]["machine_id"])
    built.lake.append(MACHINES, registration("late"))
    build(built)
    assert all("late" in set(table["machine_id"]) for table in tables(built))
    assert_a_full_build_changes_nothing(built)


def test_a_changed_attribute_reaches_every_vector_of_its_machine(built):
    newer = registration("press-1", tonnage=630).with_columns(
        pl.col("registered_at") + pl.duration(days=1)
    )
    built.lake.append(MACHINES, newer)
    build(built)
    last = pl.col("vector").list.last()
    vectors = tables(built)[1].filter(pl.col("machine_id") == "press-1").select(last).to_series()
    assert set(vectors) == {630.0}


def test_an_edited_class_leaves_no_tile_of_the_old_length(built):
    path = built.settings.classes_dir / "press.toml"
    path.write_text(
        PRESS.replace('20c = "5c"', '20c = "2c"').replace('100c = "10c"', '100c = "2c"')
    )
    build(built)
    assert set(tables(built)[0]["tile_us"]) == {2_000_000}
    assert_a_full_build_changes_nothing(built)


def test_a_tile_that_spans_midnight_keeps_the_readings_of_both_days(tmp_path):
    platform = make_platform(tmp_path)
    oven = PRESS.replace('"press"', '"oven"').replace('clock = "cycles"', 'clock = "time"')
    for old, new in {
        '20c = "5c"\n100c = "10c"': '7h = "7h"\n14h = "7h"', "_20c": "_7h", "_100c": "_14h",
        '"10c"': '"7h"', '"40c"': '"24h"', '"100c"': '"24h"', '"1c"': '"1h"', '"2c"': '"1h"',
    }.items():  # fmt: skip
        oven = oven.replace(old, new)
    (platform.settings.classes_dir / "oven.toml").write_text(oven)
    platform.lake.append(MACHINES, registration("oven-1", "oven"))
    for day in range(3):
        hours = range(24 * day, 24 * day + 24)
        columns = {
            "machine_id": "oven-1", "channel": "force", "quality": 0,
            "ts": [h * HOUR for h in hours], "value": [float(h % 5) for h in hours], "seq": hours,
        }  # fmt: skip
        platform.lake.append(READINGS, frame(columns, "oven", 24 * day))
        build(platform)
    assert tables(platform)[0]["n"].sum() == 72
    assert_a_full_build_changes_nothing(platform)


def test_days_that_are_asked_for_are_made_again_and_what_is_new_stays_new(tmp_path):
    platform = make_platform(tmp_path)
    register(platform.lake)
    readings, _ = press_history(cycles=200)
    for day in range(3):
        platform.lake.append(READINGS, readings.with_columns(pl.col("ts") + pl.duration(days=day)))
    build(platform)
    before = tables(platform)
    first = date(1970, 1, 1)
    for day in (1, 2):  # somebody spoiled two days; one of them is repaired
        spoiled = before[0].filter(pl.col("date") == first + timedelta(days=day))
        platform.lake.overwrite(
            TILES, spoiled.with_columns(mean=0.0), f"date = '{first + timedelta(days=day)}'"
        )
    platform.lake.append(READINGS, readings.with_columns(pl.col("ts") + pl.duration(days=3)))
    second = first + timedelta(days=1)
    assert tiles.build(platform, days=(second, second)).days == (second,)
    good = set(tables(platform)[0].filter(pl.col("mean") != 0)["date"])
    assert good == {first, second}
    build(platform)
    assert max(tables(platform)[0]["date"]) == first + timedelta(days=3)
    tiles.build(platform, days=(first, first + timedelta(days=9)))
    features.build(platform)
    assert_a_full_build_changes_nothing(platform)


def test_a_class_without_failures_does_not_stop_the_others(tmp_path):
    platform = make_platform(tmp_path)
    fill(platform.lake)
    sound = PRESS.replace('name = "press"', 'name = "anvil"')
    (platform.settings.classes_dir / "anvil.toml").write_text(sound)
    platform.lake.append(MACHINES, registration("anvil-1", "anvil"))
    readings, _ = press_history(cycles=200)
    one = readings.filter(pl.col("machine_id") == "press-0")
    platform.lake.append(READINGS, one.with_columns(machine_id=pl.lit("anvil-1")))
    build(platform)
    labels.build(platform)
    made = {s.machine_class: s for s in training.build_set(platform)}
    assert "no failure is known" in made["anvil"].skipped
    assert made["press"].folds["train"]["positive"] > 0


def test_training_again_while_bronze_moves_on_finds_the_same_model(copied):
    before = training.train(copied)[0]
    readings, _ = press_history(first_cycle=1500, cycles=400)
    copied.lake.append(READINGS, readings)
    again = training.train(copied)[0]
    assert again.digest == before.digest


def test_a_bundle_names_the_versions_its_rows_were_made_from(copied):
    made_from = {t.name: copied.lake.version(t) for t in (READINGS, FEATURES, LABELS)}
    readings, _ = press_history(first_cycle=1500, cycles=400)
    copied.lake.append(READINGS, readings)
    manifest = json.loads((training.train(copied)[0].bundle / "manifest.json").read_text())
    assert made_from.items() <= manifest["data_versions"].items()


@pytest.mark.parametrize("checks", ["all passed", "none"])
def test_promotion_believes_its_own_examination_not_the_evidence_file(copied, monkeypatch, checks):
    bundle = training.train(copied)[0].bundle
    evidence = bundle.with_name(validation.EVIDENCE)
    content = json.loads(evidence.read_text())
    if checks == "none":
        content["checks"] = []
    evidence.write_text(json.dumps(content))
    (copied.settings.bundles_dir / "press" / promotion.POINTER).unlink()
    # The stored checks passed under a lax bound; the candidate does not meet this one.
    monkeypatch.setattr(validation, "WORST_CALIBRATION_ERROR", -1.0)
    decision = promotion.promote(copied, decided_by="test")[0]
    assert not decision.promoted
    assert "calibration" in decision.reason


def test_no_second_run_is_asked_for_while_one_is_unfinished(tmp_path):
    platform = make_platform(tmp_path)
    fill(platform.lake)
    sensor = defs.get_sensor_def("bronze_changes")
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(defs.resolve_job_def("build_features"))
        context = dg.build_sensor_context(
            instance, resources={"platform": platform}, definitions=defs
        )
        assert not sensor.evaluate_tick(context).run_requests
        instance.report_run_failed(run)
        assert sensor.evaluate_tick(context).run_requests
