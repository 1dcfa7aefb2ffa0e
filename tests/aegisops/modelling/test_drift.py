"""Planted changes are found, planted non-changes are not: the traps of drift tests, one by one."""

import csv
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from aegisops.modelling import drift
from aegisops.modelling.drift import Kind, Verdict

MACHINES, INTERVALS = 20, 35
CURRENT = 28  # first interval of the current window
NAB = os.environ.get("NAB_MACHINE_TEMPERATURE", "")
"""The CSV of NAB's realKnownCause/machine_temperature_system_failure."""
NOTHING = pl.DataFrame(schema={"machine_id": pl.String, "interval": pl.Int64})


def fleet(seed=0, machines=MACHINES, intervals=INTERVALS, scale=1.0):
    """Independent standard normal x, one row per machine and interval."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "machine_id": np.repeat([f"m{i:02}" for i in range(machines)], intervals),
            "interval": np.tile(np.arange(intervals), machines),
            "x": rng.normal(size=machines * intervals) * scale,
        }
    )


def shifted(rows, by, machines=None, since=CURRENT):
    changed = pl.col("interval") >= since
    if machines is not None:
        changed &= pl.col("machine_id").is_in(machines)
    return rows.with_columns(x=pl.col("x") + pl.when(changed).then(by).otherwise(0.0))


def done(machines, interval):
    return pl.DataFrame({"machine_id": machines, "interval": [interval] * len(machines)})


def examined(rows, trained=None, repairs=NOTHING, regimes=NOTHING):
    windows = drift.split(rows, trained, repairs, regimes)
    return drift.examine(windows, Kind.DATA, ["x"])[0]


def autoregressive(seed, steps, coefficient=0.99):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(MACHINES, steps)) * np.sqrt(1 - coefficient**2)
    x = np.empty((MACHINES, steps))
    x[:, 0] = rng.normal(size=MACHINES)
    for t in range(1, steps):
        x[:, t] = coefficient * x[:, t - 1] + noise[:, t]
    return pl.DataFrame(
        {
            "machine_id": np.repeat([f"m{i:02}" for i in range(MACHINES)], steps),
            "ts": np.tile(np.arange(steps), MACHINES),
            "x": x.ravel(),
        }
    )


def test_one_absurd_value_neither_hides_a_change_nor_makes_one():
    rows = fleet()
    first = (pl.col("machine_id") == "m00") & (pl.col("interval") == CURRENT)

    def spiked(frame):
        return frame.with_columns(x=pl.when(first).then(1e6).otherwise("x"))

    assert examined(spiked(rows)).verdict is Verdict.STEADY
    plain, with_spike = examined(shifted(rows, 1.0)), examined(spiked(shifted(rows, 1.0)))
    assert with_spike.verdict is plain.verdict is Verdict.DRIFTED
    assert with_spike.value == pytest.approx(plain.value, rel=0.1)


def test_an_autocorrelated_process_that_did_not_change_does_not_drift():
    found = []
    for seed in range(20):
        rows = drift.per_interval(autoregressive(seed, 144 * INTERVALS), ["x"], 144)
        found.append(examined(rows).verdict)
    assert found.count(Verdict.DRIFTED) <= 1
    assert found.count(Verdict.UNKNOWN) == 0


def test_a_shift_of_one_deviation_in_an_autocorrelated_process_is_found():
    rows = drift.per_interval(autoregressive(0, 144 * INTERVALS), ["x"], 144)
    assert examined(shifted(rows, 1.0)).verdict is Verdict.DRIFTED


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 1.0, 1e6])
def test_the_unit_of_a_feature_does_not_matter(scale):
    assert examined(fleet(scale=scale)).verdict is Verdict.STEADY
    moved = examined(shifted(fleet(scale=scale), 3 * scale))
    assert moved.verdict is Verdict.DRIFTED
    assert moved.value == pytest.approx(examined(shifted(fleet(), 3.0)).value)


def test_a_harmless_difference_stays_harmless_however_many_rows_there_are():
    rows = fleet(machines=4000)
    found = examined(shifted(rows, 0.03))
    assert found.verdict is Verdict.STEADY
    assert max(found.reference_rows, found.current_rows) == drift.MAX_ROWS


def test_the_verdict_is_the_same_just_below_and_above_a_thousand_reference_rows():
    for by, verdict in ((0.0, Verdict.STEADY), (1.0, Verdict.DRIFTED)):
        small, large = (examined(shifted(fleet(machines=m), by)) for m in (35, 36))
        assert small.reference_rows < 1000 < large.reference_rows
        assert small.verdict is large.verdict is verdict


def test_a_small_reference_is_unknown_not_drift():
    assert examined(shifted(fleet(intervals=3), 3.0, since=2)).verdict is Verdict.UNKNOWN
    assert examined(shifted(fleet(machines=1), 3.0)).verdict is Verdict.UNKNOWN


def test_false_drift_on_independent_data_is_rare():
    found = [examined(fleet(seed)).verdict for seed in range(80)]
    assert found.count(Verdict.DRIFTED) <= 2


def test_unusual_repairs_are_context_not_drift():
    repaired = [f"m{i:02}" for i in range(10)]
    rows = shifted(fleet(), -2.0, repaired)
    assert examined(rows).verdict is Verdict.DRIFTED
    assert examined(rows, repairs=done(repaired, CURRENT)).verdict is Verdict.CONTEXT


def test_a_change_of_the_whole_fleet_is_not_excused_by_some_repairs():
    repairs = done(["m00", "m01"], CURRENT)
    assert examined(shifted(fleet(), 2.0), repairs=repairs).verdict is Verdict.DRIFTED


def test_repairs_at_the_usual_rate_excuse_nothing():
    everyone = [f"m{i:02}" for i in range(MACHINES)]
    repairs = pl.concat(done(everyone, i) for i in range(3, INTERVALS, 7))
    assert examined(shifted(fleet(), 2.0), repairs=repairs).verdict is Verdict.DRIFTED


def test_a_planned_change_of_regime_is_a_new_baseline():
    changed = [f"m{i:02}" for i in range(10)]
    for interval in (10, CURRENT):  # long ago, or inside the window
        rows = shifted(fleet(), 3.0, changed, since=interval + 1)
        regimes = done(changed, interval)
        assert examined(rows, regimes=regimes).verdict is Verdict.STEADY
    windows = drift.split(rows, None, NOTHING, regimes)
    assert windows.new_regime == tuple(changed)


def test_a_machine_that_came_or_went_is_not_drift_of_the_others():
    rows = fleet()
    came = (pl.col("machine_id") < "m05") & (pl.col("interval") < CURRENT)
    went = (pl.col("machine_id") >= "m15") & (pl.col("interval") >= CURRENT)
    for machines, gone in (([f"m{i:02}" for i in range(5)], came), (["m15", "m16"], went)):
        other = shifted(rows, 50.0, machines, since=0)
        assert examined(other.filter(~gone)).verdict is Verdict.STEADY


def test_a_column_without_values_is_unknown():
    rows = fleet().with_columns(x=pl.lit(None, pl.Float64))
    assert examined(rows).verdict is Verdict.UNKNOWN


def test_a_share_that_is_nearly_always_one_is_seen_to_fall():
    rows = fleet().with_columns(x=pl.lit(1.0))
    assert examined(rows).verdict is Verdict.STEADY
    assert examined(shifted(rows, -0.4, ["m03", "m04", "m05"])).verdict is Verdict.DRIFTED


def test_the_machines_that_moved_are_named_first():
    changed = {"m02", "m03", "m07", "m11", "m13", "m17"}
    found = examined(shifted(fleet(), 4.0, sorted(changed)))
    assert found.verdict is Verdict.DRIFTED
    assert len(found.machines) == drift.WORST_MACHINES
    assert set(found.machines) < changed


def test_slow_change_adds_up_until_a_newer_model_is_trained():
    slow = fleet(intervals=63).with_columns(x=pl.col("x") + pl.col("interval") * 0.03)
    assert examined(slow, trained=30).value > examined(slow).value


def test_bad_sensors_alone_do_not_call_for_a_new_model():
    windows = drift.split(shifted(fleet(), 3.0), None, NOTHING, NOTHING)
    for kind, helps in ((Kind.DATA, True), (Kind.PREDICTION, True), (Kind.QUALITY, False)):
        assert drift.has_drifted(drift.examine(windows, kind, ["x"])) is helps


@pytest.mark.skipif(not NAB, reason="NAB_MACHINE_TEMPERATURE names no file: real data NOT checked")
def test_a_real_machine_gives_no_false_drift_and_shows_a_planted_one():
    with Path(NAB).open() as file:
        lines = list(csv.DictReader(file))
    at = [datetime.fromisoformat(line["timestamp"]).replace(tzinfo=UTC) for line in lines]
    record = pl.DataFrame(
        {
            "machine_id": "m00",
            "ts": [round(t.timestamp()) for t in at],
            "x": [float(line["value"]) for line in lines],
        }
    )
    rows = drift.per_interval(record, ["x"], 12 * 3600)
    last = int(rows["interval"].to_numpy().max())
    for back in range(0, 60, 10):
        until = rows.filter(pl.col("interval") <= last - back)
        assert examined(until).verdict is Verdict.STEADY
    assert examined(shifted(rows, 40.0, since=last - 19)).verdict is Verdict.DRIFTED
