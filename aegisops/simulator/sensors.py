"""What the instruments say about a day: noise, resolution, waveform captures, instrument faults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aegisops.names import Quality
from aegisops.simulator import faults, physics
from aegisops.simulator.faults import Episode, Signal
from aegisops.simulator.fleet import Bools, FleetPlan, Floats, Ints, Machine, Stream
from aegisops.simulator.fleet import generator as generator_of
from aegisops.simulator.physics import Day, State
from aegisops.simulator.wear import Event, Injection

_ADC_STEP = 0.01  # m/s²; also what lets the captures compress
_RING = (1.0, -0.45, 0.2)  # an impact and its decay at 1 kHz
_HUM = 0.3  # of the level: the shaft's own frequency


@dataclass(frozen=True, slots=True)
class Measured:
    """One machine's readings of one day; N steps, S samples per capture."""

    machine: Machine
    first: int
    ts: Ints
    is_up: Bools
    signals: dict[str, Signal]
    """By channel, in the order of the message's blocks."""
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Station:
    """A machine and its instruments between two days: all that has to be kept to go on."""

    state: State
    episodes: tuple[Episode, ...] = ()


def start(plan: FleetPlan, machine: Machine) -> Station:
    """The station at the plan's start."""
    return Station(physics.first_state(plan, machine))


def station_at(plan: FleetPlan, machine: Machine, block: int) -> Station:
    """The station at the start of day `block`, from physics alone but for the day before.

    No instrument fault is longer than a day, so one measured day knows every fault that goes on.
    """
    state = physics.first_state(plan, machine)
    for _ in range(block - 1):
        _, state = physics.advance(plan, machine, state)
    station = Station(state)
    return measure(plan, machine, station)[1] if block else station


def measure(
    plan: FleetPlan, machine: Machine, station: Station, injections: tuple[Injection, ...] = ()
) -> tuple[Measured, Station]:
    """The next day of readings; pure."""
    day, state = physics.advance(plan, machine, station.state, injections)
    rng = generator_of(plan.seed, machine.index, Stream.NOISE, station.state.block)
    n = len(day.ts)
    values: dict[str, Floats] = {
        "vibration": _captures(plan, day, rng),
        "temperature": np.round(day.temperature + rng.normal(0, 0.15, n), 2),
        "power": np.round(day.power * rng.normal(1, 0.02, n) + 0.02, 3),
        "cycles": np.floor(day.count),
    }
    signals = {
        name: Signal(v, np.full(n, Quality.GOOD, np.int8), day.course.up.copy())
        for name, v in values.items()
    }
    episodes = (*station.episodes, *faults.draw(plan, machine, station.state.block))
    after = []
    for episode in episodes:
        carried = faults.apply(plan, machine, episode, signals[episode.channel], day.first)
        if carried.last > day.first + n:
            after.append(carried)
    measured = Measured(machine, day.first, day.ts, day.course.up, signals, day.events)
    return measured, Station(state, tuple(after))


def _captures(plan: FleetPlan, day: Day, rng: np.random.Generator) -> Floats:
    """Captures [N, S]: broadband noise, shaft hum at a random phase, and ringing impacts."""
    channel = plan.machine_class.channels["vibration"]
    n, samples = len(day.ts), channel.samples
    wave: Floats = rng.standard_normal((n, samples), dtype=np.float32).astype(np.float64)
    wave *= day.level[:, None]
    angle = 2 * np.pi * day.machine.hum_hz * (channel.sample_period or 1) * 1e-6
    at = angle * np.arange(samples)
    phase = rng.uniform(0, 2 * np.pi, n)
    hum = _HUM * np.minimum(day.level, 3.0)
    wave += np.outer(hum * np.cos(phase), np.sin(at)) + np.outer(hum * np.sin(phase), np.cos(at))
    row = np.repeat(np.arange(n), rng.poisson(day.impacts * samples))
    place = rng.integers(0, samples, len(row))
    size = (
        day.impact_size[row] * rng.uniform(0.7, 1.3, len(row)) * rng.choice((-1.0, 1.0), len(row))
    )
    for later, share in enumerate(_RING):
        inside = place + later < samples
        np.add.at(wave, (row[inside], place[inside] + later), share * size[inside])
    wave /= _ADC_STEP
    np.rint(wave, out=wave)
    wave *= _ADC_STEP
    return wave
