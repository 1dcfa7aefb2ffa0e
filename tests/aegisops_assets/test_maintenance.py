"""Housekeeping beside live writers: rows stay exact, and what must be rebuildable stays."""

import json
import threading
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest

from aegisops.errors import Conflict
from aegisops.lake import Lake
from aegisops.schemas.tables import EVENTS, FEATURES, LABELS, READINGS, TILES
from aegisops_assets.definitions import build_definitions
from aegisops_assets.ops import KEEP_RUNS, purge
from aegisops_assets.steps import features, maintenance, tiles, training
from aegisops_assets.steps.changes import changes
from tests.aegisops_assets.conftest import (
    MACHINES_COUNT,
    fill,
    make_platform,
    press_history,
    register,
)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
TODAY = date(1970, 1, 3)


def files(platform, table=READINGS):
    return len(platform.lake.open(table).file_uris())


def slices(count, cycles=400):
    readings, _ = press_history(cycles=cycles)
    each = cycles // count
    return [
        readings.filter((pl.col("seq") >= i * each) & (pl.col("seq") < (i + 1) * each))
        for i in range(count)
    ]


def test_small_files_are_merged_and_a_finished_day_is_put_in_order(tmp_path):
    platform = make_platform(tmp_path)
    register(platform.lake)
    for part in slices(20):
        platform.lake.append(READINGS, part)
    before = platform.lake.scan(READINGS).collect().sort(READINGS.keys)
    done = {
        m.table: m for m in maintenance.maintain(platform, today=date(1970, 1, 1), vacuum=False)
    }
    assert done[READINGS.name].merged == 20
    assert done[READINGS.name].clustered == 0  # today is not finished
    for part in slices(20):
        platform.lake.append(READINGS, part.with_columns(pl.col("ts") + pl.duration(days=1)))
    done = {m.table: m for m in maintenance.maintain(platform, today=date(1970, 1, 2))}
    assert files(platform) < 4
    kept = platform.lake.scan(READINGS).filter(pl.col("date") == date(1970, 1, 1)).collect()
    assert kept.sort(READINGS.keys).equals(before)


def test_maintenance_beside_a_live_writer_loses_and_doubles_nothing(tmp_path):
    """The writer commits with its position, as the lake writer does, while files are rewritten."""
    platform = make_platform(tmp_path)
    register(platform.lake)
    parts = slices(40)
    over = threading.Event()
    failed: list[Exception] = []

    def write():
        lake = Lake(platform.lake.root)
        try:
            for position, part in enumerate(parts):
                handle = lake.ensure(READINGS)
                lake.append(READINGS, part, {"writer": position}, handle)
        except Exception as error:  # noqa: BLE001 - handed to the test
            failed.append(error)
        finally:
            over.set()

    writer = threading.Thread(target=write)
    writer.start()
    rounds = 0
    while not over.is_set():
        if platform.lake.exists(READINGS):
            maintenance.maintain(platform, today=TODAY)
            rounds += 1
    writer.join()
    assert not failed
    assert rounds >= 2
    assert platform.lake.open(READINGS).transaction_version("writer") == len(parts) - 1
    maintenance.maintain(platform, today=TODAY)
    rows = platform.lake.scan(READINGS).collect().sort(READINGS.keys)
    expected = pl.concat(parts)
    assert rows.height == expected.height == rows.n_unique(READINGS.keys)
    assert rows["value"].sum() == pytest.approx(expected["value"].sum())
    assert files(platform) < len(parts) / 2


def test_merged_files_are_no_news_but_rows_that_came_with_them_are(tmp_path):
    platform = make_platform(tmp_path)
    register(platform.lake)
    lake = platform.lake
    for part in slices(20):
        lake.append(READINGS, part)
    tiles.build(platform)
    processed = lake.version(READINGS)
    maintenance.maintain(platform, today=TODAY)
    assert lake.version(READINGS) > processed
    assert changes(lake, READINGS, processed).days == frozenset()
    assert tiles.build(platform).days == ()
    second = [p.with_columns(pl.col("ts") + pl.duration(days=1)) for p in slices(20)]
    for part in second:
        lake.append(READINGS, part)
    maintenance.maintain(platform, today=TODAY)  # merged before anybody processed them
    assert tiles.build(platform).days == (date(1970, 1, 2),)


def test_a_step_that_loses_against_another_writer_computes_again(tmp_path, monkeypatch):
    platform = make_platform(tmp_path)
    fill(platform.lake)
    whole, lost = Lake.overwrite, []

    def lose_once(self, table, *args, **options):
        if table is TILES and not lost:
            lost.append(table)
            raise Conflict("silver/tiles: another writer committed first")
        return whole(self, table, *args, **options)

    monkeypatch.setattr(Lake, "overwrite", lose_once)
    assert tiles.build(platform).rows > 0
    assert lost
    assert platform.lake.scan(TILES).collect().height > 0


def test_a_training_set_can_be_rebuilt_after_everything_old_is_deleted(copied, monkeypatch):
    bundle = next(copied.settings.bundles_dir.glob("press/*/bundle/manifest.json"))
    versions = json.loads(bundle.read_text())["data_versions"]
    lake = copied.lake
    then = {t: lake.scan(t, versions[t.name]).collect().sort(t.keys) for t in (FEATURES, LABELS)}
    readings, events = press_history(first_cycle=1500, cycles=600)
    lake.append(READINGS, readings)
    lake.append(EVENTS, events)
    tiles.build(copied)
    features.build(copied, full=True)
    monkeypatch.setattr(maintenance, "KEEP", timedelta(0))
    done = {m.table: m for m in maintenance.maintain(copied, today=TODAY)}
    assert done[TILES.name].deleted > 0  # nobody trains on tiles
    assert done[FEATURES.name].kept_versions > 0
    assert lake.scan(FEATURES).collect().height > then[FEATURES].height
    for table, rows in then.items():
        again = lake.scan(table, versions[table.name]).collect().sort(table.keys)
        assert again.equals(rows, null_equal=True)
    assert training.train(copied)[0].digest


def test_the_job_says_what_it_did(tmp_path):
    platform = make_platform(tmp_path)
    register(platform.lake)
    for part in slices(20):
        platform.lake.append(READINGS, part)
    done = build_definitions(platform).resolve_job_def("maintenance").execute_in_process()
    assert done.success
    metadata = done.asset_materializations_for_node("ops__maintenance")[0].metadata
    assert metadata["files_merged"].value >= 20
    assert {r.data["table"] for r in metadata["tables"].records} >= {READINGS.name}
    assert MACHINES_COUNT


def test_old_runs_are_deleted_but_for_the_last_of_each_asset(tmp_path):
    platform = make_platform(tmp_path)
    register(platform.lake)
    job = build_definitions(platform).resolve_job_def("maintenance")
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(3):
            assert job.execute_in_process(instance=instance).success
        assert purge(instance, datetime.now(UTC) - KEEP_RUNS) == 0
        assert purge(instance, datetime.now(UTC) + timedelta(seconds=1)) == 2
        assert instance.get_runs_count() == 1
        assert instance.get_latest_materialization_event(dg.AssetKey(["ops", "maintenance"]))
