"""What each statistic means: from a merged tile state to a number. One line of maths each.

Undefined is NaN, never zero: a mean of nothing, a kurtosis of three values, a slope at one time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aegisops.features.tiles import INDEX, Floats, Ints
from aegisops.machines.model import (
    US_PER_SECOND,
    Channel,
    ChannelKind,
    FeatureSpec,
    MachineClass,
    Statistic,
)

RESOLUTION = 1e-7
"""Spread below this share of the largest value is a constant signal: finer than a 24-bit converter
resolves, and finer than float64 moments keep their digits."""

ONE_TIME = 1e-13
"""Time spread in s² below which all values have one time: two whole microseconds give 5e-13, the
rounding of equal times far less. A slope needs two times."""


def finalise(spec: FeatureSpec, state: Floats, machine_class: MachineClass) -> Floats:
    """Values [G] of a windowed feature from states [G, F]; not INCREASE, CUMULATIVE, TIME_SINCE."""
    return _FORMULAS[spec.statistic](state, spec, machine_class)


def counter_total(readings: Floats) -> float:
    """Increase along a counter's readings in time order; a fall is a reset to zero.

    The readings are the first and last of each tile, so a reset inside a tile is bridged at the
    tile's resolution: at most one tile's counts are missed per reset.
    """
    steps = np.diff(readings)
    return float(np.where(steps >= 0, steps, readings[1:]).sum())


def expected_values(spec: FeatureSpec, machine_class: MachineClass) -> float | None:
    """Good values a full window should hold; None for events and totals."""
    channel = machine_class.channels.get(spec.channel)
    if channel is None or spec.window is None:
        return None
    return spec.window / channel.period * _values_per_reading(channel)


def _values_per_reading(channel: Channel) -> int:
    return channel.samples if channel.kind is ChannelKind.WAVEFORM else 1


def elapsed(machine_class: MachineClass, since_us: Floats, now_us: Ints | int) -> Floats:
    """Hours (cycles on a cycle clock) from `since_us` to `now_us`, NaN where since is NaN."""
    return (now_us - since_us) / machine_class.hour


def _field(state: Floats, name: str) -> Floats:
    return state[:, INDEX[name]]


def _where(condition: np.ndarray, value: Floats) -> Floats:
    result: Floats = np.where(condition, value, np.nan)
    return result


def _divide(top: Floats, bottom: Floats, valid: np.ndarray) -> Floats:
    result: Floats = np.divide(top, bottom, out=np.full(len(top), np.nan), where=valid)
    return result


def _mean(state: Floats, *_: object) -> Floats:
    return _where(_field(state, "n") > 0, _field(state, "mean"))


def _std(state: Floats, *_: object) -> Floats:
    n = _field(state, "n")
    return np.sqrt(_divide(_field(state, "m2"), n - 1, n > 1))


def _rms(state: Floats, *_: object) -> Floats:
    n = _field(state, "n")
    return np.sqrt(_divide(_field(state, "m2"), n, n > 0) + _field(state, "mean") ** 2)


def _peak(state: Floats) -> Floats:
    return np.maximum(np.abs(_field(state, "min")), np.abs(_field(state, "max")))


def _kurtosis(state: Floats, *_: object) -> Floats:
    """Excess kurtosis n·M4/M2² - 3: 0 for a Gaussian signal, large for impacts."""
    n, m2 = _field(state, "n"), _field(state, "m2")
    varies = (n >= 4) & (m2 > n * (RESOLUTION * _peak(state)) ** 2)  # noqa: PLR2004
    return _divide(n * _field(state, "m4"), m2 * m2, varies) - 3


def _crest(state: Floats, *_: object) -> Floats:
    rms = _rms(state)
    return _divide(_peak(state), rms, rms > 0)


def _slope(state: Floats, _: FeatureSpec, machine_class: MachineClass) -> Floats:
    t_m2 = _field(state, "t_m2")
    per_second = _divide(_field(state, "tx_m2"), t_m2, t_m2 > ONE_TIME)
    return per_second * (machine_class.hour / US_PER_SECOND)


def _deviation(state: Floats, spec: FeatureSpec, machine_class: MachineClass) -> Floats:
    baseline = machine_class.channels[spec.channel].baseline
    assert baseline is not None  # noqa: S101 - the machine class refuses a deviation without one
    return _mean(state) - baseline


def _known(name: str) -> Callable[..., Floats]:
    return lambda state, *_: _where(_field(state, "n") > 0, _field(state, name))


_FORMULAS: dict[Statistic, Callable[[Floats, FeatureSpec, MachineClass], Floats]] = {
    Statistic.MEAN: _mean,
    Statistic.STD: _std,
    Statistic.RMS: _rms,
    Statistic.KURTOSIS: _kurtosis,
    Statistic.MIN: _known("min"),
    Statistic.MAX: _known("max"),
    Statistic.LAST: _known("last"),
    Statistic.CREST: _crest,
    Statistic.RATE_OF_CHANGE: _slope,
    Statistic.DEVIATION: _deviation,
    Statistic.COUNT: lambda state, *_: _field(state, "n").copy(),
}
