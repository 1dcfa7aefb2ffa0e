import polars as pl
import pytest

from aegisops.errors import ConfigurationError
from aegisops.importers import append_history, load, register
from aegisops.importers.bulk import digest
from aegisops.lake import Lake
from aegisops.schemas.tables import DEAD_LETTERS, EVENTS, MACHINES, READINGS
from tests.aegisops.importers import import_files
from tests.aegisops.importers.import_files import folder

NOW = 1_800_000_000_000_000


def count(lake, table):
    return lake.scan(table).select(pl.len()).collect().item()


def test_history_lands_as_it_would_from_kafka_and_only_once(tmp_path):
    imported, lake = load(folder(tmp_path / "in")), Lake(tmp_path / "lake")
    first = append_history(lake, imported, NOW)
    assert (first.machines, first.readings, first.events, first.rejected) == (2, 5, 1, 0)
    again = append_history(lake, load(tmp_path / "in"), NOW + 1)
    assert (again.machines, again.readings, again.events, again.rejected) == (0, 0, 0, 0)
    stored = lake.scan(READINGS).collect()
    assert stored["_topic"].unique().to_list() == ["import/pumps"]
    assert stored.select("_topic", "_partition", "_offset", "_index").is_unique().all()
    merged = stored.select("machine_id", "channel", pl.col("ts").cast(pl.Int64), "value")
    wanted = imported.readings.select(
        pl.col("machine_id", "channel").cast(pl.String), "ts", "value"
    )
    order = ["machine_id", "channel", "ts"]
    assert merged.sort(order).equals(wanted.sort(order))
    assert count(lake, EVENTS) == 1
    assert count(lake, MACHINES) == 2


def test_an_import_that_stopped_between_commits_goes_on_where_it_stopped(tmp_path):
    imported, lake = load(folder(tmp_path / "in")), Lake(tmp_path / "lake")

    class StopError(Exception):
        pass

    def stop(_what, done, _total):
        if done == 1:
            raise StopError

    with pytest.raises(StopError):
        append_history(lake, imported, NOW, stop, messages_per_commit=1)
    assert 0 < count(lake, READINGS) < 5
    rest = append_history(lake, imported, NOW, messages_per_commit=1)
    assert count(lake, READINGS) == 5
    assert 0 < rest.readings < 5


def test_values_outside_the_limits_are_quarantined_with_the_reason(tmp_path):
    readings = import_files.READINGS.replace("3.25", "999")
    imported = load(folder(tmp_path / "in", readings=readings))
    lake = Lake(tmp_path / "lake")
    added = append_history(lake, imported, NOW)
    assert (added.readings, added.rejected) == (4, 1)
    (letter,) = lake.scan(DEAD_LETTERS).collect().to_dicts()
    assert (letter["reason"], letter["channel"]) == ("out_of_range", "pressure")
    assert b"999" in letter["raw"]


def test_readings_that_are_already_there_are_refused(tmp_path):
    lake = Lake(tmp_path / "lake")
    append_history(lake, load(folder(tmp_path / "a")), NOW)
    renamed = import_files.MAPPING.replace('name = "pumps"', 'name = "other"')
    again = load(folder(tmp_path / "b", mapping=renamed))
    with pytest.raises(ConfigurationError, match="already holds 5 readings"):
        append_history(lake, again, NOW)
    apart = renamed.replace('column = "pump"', 'column = "pump"\nformat = "b-{}"')
    append_history(lake, load(folder(tmp_path / "c", mapping=apart)), NOW)
    assert count(lake, READINGS) == 10


def test_equal_content_has_one_digest_and_a_changed_value_another(tmp_path):
    one, two = load(folder(tmp_path / "a")), load(folder(tmp_path / "b"))
    assert digest(one) == digest(two)
    changed = import_files.READINGS.replace("3.25", "3.26")
    assert digest(one) != digest(load(folder(tmp_path / "c", readings=changed)))


def test_registering_replaces_what_changed_and_keeps_one_row_a_machine(tmp_path):
    lake = Lake(tmp_path / "lake")
    machines = load(folder(tmp_path / "in")).machines
    assert register(lake, machines, NOW) == 2
    assert register(lake, machines, NOW + 1) == 0
    moved = machines.with_columns(
        area=pl.when(pl.col("machine_id") == "B").then(pl.lit("O'Hall")).otherwise("area")
    )
    assert register(lake, moved, NOW + 2) == 1
    stored = lake.scan(MACHINES).sort("machine_id").collect()
    assert stored["area"].to_list() == ["", "O'Hall"]
