"""What a spindle really does on one day: heat, power, vibration level, counter. No sensors here.

Sources: first-order thermal lag (lumped capacity, Incropera ch. 5); rolling-bearing defects as rare
impacts first and broadband energy late, so that kurtosis rises before RMS and falls back at the
end (Randall & Antoni 2011, "Rolling element bearing diagnostics - a tutorial").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from aegisops.machines.model import US_PER_HOUR
from aegisops.names import EventType
from aegisops.simulator import duty, wear
from aegisops.simulator.fleet import US_PER_DAY, FleetPlan, Floats, Ints, Machine, Stream
from aegisops.simulator.fleet import generator as generator_of
from aegisops.simulator.wear import Age, Course, Event, Injection

THERMAL_LAG_US = 30 * 60_000_000
"""Time constant of the housing."""
_NOTHING = 1e-18  # a share below float64 resolution
_RESETS_PER_DAY = 1 / 25
_TOOL_LIFE_HOURS = 5.0
_PARTS_PER_LOAD_MINUTE = 0.35


@dataclass(frozen=True, slots=True)
class State:
    """All a machine carries from one day to the next."""

    block: int
    age: Age
    temperature: float
    count: float
    tool_hours: float
    opening: tuple[Event, ...] = ()
    """Events from before the first reading."""


@dataclass(frozen=True, slots=True)
class Day:
    """True quantities of one machine and day, [N] each; times in µs, units of the class."""

    machine: Machine
    first: int
    ts: Ints
    load: Floats
    course: Course
    temperature: Floats
    power: Floats
    level: Floats
    """Broadband vibration, RMS in m/s²."""
    impacts: Floats
    """Expected bearing impacts per sample."""
    impact_size: Floats
    """Mean peak of an impact in m/s²."""
    count: Floats
    events: tuple[Event, ...]
    """In time order: failures, maintenance, counter resets."""


def first_state(plan: FleetPlan, machine: Machine) -> State:
    """The machine at the plan's start."""
    rng = generator_of(plan.seed, machine.index, Stream.COUNTER)
    age, before = wear.first_age(plan, machine)
    count, tool = float(rng.integers(20_000, 900_000)), float(rng.uniform(0, _TOOL_LIFE_HOURS))
    return State(0, age, 34.0, count, tool, opening=(before,))


def advance(
    plan: FleetPlan, machine: Machine, state: State, injections: tuple[Injection, ...] = ()
) -> tuple[Day, State]:
    """One day of physics from its state at midnight of the plan; pure."""
    n, first = plan.block_steps, state.block * plan.block_steps
    ts = plan.times(machine, first, n)
    wanted = duty.load(plan, machine, state.block, ts)
    course, age = wear.course(plan, machine, state.age, first, wanted, injections=injections)
    load = np.where(course.up, wanted, 0.0)
    tool, tool_hours = _tool_wear(plan, state.tool_hours, load)
    hall = ambient(plan, machine, ts)
    temperature = _temperature(plan, hall, course, load, state.temperature)
    count, resets = _counter(plan, machine, state, ts, load)
    events = sorted([*state.opening, *course.events, *resets], key=lambda e: (e.ts, e.type))
    level, impacts, impact_size = _vibration(machine, course, load, tool)
    day = Day(
        machine=machine,
        first=first,
        ts=ts,
        load=load,
        course=course,
        temperature=temperature,
        power=_power(course, load, tool),
        level=level,
        impacts=impacts,
        impact_size=impact_size,
        count=count,
        events=tuple(events),
    )
    after = replace(
        state,
        block=state.block + 1,
        age=age,
        temperature=float(temperature[-1]),
        count=float(count[-1]),
        tool_hours=tool_hours,
        opening=(),
    )
    return day, after


def lag(target: Floats, before: float, share: float) -> Floats:
    """First-order lag y[n] = y[n-1] + share·(target[n] - y[n-1]), y[-1] = `before`; [N].

    By doubling: after pass k each y holds the last 2^k inputs, so log2(N) vector operations.
    """
    keep = 1.0 - share
    y = share * target
    y[0] += keep * before
    step, factor = 1, keep
    while step < len(y) and factor > _NOTHING:
        y[step:] = y[step:] + factor * y[:-step]
        step, factor = 2 * step, factor * factor
    return y


