"""The fleet behaves like machines: what follows what, and what a repair undoes."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np
import polars as pl
import pytest

from aegisops.names import EventType
from aegisops.simulator import FleetPlan, fleet_of, physics, sensors, wear
from aegisops.simulator.duty import on_shift
from aegisops.simulator.fleet import MODES
from aegisops.simulator.sensors import Measured
from aegisops.simulator.wear import Injection

MONDAY = datetime(2025, 6, 16, tzinfo=UTC)


@cache
def plan() -> FleetPlan:
    return FleetPlan(seed=7, machines=4, start=round(MONDAY.timestamp() * 1e6), days=4)


def run(
    mode: str | None, hours: float = 40.0, days: int = 4
) -> tuple[list[physics.Day], list[Measured]]:
    machine = fleet_of(plan())[2]
    injections = (Injection(600, mode, hours),) if mode else ()
    station = sensors.start(plan(), machine)
    truth, measured = [], []
    for _ in range(days):
        truth.append(physics.advance(plan(), machine, station.state, injections)[0])
        day, station = sensors.measure(plan(), machine, station, injections)
        measured.append(day)
    return truth, measured


def hourly(measured: list[Measured], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """RMS and excess kurtosis per hour of up time."""
    wave = np.concatenate([d.signals["vibration"].values for d in measured])[:steps]
    hours = wave[: len(wave) // 60 * 60].reshape(-1, 60 * wave.shape[1])
    m2 = (hours**2).mean(axis=1)
    return np.sqrt(m2), (hours**4).mean(axis=1) / m2**2 - 3


def failure_step(truth: list[physics.Day]) -> int:
    return next(e.step for d in truth for e in d.events if e.type is EventType.FAILURE)


def test_kurtosis_rises_before_rms_on_a_bearing_fault_and_falls_back_at_the_end() -> None:
    truth, measured = run("bearing_wear", hours=40)
    _, healthy = run(None)
    end = failure_step(truth)
    rms, kurtosis = hourly(measured, end)
    rms_before, kurtosis_before = hourly(healthy, end)
    rms_alarm = np.flatnonzero(rms > 1.5 * rms_before.max())[0]
    kurtosis_alarm = np.flatnonzero(kurtosis > 3 + kurtosis_before.max())[0]
    assert kurtosis_alarm + 10 <= rms_alarm  # hours
    assert kurtosis[-3:].mean() < kurtosis[kurtosis_alarm:rms_alarm].mean() / 2
    assert rms[-1] > 3 * np.median(rms_before)


def test_temperature_lags_load_by_about_the_thermal_time_constant() -> None:
    truth, _ = run(None, days=3)
    load = np.concatenate([d.load for d in truth])
    heat = np.diff(np.concatenate([d.temperature for d in truth]), prepend=truth[0].temperature[0])
    temperature = np.concatenate([d.temperature for d in truth])
    lags = range(0, 120, 5)
    match = [
        np.corrcoef(load[: len(load) - 120], np.roll(temperature, -k)[:-120])[0, 1] for k in lags
    ]
    assert 5 <= lags[int(np.argmax(match))] <= 60  # minutes
    assert np.corrcoef(load, heat)[0, 1] > 0.5  # load decides how fast it warms


def test_the_housing_settles_where_first_order_theory_says() -> None:
    target = np.full(1440, 60.0)
    y = physics.lag(target, 20.0, 1 - np.exp(-1 / 30))
    minutes = np.arange(1, 1441)
    np.testing.assert_allclose(y, 60 - 40 * np.exp(-minutes / 30), rtol=1e-12)


def test_power_follows_load_and_the_drag_of_a_failing_drive() -> None:
    healthy, _ = run(None, days=2)
    failing, _ = run("drive_overload", hours=30, days=2)
    end = failure_step(failing) - 1440
    last = slice(end - 60, end)
    assert np.corrcoef(healthy[1].load, healthy[1].power)[0, 1] > 0.95
    assert (failing[1].power[last] > 1.4 * healthy[1].power[last]).all()


def test_a_coolant_leak_shows_in_temperature_and_not_in_vibration() -> None:
    healthy, _ = run(None, days=2)
    leaking, _ = run("coolant_loss", hours=25, days=2)
    end = failure_step(leaking) - 1440
    hour = slice(end - 60, end)
    assert leaking[1].temperature[hour].mean() > healthy[1].temperature[hour].mean() + 10
    np.testing.assert_array_equal(leaking[1].level[hour], healthy[1].level[hour])


@pytest.mark.parametrize("mode", MODES)
def test_a_failure_stops_the_readings_until_a_repair_renews_the_machine(mode: str) -> None:
    truth, measured = run(mode, hours=10, days=2)
    events = [e for d in truth for e in d.events if e.step > 600]
    failure = next(e for e in events if e.type is EventType.FAILURE)
    repair = next(e for e in events if e.type is EventType.MAINTENANCE)
    assert failure.code == repair.code == mode
    sent = np.concatenate([d.signals["temperature"].is_sent for d in measured])
    assert sent[failure.step - 60 : failure.step].any()
    assert not sent[failure.step : repair.step].any()
    assert 60 <= repair.step - failure.step <= 12 * 60 + 1
    severity = np.concatenate([d.course.severity for d in truth], axis=1)[MODES.index(mode)]
    assert severity[failure.step - 1] > 0.95
    assert severity[repair.step] == 0
    assert np.concatenate([d.course.wear for d in truth])[repair.step] < 0.01


def test_a_planned_visit_before_the_failure_prevents_it() -> None:
    machine = fleet_of(plan())[2]
    visit = wear.visit_step(plan(), machine, 0)
    block, n = visit // plan().block_steps, plan().block_steps
    defect = (Injection(visit - 120, "bearing_wear", 20.0),)  # would fail 18 h after the visit
    state, days = physics.first_state(plan(), machine), []
    for _ in range(block + 2):
        day, state = physics.advance(plan(), machine, state, defect)
        days.append(day)
    events = [e for d in days for e in d.events if e.step >= visit]
    assert events[0].type is EventType.MAINTENANCE
    assert events[0].code == wear.PLANNED
    assert not [e for e in events if e.type is EventType.FAILURE]
    severity = np.concatenate([d.course.severity for d in days], axis=1)[0]
    assert severity[visit - 1] > 0
    assert severity[events[0].step : (block + 2) * n].max() == 0


def test_shifts_follow_the_local_clock_and_weekends_are_light() -> None:
    machine = fleet_of(plan())[0]
    week = plan().start + np.arange(7 * 1440) * 60_000_000 - machine.utc_offset_us
    manned = on_shift(machine, week).reshape(7, 1440).sum(axis=1) / 60
    assert manned.tolist() == [16, 16, 16, 16, 16, 8, 0]


def test_vibration_is_low_while_idle() -> None:
    truth, _ = run(None, days=1)
    idle, cutting = truth[0].level[truth[0].load == 0], truth[0].level[truth[0].load > 0.5]
    assert idle.mean() < 0.7 * cutting.mean()


def test_worse_machines_live_shorter() -> None:
    fleet = fleet_of(FleetPlan(seed=7, machines=40, start=plan().start, days=1))
    lives = [np.mean([min(wear.draw_life(plan(), m, k).onset) for k in range(60)]) for m in fleet]
    quality = [min(m.quality) for m in fleet]
    assert pl.DataFrame({"q": quality, "l": lives}).select(pl.corr("q", "l")).item() > 0.6
