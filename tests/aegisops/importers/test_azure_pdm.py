"""The real Azure PdM tables through their shipped mapping."""

import os
import warnings
from pathlib import Path

import polars as pl
import pytest

from aegisops.importers import append_history, load
from aegisops.lake import Lake
from aegisops.schemas.tables import DEAD_LETTERS, EVENTS, READINGS

REPOSITORY = Path(__file__).parents[3]
DATA = Path(os.environ.get("AEGIS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
HOUR = 3_600_000_000


@pytest.fixture(scope="module")
def azure():
    folder = DATA / "azure_pdm"
    if not folder.is_dir():
        message = f"SKIPPED, REAL DATA IS ABSENT: {folder}; set AEGIS_SHARED_DATA to its parent"
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=1)  # the summary shows it, unlike a skip
        pytest.skip(message)
    return load(folder, machine_class="azure_pdm")


def test_every_value_of_the_tables_comes_out_once(azure):
    assert azure.readings.height == 43_200 * 4 == 172_800
    assert azure.warnings == ()
    counts = azure.readings.group_by("machine_id", "channel").len()
    assert counts["len"].unique().to_list() == [2_160]
    spacing = azure.readings.filter(channel="volt").select(pl.col("ts").diff().over("machine_id"))
    assert spacing.to_series().drop_nulls().unique().to_list() == [HOUR]


def test_the_values_are_the_files_to_the_last_bit(azure):
    telemetry = pl.read_csv(DATA / "azure_pdm" / "PdM_telemetry.csv", try_parse_dates=True)
    wanted = telemetry.unpivot(index=["datetime", "machineID"], variable_name="channel").select(
        machine_id=pl.format("azure-{}", "machineID"),
        channel="channel",
        ts=pl.col("datetime").dt.timestamp("us"),
        value="value",
    )
    found = azure.readings.select(pl.col("machine_id", "channel").cast(pl.String), "ts", "value")
    order = ["machine_id", "channel", "ts"]
    assert found.sort(order).equals(wanted.sort(order))


def test_events_keep_two_components_that_fail_in_one_hour_apart(azure):
    kinds = dict(azure.events.group_by("type").len().iter_rows())
    assert kinds == {"failure": 42, "maintenance": 208, "error": 211}
    failures = azure.events.filter(type="failure")
    assert failures.select("machine_id", "ts").n_unique() == 37
    assert azure.machines.height == 20
    assert azure.attributes()["azure-1"] == {"age": 18.0, "model": "model3"}


def test_bulk_history_has_every_row_and_a_repetition_adds_none(azure, tmp_path):
    lake = Lake(tmp_path)
    added = append_history(lake, azure, now_us=1_800_000_000_000_000)
    assert (added.readings, added.events, added.rejected) == (172_800, 461, 0)
    repeated = append_history(lake, azure, now_us=1_800_000_000_000_000)
    assert (repeated.readings, repeated.events) == (0, 0)
    for table, rows in ((READINGS, 172_800), (EVENTS, 461), (DEAD_LETTERS, 0)):
        assert lake.scan(table).select(pl.len()).collect().item() == rows