@lru_cache(maxsize=4096)
def _weather(seed: int, site: str, day: int) -> float:
    """Deviation of the day's mean hall temperature, K; the same for all machines of a site."""
    # Machine indices are far below 10⁶: sites have their own keys above it.
    return float(generator_of(seed, 10**6 + sum(site.encode()), Stream.WEATHER, day).normal(0, 1.5))


def ambient(plan: FleetPlan, machine: Machine, ts: Ints) -> Floats:
    """Hall temperature [N] in °C: warmest at 16:00 local, and weather that changes over days."""
    local = ts + machine.utc_offset_us
    daily = 3.0 * np.sin(2 * np.pi * (local / US_PER_DAY - 10 / 24))
    days = local / US_PER_DAY
    low = int(days[0])
    nodes = np.arange(low, int(days[-1]) + 2)
    weather = [_weather(plan.seed, machine.site, int(d)) for d in nodes]
    return 22.0 + daily + np.interp(days, nodes, weather)


def _temperature(
    plan: FleetPlan, hall: Floats, course: Course, load: Floats, before: float
) -> Floats:
    bearing, coolant, drive = course.severity
    heat = np.where(course.up, 11.0 + 25.0 * load * (1 + 0.15 * drive), 0.0) + 4.0 * bearing**2
    cooling = 1.0 - 0.62 * coolant**0.5  # share of the healthy heat transfer
    target = hall + heat / cooling
    return lag(target, before, 1.0 - float(np.exp(-plan.period / THERMAL_LAG_US)))


def _power(course: Course, load: Floats, tool: Floats) -> Floats:
    """kW: no-load loss, cutting, and drag of a failing drive (friction also without load)."""
    bearing, _, drive = course.severity
    drag = drive**0.6
    running = 1.9 + 4.5 * drag + 0.5 * bearing**2
    cutting = 12.0 * load * (1 + 0.06 * tool) * (1 + 0.55 * drag)
    return np.where(course.up, running + cutting, 0.0)


def _vibration(
    machine: Machine, course: Course, load: Floats, tool: Floats
) -> tuple[Floats, Floats, Floats]:
    severity = course.severity[0]
    healthy = (1.05 + 1.2 * load * (1 + 0.05 * tool)) * machine.stiffness
    late = np.clip((severity - 0.5) / 0.5, 0, 1)
    broadband = 1.0 + 0.2 * course.wear**2 + 2.6 * late**1.6
    # The defect is small but sharp at once: impacts reach their early rate within 10 % of the way.
    early = np.clip(severity / 0.1, 0, 1)
    impacts = 1e-4 + 0.0035 * early + 0.02 * severity + 0.11 * late**1.5
    size = healthy * np.where(severity > 0, 7.0 + 3.0 * severity, 4.5)
    level = np.where(course.up, healthy * broadband, 0.05)
    return level, np.where(course.up, impacts, 0.0), size


def _tool_wear(plan: FleetPlan, before: float, load: Floats) -> tuple[Floats, float]:
    """Wear of the cutting tool [N], 0 new … 1 worn; changed after five hours of cutting."""
    hours = before + np.cumsum((load > 0) * (plan.period / US_PER_HOUR))
    return hours % _TOOL_LIFE_HOURS / _TOOL_LIFE_HOURS, float(hours[-1] % _TOOL_LIFE_HOURS)


def _counter(
    plan: FleetPlan, machine: Machine, state: State, ts: Ints, load: Floats
) -> tuple[Floats, list[Event]]:
    """Count [N] with the control's rare resets to zero."""
    rng = generator_of(plan.seed, machine.index, Stream.COUNTER, state.block + 1)
    count = state.count + np.cumsum(load * (_PARTS_PER_LOAD_MINUTE * plan.period / 60e6))
    if rng.random() >= _RESETS_PER_DAY:
        return count, []
    at = int(rng.integers(1, len(ts)))
    count[at:] -= count[at - 1]
    first = state.block * plan.block_steps
    event = Event(
        first + at, int(ts[at]) - 1000, EventType.COUNTER_RESET, "cycles", "control restarted"
    )
    return count, [event]
