"""Checks made from the declarations: each rule on planted rows, and only on what is new."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from aegisops.lake import Lake, conform
from aegisops.schemas.tables import EVENTS, READINGS, TABLES, TILES, Column
from aegisops_assets import checks, materialize
from aegisops_assets.definitions import build_definitions
from aegisops_assets.steps import examine
from tests.aegisops_assets.conftest import INGESTED, fill, frame, make_platform, press_history

pytestmark = pytest.mark.filterwarnings("default")
NOW = INGESTED + timedelta(minutes=5)


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path)


def readings(day=0, cycles=60, **columns):
    rows, _ = press_history(cycles=cycles)
    return rows.with_columns(
        pl.col("ts") + pl.duration(days=day), _topic=pl.col("_topic") + f"/{day}", **columns
    )


def found(lake, table=READINGS, since=-1, now=NOW):
    version, findings = examine.examine(lake, table, since, now=now)
    assert version == lake.version(table)
    return {f.rule: dict(f.violations) for f in findings}


def test_rows_as_declared_pass_every_rule(lake):
    lake.append(READINGS, readings())
    assert found(lake) == {rule: {} for rule in examine.rules(READINGS)}
    assert list(found(lake)) == checks.names(READINGS)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_an_empty_table_passes(lake, table):
    assert not any(found(lake, table).values())


def test_a_row_that_is_there_twice_is_counted(lake):
    rows = readings()
    lake.append(READINGS, rows)
    lake.append(READINGS, rows.head(3))
    assert found(lake)["keys_unique"] == {"repeated": 3}


def test_a_value_outside_its_declared_range_is_counted_and_read_only_where_it_lies(lake):
    lake.append(READINGS, readings())
    lake.append(READINGS, readings(day=1).with_columns(quality=pl.lit(7)))
    wrong = readings(day=1).height
    assert found(lake)["ranges"] == {"quality": wrong}
    ranges = next(f for f in examine.examine(lake, READINGS)[1] if f.rule == "ranges")
    assert ranges.looked_at == {"files": 2, "read": 1}


def test_a_null_where_none_is_declared_is_counted(lake):
    # The table was made by somebody who allows nulls; our own writer would refuse them.
    rows = conform(READINGS, readings()).to_pandas()
    rows.loc[:4, "channel"] = None
    write_deltalake(lake.uri(READINGS), rows, partition_by=["date"])
    assert found(lake)["no_nulls"] == {"channel": 5}


def test_a_column_of_another_type_and_one_too_many_are_named(lake):
    stranger = replace(
        READINGS,
        columns={**READINGS.columns, "seq": Column(EVENTS.columns["code"].type, "text")}
        | {"colour": Column(EVENTS.columns["code"].type, "nobody declared it")},
    )
    lake.ensure(stranger)
    assert found(lake)["schema"] == {"seq": "string, declared int64", "colour": "not declared"}


def test_values_without_statistics_in_the_log_are_read_instead(lake):
    bare = replace(READINGS, properties={"delta.dataSkippingNumIndexedCols": "0"})
    lake.append(bare, readings(quality=pl.lit(9)))
    assert (
        "min.quality"
        not in DeltaTable(lake.uri(READINGS)).get_add_actions(flatten=True).schema.names
    )
    assert found(lake)["ranges"]["quality"] == readings().height


def test_only_what_is_new_since_the_passed_version_is_looked_at(lake):
    for day in range(3):
        lake.append(READINGS, readings(day))
    good = lake.version(READINGS)
    lake.append(READINGS, readings(day=5))
    looked_at = {f.rule: f.looked_at for f in examine.examine(lake, READINGS, good, now=NOW)[1]}
    assert looked_at["keys_unique"] == {"rows": readings().height, "partitions": 1}
    assert looked_at["ranges"]["files"] == 1


def test_rows_that_stopped_arriving_are_not_fresh(lake):
    lake.append(READINGS, readings())
    assert found(lake, now=INGESTED + timedelta(minutes=59))["fresh"] == {}
    assert found(lake, now=INGESTED + timedelta(hours=2))["fresh"] == {"minutes_old": 120.0}


def test_a_channel_with_many_bad_values_is_named(lake):
    bad = pl.when((pl.col("channel") == "oil") & (pl.col("seq") % 10 == 0)).then(2).otherwise(0)
    lake.append(READINGS, readings(quality=bad))
    assert found(lake)["quality_share"] == {"oil": 0.2}
    assert examine.rules(EVENTS) == examine.TRUSTED


@pytest.mark.slow
def test_a_check_that_failed_looks_again_until_it_passes(tmp_path):
    platform = make_platform(tmp_path)
    fill(platform.lake)
    job = build_definitions(platform).resolve_job_def("check_bronze")

    def outcome(instance):
        done = job.execute_in_process(instance=instance)
        assert done.success
        said = {
            e.check_name: e
            for e in done.get_asset_check_evaluations()
            if e.asset_key == dg.AssetKey(["bronze", "readings"])
        }
        return said["ranges"].passed, said["ranges"].metadata["since_version"].value

    with dg.DagsterInstance.ephemeral() as instance:
        assert outcome(instance) == (True, -1)
        good = platform.lake.version(READINGS)
        assert outcome(instance) == (True, good)
        wrong = frame(
            {"machine_id": "press-0", "channel": "oil", "ts": [1], "value": 1.0, "quality": 9,
             "seq": 1}, "late",
        )  # fmt: skip
        platform.lake.append(READINGS, wrong)
        assert outcome(instance) == (False, good)
        assert outcome(instance) == (False, good)
        platform.lake.overwrite(
            READINGS, platform.lake.scan(READINGS).filter(pl.col("quality") < 3).collect()
        )
        assert outcome(instance)[0]


@pytest.mark.slow
def test_freshness_and_quality_warn_and_stop_nothing(tmp_path):
    platform = make_platform(tmp_path)
    fill(platform.lake)
    tiles_bad = pl.when(pl.col("channel") == "oil").then(2).otherwise(0)
    rows, _ = press_history(first_cycle=1500, cycles=400)
    platform.lake.append(READINGS, rows.with_columns(quality=tiles_bad))
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize.run(platform, "build_features", instance=instance)
    assert result["success"]
    assert "silver/tiles:quality_share" in result["failed_checks"]
    specs = {(s.asset_key.to_user_string(), s.name): s for s in checks.specs(TILES)}
    assert specs["silver/tiles", "ranges"].blocking
    assert not specs["silver/tiles", "quality_share"].blocking
    assert datetime.now(UTC) > NOW
