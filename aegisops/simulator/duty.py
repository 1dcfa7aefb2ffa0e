"""How hard a spindle works: shifts, jobs and part cycles → load [N] in 0…1.2. Wear is elsewhere."""

from __future__ import annotations

import numpy as np

from aegisops.machines.model import US_PER_HOUR
from aegisops.simulator.fleet import US_PER_DAY, Bools, FleetPlan, Floats, Ints, Machine, Stream
from aegisops.simulator.fleet import generator as generator_of

_THURSDAY = 3  # 1970-01-01, counted from Monday
_SATURDAY, _SUNDAY = 5, 6
_SHIFTS = (6, 22)  # two shifts, local time
_SATURDAY_SHIFT = (6, 14)
_JOBS = 18  # more than fit into a day: the shortest job takes 80 min


def on_shift(machine: Machine, ts: Ints) -> Bools:
    """Whether the machine is manned at each time: two shifts on weekdays, one on Saturday."""
    local = ts + machine.utc_offset_us
    hour = local % US_PER_DAY / US_PER_HOUR
    weekday = (local // US_PER_DAY + _THURSDAY) % 7
    full = (hour >= _SHIFTS[0]) & (hour < _SHIFTS[1]) & (weekday < _SATURDAY)
    short = (hour >= _SATURDAY_SHIFT[0]) & (hour < _SATURDAY_SHIFT[1]) & (weekday == _SATURDAY)
    manned: Bools = full | short
    return manned


def load(plan: FleetPlan, machine: Machine, block: int, ts: Ints) -> Floats:
    """Cutting load [N] of one day: 0 = warm standby (spindle turns slowly), 1 = rated.

    A day is a row of jobs of 80–240 min; each starts with a changeover and then repeats a part
    cycle of cutting and part change.
    """
    rng = generator_of(plan.seed, machine.index, Stream.DUTY, block)
    n, minute = len(ts), plan.period / 60e6
    minutes = rng.uniform(80, 240, _JOBS)
    level = np.clip(rng.normal(0.68, 0.08, _JOBS), 0.45, 0.9)
    cycle = rng.uniform(4, 12, _JOBS)
    share = rng.uniform(0.65, 0.85, _JOBS)
    changeover = rng.uniform(8, 25, _JOBS)
    flutter = rng.normal(1, 0.04, n)
    begin = np.concatenate(([0.0], np.cumsum(minutes)[:-1]))
    now = np.arange(n) * minute
    job = np.searchsorted(begin, now, side="right") - 1
    into = now - begin[job] - changeover[job]
    is_cutting = (into >= 0) & (into % cycle[job] < share[job] * cycle[job])
    wanted = level[job] * machine.load * flutter
    return np.where(is_cutting & on_shift(machine, ts), wanted, 0.0)
