"""A third class, on a cycle clock, from a run-to-failure file without a header line."""

import math

import polars as pl
import pytest

from aegisops.errors import BadInput, ConfigurationError
from aegisops.features import batch
from aegisops.importers import append_history, load
from aegisops.lake import Lake
from aegisops.schemas.tables import EVENTS, READINGS, WAVEFORMS

CLASS = """
name = "turbofan"
title = "Turbofan engine"
clock = "cycles"
horizon = "30c"
step = "1c"
stale_after = "5c"
[channels.outlet_temperature]
unit = "°C"
period = "1c"
limits = [0, 2000]
[channels.core_speed]
unit = "rpm"
period = "1c"
limits = [0, 20000]
[windows]
5c = "1c"
20c = "1c"
[statistics]
outlet_temperature = ["mean_5c", "rate_of_change_20c"]
core_speed = ["mean_20c"]
[failure_modes.compressor]
title = "Compressor degradation"
action = "Take the engine off the wing."
"""
MAPPING = """
name = "engines"
machine_class = "turbofan.toml"
[machine]
column = "unit"
format = "engine-{:0>3}"
[clock]
cycles = "cycle"
[[readings]]
files = "train_*.txt"
separator = " "
columns = ["unit", "cycle", "t24", "nc"]
[readings.channels]
outlet_temperature = { column = "t24", unit = "K" }
core_speed = { column = "nc", unit = "rpm" }
[[events]]
type = "failure"
code = "compressor"
at = "end_of_readings"
"""
LIVES = {1: 40, 2: 55, 3: 31}


@pytest.fixture
def engines(tmp_path):
    (tmp_path / "turbofan.toml").write_text(CLASS)
    (tmp_path / "mapping.toml").write_text(MAPPING)
    lines = [
        # Two trailing spaces, as in the published files.
        f"{unit} {cycle} {873.15 + 20 * (cycle / life) ** 3:.4f} {9050 + math.sin(cycle):.4f}  "
        for unit, life in LIVES.items()
        for cycle in range(1, life + 1)
    ]
    (tmp_path / "train_FD001.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_cycle_counts_as_a_second_and_a_run_ends_with_its_failure(engines):
    imported = load(engines)
    assert imported.readings.height == 2 * sum(LIVES.values())
    assert imported.events.rows() == [
        (f"engine-{unit:03}", life * 1_000_000, "failure", "compressor", "end of readings")
        for unit, life in LIVES.items()
    ]
    first = imported.readings.filter(pl.col("channel") == "outlet_temperature").row(0)
    assert first[2:] == (1_000_000, pytest.approx(600 + 20 / 40**3, abs=1e-4), 0)
    assert imported.warnings == ()


def test_the_history_becomes_feature_vectors_on_the_cycle_clock(engines, tmp_path):
    imported = load(engines)
    lake = Lake(tmp_path / "lake")
    added = append_history(lake, imported, now_us=1_800_000_000_000_000)
    assert (added.readings, added.rejected) == (2 * sum(LIVES.values()), 0)
    values = batch.values_from_bronze(
        lake.scan(READINGS), lake.scan(WAVEFORMS), lake.scan(EVENTS), imported.machine_class
    )
    tiles = batch.tiles_from_values(values, imported.machine_class)
    features = batch.features_from_tiles(tiles, imported.machine_class, imported.attributes())
    assert features.height == sum(LIVES.values())
    last = features.sort("machine_id", "ts").group_by("machine_id", maintain_order=True).last()
    slopes = last["vector"].list.get(imported.machine_class.vector.index(
        "outlet_temperature_rate_of_change_20c"
    ))  # fmt: skip
    assert (slopes > 0).all()


def test_a_time_mapping_does_not_fit_a_cycle_class(engines):
    mapping = MAPPING.replace('cycles = "cycle"', 'time = "cycle"')
    (engines / "mapping.toml").write_text(mapping)
    with pytest.raises(ConfigurationError, match=r"the mapping counts time.*clock is cycles"):
        load(engines)


def test_a_negative_cycle_is_refused_with_its_line(engines):
    path = engines / "train_FD001.txt"
    path.write_text(path.read_text().replace("1 2 873", "1 -2 873"))
    with pytest.raises(BadInput, match=r"train_FD001\.txt line 2, column 'cycle': cycle '-2'"):
        load(engines)
