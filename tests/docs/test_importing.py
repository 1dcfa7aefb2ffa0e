"""docs/importing.md: its examples work as written, and it explains every field."""

import re
from pathlib import Path

import pytest

from aegisops.importers import load
from aegisops.importers import mapping as mappings
from aegisops.importers.units import _UNITS
from aegisops.machines import Statistic, model

TEXT = (Path(__file__).parents[2] / "docs" / "importing.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w.]+/[\w.]+)`[^\n]*\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def examples(tmp_path):
    for name, content in FILE.findall(TEXT):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path


def test_the_time_clock_example_gives_what_it_says(examples):
    imported = load(examples / "presses")
    assert (imported.readings.height, imported.events.height) == (7, 2)
    assert imported.machines["machine_id"].to_list() == ["press-07", "press-08"]
    assert len(imported.warnings) == 1
    assert "readings.csv line 4" in imported.warnings[0]


def test_the_cycle_clock_example_gives_what_it_says(examples):
    imported = load(examples / "engines")
    assert (imported.readings.height, imported.events.height) == (10, 2)
    assert imported.warnings == ()


@pytest.mark.parametrize(
    "described",
    [mappings.Mapping, mappings.MachineId, mappings.RowClock, mappings.ReadingsSource,
     mappings.EventsSource, mappings.MachinesSource, mappings.MappedChannel,
     mappings.MappedQuality, mappings.When, model.MachineClass, model.Channel, model.EventChannel,
     model.Attribute, model.FailureMode, model.Threshold, model.Costs],
    ids=lambda described: described.__name__,
)  # fmt: skip
def test_every_field_is_explained(described):
    missing = [
        name
        for name in described.model_fields
        if not re.search(rf"`\[*{name}(\.NAME)?\]*`|[{{ ,]{name}[ ,}}]", TEXT)
    ]
    assert missing == []


def test_every_statistic_and_unit_is_listed():
    assert [s for s in Statistic if f"`{s}`" not in TEXT] == []
    assert [
        unit for unit in _UNITS if not re.search(rf"(?<!\S){re.escape(unit)}(?!\w)", TEXT)
    ] == []
