"""Whether conditions hold: values against entries, deadband and delays, for whole fleets at once.

Pure numpy. One `Timers` belongs to one entry of the master database and holds one row per machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

HOLDS: Final = 1
GONE: Final = -1
BETWEEN: Final = 0
"""In the deadband: neither raises nor returns."""
UNKNOWN: Final = 2
"""Nobody can say; everything stays as it is."""


def judge_limit(values: Floats, setpoint: float, deadband: float, direction: str) -> Codes:
    """Codes [N] of values [N] against a limit; NaN is UNKNOWN.

    `above`: holds from the setpoint up, gone below setpoint minus deadband; `below` mirrors it.
    """
    over = values - setpoint if direction == "above" else setpoint - values
    codes = np.full(len(values), UNKNOWN, np.int8)
    codes[over >= 0] = HOLDS
    codes[(over < 0) & (over >= -deadband)] = BETWEEN
    codes[over < -deadband] = GONE
    return codes


def doubtful(codes: Codes, doubt: Bools) -> Codes:
    """Codes with GONE turned into UNKNOWN where the data is in `doubt` [N].

    Poor data may raise an alarm but never ends one.
    """
    return np.where(doubt & (codes != HOLDS), np.int8(UNKNOWN), codes)


@dataclass(slots=True)
class Timers:
    """Per machine: whether the alarm is active, and since when the opposite has been seen."""

    is_active: Bools
    since: npt.NDArray[np.int64]
    """µs; 0 = not seen."""

    @classmethod
    def of(cls, n: int) -> Timers:
        """N inactive alarms."""
        return cls(np.zeros(n, np.bool_), np.zeros(n, np.int64))


@dataclass(frozen=True, slots=True)
class Turned:
    """Rows whose alarm became active or inactive, and when their condition first showed so (µs)."""

    raised: npt.NDArray[np.intp]
    returned: npt.NDArray[np.intp]
    since: npt.NDArray[np.int64]


def advance(timers: Timers, codes: Codes, now: int, on_delay: int, off_delay: int) -> Turned:
    """Move the timers to `now` (µs) and tell which alarms turned; delays in µs.

    A delay runs while the opposite condition is seen without a break; UNKNOWN is no break.
    """
    wanted = np.where(timers.is_active, GONE, HOLDS)
    sees = codes == wanted
    breaks = ~sees & (codes != UNKNOWN)
    timers.since[breaks] = 0
    begins = sees & (timers.since == 0)
    timers.since[begins] = now
    delay = np.where(timers.is_active, off_delay, on_delay)
    turns = np.flatnonzero(sees & (now - timers.since >= delay))
    since = timers.since[turns].copy()
    was_active = timers.is_active[turns]
    timers.is_active[turns] = ~was_active
    timers.since[turns] = 0
    full = np.zeros(len(codes), np.int64)
    full[turns] = since
    return Turned(turns[~was_active], turns[was_active], full)
