"""How a spindle ages: damage, failure, repair and planned maintenance over one day.

Each failure mode is latent until `onset` hours of use after the last renewal (Weibull, as bearing
lives in ISO 281), then grows a visible defect for `length` hours: severity 0 → 1, failure at 1.
An hour of use is an hour at about average load; cutting ages more than standby. Whichever mode
reaches 1 first stops the machine; a planned visit before that renews it and prevents the failure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from aegisops.machines.model import US_PER_HOUR
from aegisops.names import EventType
from aegisops.simulator.fleet import MODES, US_PER_DAY, Bools, FleetPlan, Floats, Machine, Stream
from aegisops.simulator.fleet import generator as generator_of

PLANNED = "planned"
"""Code of a planned visit; a corrective one has the failure mode's name."""

_ONSET_HOURS = (360.0, 540.0, 370.0)
_ONSET_SHAPE = (1.8, 1.4, 1.6)
_LENGTH_SHAPE = ((3.0, 1.8), (4.0, 1.4), (4.0, 1.4))  # beta: slow defects are the rule
_LENGTH_HOURS = ((6.0, 72.0), (3.0, 30.0), (6.0, 48.0))
_STANDBY_USE, _LOAD_USE = 0.7, 0.65  # use per hour: 0.7 in standby, about 1.1 while cutting
_REPAIR_HOURS = ((5.0, 12.0), (2.0, 5.0), (3.0, 8.0))
_VISIT_HOURS = (1.5, 3.0)
_NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Event:
    """One row of bronze/events without its machine."""

    step: int
    """Step it is told with: the first one at or after it."""
    ts: int
    type: EventType
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Injection:
    """A defect that a person starts: `mode` fails `hours` of use after `step`."""

    step: int
    mode: str
    hours: float


@dataclass(frozen=True, slots=True)
class Life:
    """What the machine does not know about itself after renewal `number`; hours of use, [3]."""

    number: int
    onset: tuple[float, ...]
    length: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Age:
    """Where the machine stands in its life."""

    life: Life
    used: float
    """Hours of use since the renewal."""
    visit: int = 0
    """Number of the next planned visit."""
    down_until: int = 0
    """First step after the standstill."""
    work: str = ""
    """Maintenance that ends at `down_until`; empty when the machine runs."""


@dataclass(frozen=True, slots=True)
class Course:
    """One day of ageing."""

    up: Bools  # [N] the machine runs and sends readings
    severity: Floats  # [3, N] 0 = no visible defect, 1 = failure
    wear: Floats  # [N] share of the bearing's life used up
    events: list[Event]


def draw_life(plan: FleetPlan, machine: Machine, number: int) -> Life:
    """Hidden life after a renewal; worse machines draw shorter ones."""
    rng = generator_of(plan.seed, machine.index, Stream.LIFE, number)
    onset, length = [], []
    for mode in range(len(MODES)):
        onset.append(
            float(_ONSET_HOURS[mode] * machine.quality[mode] * rng.weibull(_ONSET_SHAPE[mode]))
        )
        low, high = _LENGTH_HOURS[mode]
        length.append(float(low + (high - low) * rng.beta(*_LENGTH_SHAPE[mode])))
    return Life(number, tuple(onset), tuple(length))


def first_age(plan: FleetPlan, machine: Machine) -> tuple[Age, Event]:
    """State at the plan's start, some days after the last visit, and that visit's event."""
    rng = generator_of(plan.seed, machine.index, Stream.VISITS)
    since_hours = float(rng.uniform(0.05, 0.9)) * machine.visit_days * 24
    life = draw_life(plan, machine, 0)
    used = since_hours * 0.85
    # Nobody starts a recording with a machine about to fail in the next hours.
    least = min(o + n for o, n in zip(life.onset, life.length, strict=True))
    used = min(used, max(0.0, least - 30.0))
    ts = plan.start + machine.phase_us - round(since_hours * US_PER_HOUR)
    event = Event(0, ts, EventType.MAINTENANCE, PLANNED, "planned maintenance before the recording")
    return Age(life, used), event


def visit_step(plan: FleetPlan, machine: Machine, number: int) -> int:
    """Step of planned visit `number`: the calendar, jittered, in the early shift."""
    first = float(generator_of(plan.seed, machine.index, Stream.VISITS).uniform(0.05, 0.9))
    rng = generator_of(plan.seed, machine.index, Stream.VISITS, number + 1)
    days = (number + 1 - first) * machine.visit_days + rng.normal(0, 0.7)
    wanted = plan.start + machine.utc_offset_us + max(days, 0.3 + number) * US_PER_DAY
    local = wanted // US_PER_DAY * US_PER_DAY + rng.uniform(6.5, 10) * US_PER_HOUR
    step = math.ceil((local - machine.utc_offset_us - plan.start - machine.phase_us) / plan.period)
    return max(step, 1)


