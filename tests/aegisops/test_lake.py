import datetime as dt

import polars as pl
import pytest

from aegisops.errors import Conflict
from aegisops.lake import Lake, conform
from aegisops.schemas.tables import FEATURES, READINGS, TABLES


def readings(first: int, count: int) -> pl.DataFrame:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return pl.DataFrame(
        {
            "machine_id": "m",
            "channel": "power",
            "ts": [start + dt.timedelta(hours=first + count - i) for i in range(count)],
            "value": [float(i) for i in range(count)],
            "quality": 0,
            "seq": 1,
            "_topic": "t",
            "_partition": 0,
            "_offset": list(range(first, first + count)),
            "_index": 0,
            "_ingested_at": start,
        }
    )


def test_a_table_that_was_never_written_reads_as_empty_rows_of_its_schema(tmp_path):
    lake = Lake(tmp_path)
    assert lake.version(READINGS) == -1
    empty = lake.scan(READINGS).collect()
    assert empty.height == 0
    assert empty.columns == list(READINGS.columns)


def test_rows_come_back_as_declared_sorted_and_with_their_date(tmp_path):
    lake = Lake(tmp_path)
    lake.append(READINGS, readings(0, 30))
    back = lake.scan(READINGS).collect()
    assert back.to_arrow().schema.field("ts").type == READINGS.schema.field("ts").type
    assert set(back["date"].unique()) == {dt.date(2026, 1, 1), dt.date(2026, 1, 2)}
    day = back.filter(pl.col("date") == dt.date(2026, 1, 1))
    assert day["ts"].is_sorted()


def test_a_stale_writer_with_the_same_transaction_is_refused(tmp_path):
    lake = Lake(tmp_path)
    one, other = lake.ensure(READINGS), lake.ensure(READINGS)
    lake.append(READINGS, readings(0, 3), {"app": 2}, one)
    with pytest.raises(Conflict):
        lake.append(READINGS, readings(0, 3), {"app": 2}, other)
    assert lake.scan(READINGS).collect().height == 3
    assert lake.open(READINGS).transaction_version("app") == 2


def test_writers_with_other_transactions_do_not_disturb_each_other(tmp_path):
    lake = Lake(tmp_path)
    one, other = lake.ensure(READINGS), lake.ensure(READINGS)
    lake.append(READINGS, readings(0, 3), {"p0": 2}, one)
    lake.append(READINGS, readings(3, 3), {"p1": 5}, other)
    assert lake.scan(READINGS).collect().height == 6


def test_overwrite_with_a_predicate_replaces_only_those_rows(tmp_path):
    lake = Lake(tmp_path)
    rows = pl.DataFrame(
        {
            "machine_id": ["a", "b"],
            "machine_class": ["x", "y"],
            "feature_set": "s",
            "ts": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 2,
            "vector": [[1.0], [2.0]],
            "coverage": 1.0,
        }
    )
    lake.append(FEATURES, rows)
    lake.overwrite(
        FEATURES,
        rows.head(1).with_columns(vector=pl.Series([[9.0]])),
        "machine_class = 'x'",
    )
    back = lake.scan(FEATURES).collect().sort("machine_id")
    assert back["vector"].to_list() == [[9.0], [2.0]]


def test_a_pinned_version_does_not_move(tmp_path):
    lake = Lake(tmp_path)
    version = lake.append(READINGS, readings(0, 3))
    lake.append(READINGS, readings(3, 3))
    assert lake.scan(READINGS, version).collect().height == 3


def test_compaction_changes_files_not_rows(tmp_path):
    lake = Lake(tmp_path)
    for i in range(5):
        lake.append(READINGS, readings(i, 1))
    before = lake.scan(READINGS).collect().sort("_offset")
    lake.compact(READINGS)
    lake.vacuum(READINGS, dt.timedelta(0))
    assert lake.scan(READINGS).collect().sort("_offset").equals(before)
    assert len(lake.open(READINGS).file_uris()) == 1


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"bronze/readings.*value"):
        conform(READINGS, readings(0, 1).drop("value"))


@pytest.mark.parametrize("name", TABLES)
def test_every_declared_table_can_be_created_and_says_what_it_is(tmp_path, name):
    table = TABLES[name]
    handle = Lake(tmp_path).ensure(table)
    assert handle.metadata().description == table.doc
    assert set(table.keys) <= set(table.columns)
    assert set(table.partition_by) | set(table.order) <= set(table.columns)
    assert all(column.doc for column in table.columns.values())


def test_a_lake_may_lie_in_a_folder_with_a_space_in_its_name(tmp_path):
    lake = Lake(tmp_path / "my 100% lake")
    lake.append(READINGS, readings(0, 30))
    assert lake.scan(READINGS).collect().height == 30
    assert lake.scan(READINGS).collect_schema()["ts"] == pl.Datetime("us", "UTC")
