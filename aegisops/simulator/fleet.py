"""Who is in the fleet: plan, machines and where their random numbers come from. No physics here."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from aegisops.machines import MachineClass, load_class
from aegisops.machines.model import US_PER_HOUR

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

US_PER_DAY = 24 * US_PER_HOUR
TOPIC = "import/simulator"
MODES = ("bearing_wear", "coolant_loss", "drive_overload")
"""Failure modes in the order of every [3] and [3, N] array of this package."""

_SITES = (("plant-north", 1), ("plant-west", -5))
"""Site and its hours from UTC; shifts follow the local clock."""
_AREAS = ("milling-1", "milling-2", "five-axis")


class Stream(IntEnum):
    """Independent random streams of one machine."""

    MACHINE = 0
    DUTY = 1
    LIFE = 2
    VISITS = 3
    COUNTER = 4
    NOISE = 5
    EPISODES = 6
    SPIKES = 7
    WEATHER = 8
    REPAIR = 9


def generator(seed: int, machine: int, stream: Stream, number: int = 0) -> np.random.Generator:
    """The generator of one machine, stream and block (or life, visit, …); all chance is here."""
    sequence = np.random.SeedSequence(seed, spawn_key=(machine, int(stream), number))
    return np.random.Generator(np.random.SFC64(sequence))


@dataclass(frozen=True, slots=True)
class Machine:
    """One spindle and what sets it apart from its sisters."""

    index: int
    machine_id: str
    site: str
    area: str
    utc_offset_us: int
    phase_us: int
    """Time of its first reading after the plan's start; spreads a fleet over the minute."""
    quality: tuple[float, float, float]
    """Factor on the life per failure mode; below 1 = a worse machine."""
    load: float
    """Factor on the load of its jobs."""
    stiffness: float
    """Factor on its vibration."""
    hum_hz: float
    visit_days: float
    """Interval of planned maintenance."""
    attributes: dict[str, str | float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class FleetPlan:
    """Everything that decides the bytes: the same plan is the same history.

    `start` and `end` are µs since 1970 (UTC). The fleet lives on after `end`; `days` only says
    where history stops and live readings begin.
    """

    seed: int
    machines: int
    start: int
    days: float
    machine_class: MachineClass = field(default_factory=lambda: load_class("cnc_spindle"))

    @classmethod
    def ending(
        cls, end: datetime, *, seed: int = 7, machines: int = 20, days: float = 21
    ) -> FleetPlan:
        """The plan whose history ends at `end`, cut to a whole period of the class."""
        machine_class = load_class("cnc_spindle")
        period = machine_class.channels["vibration"].period
        end_us = round(end.timestamp() * 1e6) // period * period
        return cls(seed, machines, end_us - round(days * US_PER_DAY), days, machine_class)

    @property
    def period(self) -> int:
        """µs between two readings of a machine; one step."""
        return self.machine_class.channels["vibration"].period

    @property
    def block_steps(self) -> int:
        """Steps of one day: the physics advances in whole days, so chunking cannot change it."""
        return US_PER_DAY // self.period

    @property
    def steps(self) -> int:
        """Steps of the history."""
        return round(self.days * US_PER_DAY) // self.period

    @property
    def end(self) -> int:
        """End of the history, exclusive (µs)."""
        return self.start + self.steps * self.period

    def times(self, machine: Machine, first: int, count: int) -> Ints:
        """Source times [count] of the machine's steps from step `first` (µs)."""
        return self.start + machine.phase_us + np.arange(first, first + count) * self.period


def fleet_of(plan: FleetPlan) -> tuple[Machine, ...]:
    """The plan's machines; machine i is the same in a fleet of any size."""
    return tuple(_machine(plan, i) for i in range(plan.machines))


def _machine(plan: FleetPlan, index: int) -> Machine:
    rng = generator(plan.seed, index, Stream.MACHINE)
    site, offset = _SITES[int(rng.integers(len(_SITES)))]
    worse = np.exp(rng.normal(0, 0.35))  # a whole machine is better or worse, then each part
    quality = np.clip(worse * np.exp(rng.normal(0, 0.25, len(MODES))), 0.4, 2.5)
    return Machine(
        index=index,
        machine_id=f"spindle-{index + 1:03d}",
        site=site,
        area=_AREAS[int(rng.integers(len(_AREAS)))],
        utc_offset_us=offset * US_PER_HOUR,
        phase_us=int(rng.integers(0, plan.period // 1000)) * 1000,
        quality=(float(quality[0]), float(quality[1]), float(quality[2])),
        load=float(rng.uniform(0.92, 1.08)),
        stiffness=float(rng.uniform(0.9, 1.12)),
        hum_hz=float(rng.uniform(150, 250)),
        visit_days=float(rng.uniform(9, 14)),
        attributes={
            "age_years": float(rng.integers(1, 15)),
            "max_rpm": 15_000.0,
            "owner": f"mechanics-{site.removeprefix('plant-')}",
        },
    )