def use(plan: FleetPlan, load: Floats) -> Floats:
    """Hours of use [N] of each step."""
    return (_STANDBY_USE + _LOAD_USE * load) * (plan.period / US_PER_HOUR)


def course(
    plan: FleetPlan,
    machine: Machine,
    age: Age,
    first: int,
    load: Floats,
    *,
    injections: tuple[Injection, ...] = (),
) -> tuple[Course, Age]:
    """Age the machine over the steps [first, first + N) under `load` [N]."""
    n = len(load)
    total = np.concatenate(([0.0], np.cumsum(use(plan, load))))
    day = Course(np.zeros(n, bool), np.zeros((len(MODES), n)), np.zeros(n), [])
    pending = sorted((i for i in injections if i.step < first + n), key=lambda i: i.step)
    pending = [i for i in pending if i.step >= first]
    i = 0
    while True:
        if age.work:
            if age.down_until >= first + n:
                return day, age
            i = max(i, age.down_until - first)
            day.events.append(_maintained(plan, machine, age))
            age = Age(draw_life(plan, machine, age.life.number + 1), 0.0, age.visit)
        while pending and pending[0].step <= first + i:
            age = _inject(age, pending.pop(0))
        stop, mode = _next_failure(age, total, i)
        visit = visit_step(plan, machine, age.visit) - first
        injected = pending[0].step - first if pending else _NEVER
        j = min(stop, max(visit, i), injected, n)
        _fill(day, age, total, i, j)
        age = replace(age, used=age.used + float(total[j] - total[i]))
        if j == n:
            return day, age
        if j == stop:
            day.events.append(_failed(plan, machine, first + j, mode))
            age = _stop(plan, machine, age, first + j, MODES[mode])
        elif j == max(visit, i):
            age = _stop(plan, machine, replace(age, visit=age.visit + 1), first + j, PLANNED)
        i = j


def _inject(age: Age, injection: Injection) -> Age:
    mode = MODES.index(injection.mode)
    onset, length = list(age.life.onset), list(age.life.length)
    onset[mode], length[mode] = age.used, injection.hours
    return replace(age, life=Life(age.life.number, tuple(onset), tuple(length)))


def _next_failure(age: Age, total: Floats, i: int) -> tuple[int, int]:
    """Step (in the day) and mode of the next failure; the step is beyond the day if none."""
    left = [o + n - age.used for o, n in zip(age.life.onset, age.life.length, strict=True)]
    mode = int(np.argmin(left))
    step = int(np.searchsorted(total[1:], total[i] + max(left[mode], 0.0), side="left"))
    return (max(step, i) if step < len(total) - 1 else _NEVER), mode


def _fill(day: Course, age: Age, total: Floats, i: int, j: int) -> None:
    used = age.used + total[i:j] - total[i]
    day.up[i:j] = True
    for mode, (onset, length) in enumerate(zip(age.life.onset, age.life.length, strict=True)):
        day.severity[mode, i:j] = np.clip((used - onset) / length, 0, 1)
    day.wear[i:j] = np.clip(used / (age.life.onset[0] + age.life.length[0]), 0, 1)


def _stop(plan: FleetPlan, machine: Machine, age: Age, step: int, work: str) -> Age:
    rng = generator_of(plan.seed, machine.index, Stream.REPAIR, age.life.number)
    low, high = _VISIT_HOURS if work == PLANNED else _REPAIR_HOURS[MODES.index(work)]
    until = step + math.ceil(rng.uniform(low, high) * US_PER_HOUR / plan.period)
    visit = age.visit
    while visit_step(plan, machine, visit) < until:  # a visit that falls into the repair is dropped
        visit += 1
    return replace(age, down_until=until, work=work, visit=visit)


def _failed(plan: FleetPlan, machine: Machine, step: int, mode: int) -> Event:
    ts = int(plan.times(machine, step, 1)[0])
    title = plan.machine_class.failure_modes[MODES[mode]].title
    return Event(step, ts, EventType.FAILURE, MODES[mode], f"stopped: {title.lower()}")


def _maintained(plan: FleetPlan, machine: Machine, age: Age) -> Event:
    # Half a step before the first reading after the work: readings and event never share a time.
    ts = int(plan.times(machine, age.down_until, 1)[0]) - plan.period // 2
    detail = "planned maintenance" if age.work == PLANNED else f"repair after {age.work}"
    return Event(age.down_until, ts, EventType.MAINTENANCE, age.work, detail)
