"""After drift the intervals of remaining life are held against what happened since training."""

import polars as pl
import pytest

from aegisops.schemas.tables import EVENTS, READINGS
from aegisops_assets.definitions import build_definitions
from aegisops_assets.steps import drift, features, labels, life_coverage, tiles
from tests.aegisops_assets.conftest import CYCLES, SECOND, press_history

pytestmark = [
    pytest.mark.slow,
    # Third parties warn while they are imported.
    pytest.mark.filterwarnings("default"),
]


def go_on(platform, force_shift):
    """Presses run on for 900 strokes; the force sensor says `force_shift` kN more than before."""
    readings, events = press_history(first_cycle=CYCLES, cycles=900)
    shifted = pl.when(pl.col("channel") == "force").then(pl.col("value") + force_shift)
    platform.lake.append(READINGS, readings.with_columns(value=shifted.otherwise("value")))
    platform.lake.append(EVENTS, events)
    tiles.build(platform)
    features.build(platform)
    labels.build(platform)


def checked(platform):
    done = build_definitions(platform).resolve_job_def("drift").execute_in_process()
    return {e.check_name: e for e in done.get_asset_check_evaluations()}


def test_without_drift_nobody_asks(copied):
    go_on(copied, 0)
    found = checked(copied)
    assert found["no_drift"].passed
    assert found["remaining_life_covered"].passed
    assert "nothing drifted" in found["remaining_life_covered"].description


def test_intervals_that_no_longer_hold_after_drift_are_a_warning(copied):
    go_on(copied, 150)
    found = checked(copied)
    assert not found["no_drift"].passed
    check = found["remaining_life_covered"]
    assert not check.passed
    assert check.severity.value == "WARN"
    assert not check.blocking
    assert "interval held" in check.description


def test_intervals_of_the_data_they_were_made_for_still_hold(copied):
    go_on(copied, 0)
    (fleet,) = copied.fleets()
    bundle, _ = drift.inputs.production(copied, fleet.machine_class)
    found = life_coverage.since_training(copied, fleet, bundle)
    assert found.failures >= 15
    assert 0.75 <= found.share <= 1  # 27 failures or so: ± 0.1 is chance


def test_rows_whose_interval_has_not_ended_do_not_count(copied):
    soon = pl.col("ts").cast(pl.Int64) < (CYCLES + 60) * SECOND
    readings, events = press_history(first_cycle=CYCLES, cycles=900)
    copied.lake.append(READINGS, readings.filter(soon))
    copied.lake.append(EVENTS, events.filter(soon))
    for step in (tiles, features, labels):
        step.build(copied)
    (fleet,) = copied.fleets()
    bundle, _ = drift.inputs.production(copied, fleet.machine_class)
    found = life_coverage.since_training(copied, fleet, bundle)
    assert found.share is None
    assert not found.has_failed
    assert "needed to tell" in found.told
