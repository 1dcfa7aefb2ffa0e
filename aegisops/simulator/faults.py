"""Rare instrument faults: what a sensor reports while it, not the machine, is broken.

Episodes are drawn per machine and day and may run into the next one; `apply` changes measured
arrays in place. The truth about the machine is untouched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from aegisops.machines.model import US_PER_HOUR
from aegisops.names import Quality
from aegisops.simulator.fleet import Bools, FleetPlan, Floats, Machine, Stream
from aegisops.simulator.fleet import generator as generator_of

_PER_DAY = 0.12
_CHANNELS = ("power", "temperature", "vibration")
_SPIKE_SHARE = 0.06
_DRIFT = {"power": 1.6, "temperature": 7.0, "vibration": -0.5}
"""At the episode's end: kW, K, and the relative gain of a loosened accelerometer."""
_SPIKE = {"power": 40.0, "temperature": 60.0, "vibration": 60.0}


class Fault(StrEnum):
    """Ways an instrument fails."""

    STUCK = "stuck"
    DRIFT = "drift"
    MISSING = "missing"
    BAD = "bad"
    SPIKES = "spikes"


_HOURS = {
    Fault.STUCK: (0.5, 4.0),
    Fault.DRIFT: (8.0, 24.0),
    Fault.MISSING: (0.2, 3.0),
    Fault.BAD: (0.2, 3.0),
    Fault.SPIKES: (0.2, 1.0),
}


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault of one channel over the steps [first, last)."""

    channel: str
    fault: Fault
    first: int
    last: int
    sign: float
    is_flagged: bool
    """Whether the instrument notices and marks its values as uncertain."""
    held: tuple[float, ...] = ()
    """STUCK: the value (or capture) it repeats; taken at the first step."""


@dataclass(slots=True)
class Signal:
    """Measured values [N] or captures [N, S] of one channel, with quality [N] and presence [N]."""

    values: Floats
    quality: np.ndarray
    is_sent: Bools


def draw(plan: FleetPlan, machine: Machine, block: int) -> list[Episode]:
    """Episodes that begin on this day."""
    rng = generator_of(plan.seed, machine.index, Stream.EPISODES, block)
    episodes = []
    for _ in range(int(rng.poisson(_PER_DAY))):
        channel = _CHANNELS[int(rng.integers(len(_CHANNELS)))]
        fault = list(Fault)[int(rng.integers(len(Fault)))]
        first = block * plan.block_steps + int(rng.integers(plan.block_steps))
        hours = rng.uniform(*_HOURS[fault])
        last = first + max(1, round(hours * US_PER_HOUR / plan.period))
        sign = 1.0 if rng.random() < 0.5 else -1.0  # noqa: PLR2004 - a coin
        flagged = bool(rng.random() < 0.5)  # noqa: PLR2004 - a coin
        episodes.append(Episode(channel, fault, first, last, sign, flagged))
    return episodes


def apply(
    plan: FleetPlan, machine: Machine, episode: Episode, signal: Signal, first: int
) -> Episode:
    """Distort the signal whose first row is step `first`; returns the episode to carry on."""
    low, high = max(episode.first - first, 0), min(episode.last - first, len(signal.values))
    if low >= high:
        return episode
    rows = slice(low, high)
    values = signal.values[rows]
    if episode.fault is Fault.STUCK:
        if not episode.held:
            episode = replace(episode, held=tuple(np.atleast_1d(values[0]).tolist()))
        values[:] = episode.held if values.ndim > 1 else episode.held[0]
    elif episode.fault is Fault.DRIFT:
        way = (np.arange(low, high) + first - episode.first) / (episode.last - episode.first)
        amount = _DRIFT[episode.channel]
        if values.ndim > 1:
            values *= (1 + amount * way)[:, None]
        else:
            values += episode.sign * amount * way
    elif episode.fault is Fault.MISSING:
        signal.is_sent[rows] = False
    elif episode.fault is Fault.BAD:
        signal.quality[rows] = Quality.BAD
        values[:] = 0.0 if values.ndim > 1 else np.nan
    else:
        _spikes(plan, machine, episode, values, low + first)
    if episode.is_flagged and episode.fault in {Fault.DRIFT, Fault.SPIKES}:
        signal.quality[rows] = np.maximum(signal.quality[rows], Quality.UNCERTAIN)
    return episode


def _spikes(
    plan: FleetPlan, machine: Machine, episode: Episode, values: Floats, first: int
) -> None:
    # One stream per episode, drawn whole: the day's edge must not change it.
    rng = generator_of(plan.seed, machine.index, Stream.SPIKES, episode.first)
    length = episode.last - episode.first
    hit = rng.random(length) < _SPIKE_SHARE
    size = rng.uniform(0.5, 1.5, length) * _SPIKE[episode.channel]
    part = slice(first - episode.first, first - episode.first + len(values))
    jump = np.where(hit, size, 0.0)[part]
    if values.ndim > 1:
        values[:, values.shape[1] // 2] += episode.sign * jump
    else:
        values += jump
