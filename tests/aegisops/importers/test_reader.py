import json
from textwrap import dedent

import polars as pl
import pytest

from aegisops.errors import BadInput, ConfigurationError
from aegisops.importers import load
from tests.aegisops.importers import import_files
from tests.aegisops.importers.import_files import folder

HOUR = 3_600_000_000
START = 1_767_225_600_000_000  # 2026-01-01T00:00Z


def rows(imported):
    return imported.readings.cast({"machine_id": pl.String, "channel": pl.String}).rows()


def refused(path, error, *words):
    with pytest.raises(error) as caught:
        load(path)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def mapping(old, new):
    assert old in import_files.MAPPING
    return import_files.MAPPING.replace(old, new)


def test_a_wide_table_becomes_readings_in_the_classs_units(tmp_path):
    imported = load(folder(tmp_path))
    assert rows(imported) == [
        ("A", "pressure", START, 3.5, 0),
        ("A", "temperature", START, pytest.approx(100.0), 0),
        ("A", "pressure", START + HOUR, 3.25, 0),
        ("A", "temperature", START + HOUR, pytest.approx(0.0), 0),
        ("B", "temperature", START, pytest.approx(10.0), 0),
    ]
    assert imported.events.rows() == [("A", START + HOUR * 3 // 2, "failure", "seal", "")]
    assert imported.attributes() == {
        "A": {"age": 3.0, "model": "small"},
        "B": {"age": 7.5, "model": "large"},
    }
    assert imported.machines["site"].to_list() == ["north", "north"]


def test_a_missing_value_is_no_reading_and_is_told_with_its_line(tmp_path):
    imported = load(folder(tmp_path))
    assert any("readings.csv line 4, column 'p': 1 of 3" in w for w in imported.warnings)


def test_the_machine_class_given_by_path_wins_over_the_mappings(tmp_path):
    path = folder(tmp_path)
    other = import_files.CLASS.replace('name = "pump"', 'name = "pump2"')
    (path / "other.toml").write_text(other)
    assert load(path, path / "mapping.toml", path / "other.toml").machine_class.name == "pump2"


def test_a_wrong_column_names_file_line_and_field_and_the_nearest_name(tmp_path):
    refused(
        folder(tmp_path, mapping=mapping('column = "temp_f"', 'column = "tmp_f"')),
        ConfigurationError,
        "readings.csv line 1",
        "'tmp_f'",
        "channels.temperature",
        "did you mean 'temp_f'",
    )


def test_a_wrong_channel_suggests_the_classs(tmp_path):
    refused(
        folder(tmp_path, mapping=mapping("temperature = {", "temperatur = {")),
        ConfigurationError,
        "readings.0.channels.temperatur",
        "did you mean 'temperature'",
    )


@pytest.mark.parametrize(
    ("unit", "word"),
    [("kW", "is a power"), ("degX", "not a known unit"), ("bar", "is a pressure")],
)
def test_a_unit_that_cannot_be_converted_is_refused(tmp_path, unit, word):
    path = folder(tmp_path, mapping=mapping('unit = "degF"', f'unit = "{unit}"'))
    refused(path, ConfigurationError, "channels.temperature.unit", word, "°C")


def test_a_value_that_is_no_number_names_its_line_and_how_many_more(tmp_path):
    readings = import_files.READINGS.replace("32,3.25", "ERR,3.25").replace("50,", "x,")
    refused(
        folder(tmp_path, readings=readings),
        BadInput,
        "readings.csv line 3, column 'temp_f'",
        "'ERR' is not a number (and 1 more",
    )


def test_lines_are_counted_through_quoted_line_breaks_and_blank_lines(tmp_path):
    readings = 'when,pump,temp_f,p,note\n2026-01-01,A,1,1,"two\nlines"\n\n2026-01-02,A,oops,1,\n'
    refused(folder(tmp_path, readings=readings), BadInput, "readings.csv line 5")


def test_an_infinite_value_is_refused(tmp_path):
    readings = import_files.READINGS.replace("32,3.25", "1e999,3.25")
    refused(folder(tmp_path, readings=readings), BadInput, "line 3", "is not finite")


def test_an_unreadable_time_names_its_line(tmp_path):
    readings = import_files.READINGS.replace("2026-01-01 01:00", "01/01/2026 01:00")
    refused(folder(tmp_path, readings=readings), BadInput, "line 3, column 'when'", "clock.format")


def test_times_without_an_offset_need_a_zone(tmp_path):
    path = folder(tmp_path, mapping=mapping('timezone = "UTC"\n', ""))
    refused(path, ConfigurationError, "carry no offset", "timezone")


def test_local_times_are_converted_and_the_doubled_hour_is_refused(tmp_path):
    berlin = mapping('timezone = "UTC"', 'timezone = "Europe/Berlin"')
    first = load(folder(tmp_path / "a", mapping=berlin)).readings["ts"].min()
    assert first == START - HOUR
    readings = "when,pump,temp_f,p\n2025-10-26 02:30,A,1,1\n"
    path = folder(tmp_path / "b", mapping=berlin, readings=readings)
    refused(path, BadInput, "line 2", "exists twice in Europe/Berlin", "ambiguous")


@pytest.mark.parametrize(
    ("clock", "text"),
    [
        ("", "2026-01-01T00:00:00Z"),
        ("", "2026-01-01 01:00:00.000+01:00"),
        ("", "2026-01-01T05:30+0530"),
        ('format = "unix_s"', "1767225600"),
        ('format = "unix_ms"', "1767225600000"),
        ('format = "unix_us"', "1767225600000000"),
        ('timezone = "UTC"\nformat = "%d.%m.%Y %H:%M"', "01.01.2026 00:00"),
        ('format = "%d.%m.%Y %H:%M %z"', "01.01.2026 01:00 +0100"),
        ('timezone = "UTC"', "2026-01-01"),
    ],
)
def test_every_way_to_write_a_time_means_the_same(tmp_path, clock, text):
    readings = f"when,pump,temp_f,p\n{text},A,1,1\n"
    path = folder(tmp_path, mapping=mapping('timezone = "UTC"', clock), readings=readings,
                  failures="when,pump,mode\n")  # fmt: skip
    assert load(path).readings["ts"].to_list() == [START, START]


def test_a_machine_that_the_machines_file_lacks_is_refused(tmp_path):
    readings = import_files.READINGS + "2026-01-01 02:00,C,1,1\n"
    refused(folder(tmp_path, readings=readings), BadInput, "readings.csv line 5", "'C' is not in")


def test_an_event_of_an_unknown_machine_is_refused(tmp_path):
    failures = import_files.FAILURES + "2026-01-01 02:00,Z,seal\n"
    refused(folder(tmp_path, failures=failures), BadInput, "failures.csv line 3", "'Z'")


def test_a_row_without_a_machine_is_refused(tmp_path):
    readings = import_files.READINGS.replace("01:00,A,", "01:00, ,")
    refused(folder(tmp_path, readings=readings), BadInput, "line 3", "machine id is missing")


def test_a_value_twice_is_refused_with_both_lines_unless_the_mapping_chooses(tmp_path):
    readings = import_files.READINGS + "2026-01-01 01:00,A,50,9\n"
    path = folder(tmp_path / "a", readings=readings)
    refused(path, BadInput, "readings.csv line 5", "already in readings.csv line 3")
    for choice, kept in (("first", 3.25), ("last", 9.0)):
        chosen = mapping('site = "north"', f'duplicates = "{choice}"')
        imported = load(folder(tmp_path / choice, readings=readings, mapping=chosen))
        pressure = [r[3] for r in rows(imported) if r[:3] == ("A", "pressure", START + HOUR)]
        assert pressure == [kept]


def test_two_failures_in_one_hour_are_two_events_and_one_twice_is_refused(tmp_path):
    two = import_files.FAILURES + "2026-01-01T01:30:00,A,motor\n"
    imported = load(folder(tmp_path / "a", failures=two))
    assert imported.events["code"].to_list() == ["motor", "seal"]
    assert any("'motor' is not a failure mode" in w for w in imported.warnings)
    again = import_files.FAILURES + "2026-01-01T01:30:00,A,seal\n"
    refused(folder(tmp_path / "b", failures=again), BadInput, "failures.csv line 3", "line 2")


def test_an_attribute_outside_the_classs_values_is_refused(tmp_path):
    pumps = import_files.PUMPS.replace("large", "larg")
    refused(folder(tmp_path, pumps=pumps), BadInput, "pumps.csv line 3", "did you mean 'large'")


def test_a_machine_listed_twice_is_refused(tmp_path):
    pumps = import_files.PUMPS + "A,4,small\n"
    refused(folder(tmp_path, pumps=pumps), BadInput, "pumps.csv line 4", "line 2")


def test_a_row_with_too_many_fields_names_its_line(tmp_path):
    readings = import_files.READINGS + "2026-01-01 05:00,A,1,2,3\n"
    refused(folder(tmp_path, readings=readings), BadInput, "line 5", "5 fields", "has 4")


def test_text_in_another_encoding_is_refused_or_read_as_declared(tmp_path):
    path = folder(tmp_path)
    text = import_files.READINGS.replace("A,", "Ä,")
    (path / "readings.csv").write_bytes(text.encode("latin-1"))
    (path / "pumps.csv").write_bytes(import_files.PUMPS.replace("A,", "Ä,").encode("latin-1"))
    (path / "failures.csv").write_text("when,pump,mode\n")
    refused(path, BadInput, "pumps.csv line 2", "latin-1")
    declared = mapping('files = "readings.csv"', 'files = "readings.csv"\nencoding = "latin-1"')
    declared = declared.replace('files = "pumps.csv"', 'files = "pumps.csv"\nencoding = "latin-1"')
    (path / "mapping.toml").write_text(declared)
    assert load(path).machines["machine_id"].to_list() == ["B", "Ä"]


def test_an_absent_file_lists_what_is_there(tmp_path):
    path = folder(tmp_path, mapping=mapping('"readings.csv"', '"reading.csv"'))
    refused(path, ConfigurationError, "no file 'reading.csv'", "did you mean 'readings.csv'")


def test_a_folder_without_a_mapping_says_so(tmp_path):
    refused(tmp_path, ConfigurationError, "mapping.toml")
    refused(tmp_path / "nowhere", ConfigurationError, "no such folder")


LONG = """
name = "historian"
machine_class = "pump.toml"
missing = ["", "-"]
[machine]
file_name = "^(.+)\\\\.parquet$"
format = "pump-{:0>2}"
[clock]
time = "at"
[[readings]]
files = "*.parquet"
channel_column = "tag"
value_column = "v"
quality = { column = "status", bad = ["Bad"] }
[readings.channels]
temperature = { tag = "TI-1", unit = "°C" }
pressure = { tag = "PI-1", unit = "kPa" }
"""


def historian(path, **values):
    table = {
        "at": pl.Series([START, START, START + 1, START]).cast(pl.Datetime("us", "UTC")),
        "tag": ["TI-1", "PI-1", "TI-1", "XI-9"],
        "v": [20.0, 350.0, None, 1.0],
        "status": ["Good", "Good", "Bad", "Good"],
    } | values
    path = folder(path, mapping=LONG)
    pl.DataFrame(table).write_parquet(path / "7.parquet")
    return path


def test_a_long_parquet_table_with_quality_and_a_machine_per_file(tmp_path):
    imported = load(historian(tmp_path))
    assert rows(imported) == [
        ("pump-07", "pressure", START, 3.5, 0),
        ("pump-07", "temperature", START, 20.0, 0),
        ("pump-07", "temperature", START + 1, None, 2),
    ]
    assert "7.parquet: 1 rows of tags that are not mapped, left out" in imported.warnings


def test_a_tag_that_never_comes_is_refused_with_the_nearest(tmp_path):
    path = historian(tmp_path, tag=["TI_1", "PI-1", "TI_1", "XI-9"])
    refused(path, ConfigurationError, "7.parquet", "'TI-1'", "did you mean 'TI_1'")


def test_an_unknown_word_of_quality_is_refused(tmp_path):
    path = historian(tmp_path, status=["Good", "Godo", "Bad", "Good"])
    refused(path, BadInput, "7.parquet row 2", "'Godo' is not a known quality", "'Good'")


def test_a_constant_machine_decimal_commas_and_semicolons(tmp_path):
    declared = dedent("""
        name = "one"
        machine_class = "pump.toml"
        [machine]
        constant = "pump-1"
        [clock]
        time = "zeit"
        format = "%d.%m.%Y %H:%M"
        timezone = "Europe/Berlin"
        [[readings]]
        files = "readings.csv"
        separator = ";"
        decimal = ","
        [readings.channels]
        pressure = { column = "druck", unit = "mbar" }
    """)
    readings = "zeit;druck\n01.01.2026 01:00;3500,5\n"
    imported = load(folder(tmp_path, mapping=declared, readings=readings))
    assert rows(imported) == [("pump-1", "pressure", START, pytest.approx(3.5005), 0)]
    assert json.loads(imported.machines["attributes"][0]) == {}


def test_events_from_a_flag_column_of_the_readings(tmp_path):
    declared = mapping(
        'files = "failures.csv"\ntype = "failure"\ncode_column = "mode"',
        'files = "readings.csv"\ntype = "failure"\ncode = "seal"\n'
        'when = { column = "broken", values = "1" }',
    )
    readings = "when,pump,temp_f,p,broken\n2026-01-01,A,1,1,0\n2026-01-02,A,1,1,1\n"
    imported = load(folder(tmp_path, mapping=declared, readings=readings))
    assert imported.events.rows() == [("A", START + 24 * HOUR, "failure", "seal", "")]


def test_values_that_look_like_another_unit_are_told(tmp_path):
    path = folder(tmp_path, mapping=mapping('"p", unit = "bar"', '"p", unit = "MPa"'))
    readings = import_files.READINGS.replace("3.5", "350").replace("3.25", "325")
    (path / "readings.csv").write_text(readings)
    assert any("is the unit 'MPa' right?" in warning for warning in load(path).warnings)
