"""Whatever the files and the mapping contain, only our own errors come out."""

import string
import tempfile
import tomllib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops.errors import AegisError, BadInput, ConfigurationError
from aegisops.importers import load, load_mapping
from aegisops.importers.mapping import Mapping, parse_mapping
from tests.aegisops.importers import import_files
from tests.aegisops.importers.import_files import folder

WORDS = st.one_of(
    st.sampled_from(
        ["when", "pump", "temp_f", "p", "mode", "A", "B", "1", "", "NaN", "2026-01-01", "1e400",
         "-0", '"', "\n", ";", "seal", "12:00", "\ufeff", "\x00", "9" * 30, "2026-13-45 99:99"]
    ),
    st.text(max_size=8),
)  # fmt: skip
TABLES = st.lists(st.lists(WORDS, max_size=6), max_size=6).map(
    lambda table: "\n".join(",".join(row) for row in table)
)


@settings(max_examples=60, deadline=None)
@given(readings=st.one_of(TABLES.map(str.encode), st.binary(max_size=80)), keep=st.booleans())
def test_arbitrary_files_load_or_are_refused_by_us(readings, keep):
    with tempfile.TemporaryDirectory() as name:
        path = folder(Path(name))
        head = b"when,pump,temp_f,p\n" if keep else b""
        (path / "readings.csv").write_bytes(head + readings)
        try:
            imported = load(path)
        except (BadInput, ConfigurationError):
            return
        assert imported.readings["value"].is_finite().all()
        assert imported.readings.select("machine_id", "channel", "ts").is_unique().all()


SCALARS = st.one_of(
    st.text(max_size=6), st.integers(-5, 5), st.booleans(), st.none(), st.floats(), WORDS
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from([*Mapping.model_fields, "files", "channels", "unit", "time", "column",
                             "cycles", "format", "timezone", "constant", "type", "at", "x"]),
            inner, max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


def _paths(tree, prefix=()):
    yield prefix
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from _paths(value, (*prefix, key))
        else:
            yield (*prefix, key)


VALID = tomllib.loads(import_files.MAPPING)


@settings(max_examples=150, deadline=None)
@given(where=st.sampled_from([p for p in _paths(VALID) if p]), what=DOCUMENTS)
def test_a_valid_mapping_with_any_part_replaced_loads_or_is_refused_by_us(where, what):
    changed = tomllib.loads(import_files.MAPPING)
    at = changed
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = what
    with tempfile.TemporaryDirectory() as name:
        path = folder(Path(name))
        try:
            mapping = Mapping.model_validate(changed)
        except ValueError:
            return
        try:
            load(path, mapping, path / "pump.toml")
        except (BadInput, ConfigurationError):
            return


@settings(max_examples=100, deadline=None)
@given(text=st.one_of(st.text(max_size=60), st.text(string.printable, max_size=60)))
def test_arbitrary_text_is_no_mapping(text):
    with pytest.raises(ConfigurationError, match=r"own\.toml"):
        parse_mapping(text, Path("own.toml"))


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('column = "pump"', 'columm = "pump"', "machine.columm"),
        ('column = "pump"', "", "exactly one of column, constant, file_name"),
        ('column = "pump"', 'file_name = "("', "not a regular expression"),
        ('column = "pump"', 'column = "pump"\nformat = "press"', "must contain {}"),
        ('time = "when"', 'time = "when"\ncycles = "n"', "exactly one of time"),
        ('timezone = "UTC"', 'timezone = "Mars/Olympus"', "not an IANA time zone"),
        ('timezone = "UTC"', 'format = "soon"', "not iso, unix_s"),
        ('files = "readings.csv"', 'files = "../secret.csv"', "inside the folder"),
        ('files = "readings.csv"', 'files = "r.csv"\nencoding = "utf-99"', "text encoding"),
        ('column = "temp_f"', 'tag = "temp_f"', "tag needs a long table"),
        ('"temp_f"', '"p"', "source of two channels"),
        ('type = "failure"', 'type = "explosion"', "events.0.type"),
        ('type = "failure"', "", "exactly one of type and type_column"),
        ('files = "failures.csv"', 'at = "end_of_readings"', "reads no rows"),
        ('name = "pumps"', 'name = "a/b"', "name"),
        ("[[readings]]", "[[reading]]", "reading"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_the_file(tmp_path, old, new, word):
    assert old in import_files.MAPPING
    path = folder(tmp_path, mapping=import_files.MAPPING.replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        load_mapping(path / "mapping.toml")
    assert "mapping.toml" in str(caught.value)
    assert word in str(caught.value)


def test_an_unknown_shipped_mapping_lists_those_there_are():
    with pytest.raises(ConfigurationError, match="azure_pdm"):
        load_mapping("azur")


def test_a_broken_parquet_file_is_refused(tmp_path):
    path = folder(tmp_path, mapping=import_files.MAPPING.replace("readings.csv", "r.parquet"))
    (path / "r.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(BadInput, match=r"r\.parquet"):
        load(path)
    pl.DataFrame({"when": [[1]], "pump": ["A"], "temp_f": [1.0], "p": [1.0]}).write_parquet(
        path / "r.parquet"
    )
    with pytest.raises(AegisError, match="'when'"):
        load(path)
