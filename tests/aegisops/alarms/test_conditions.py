"""Deadband and delays, against a slow and obvious reading of the rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegisops.alarms.conditions import (
    BETWEEN,
    GONE,
    HOLDS,
    UNKNOWN,
    Timers,
    advance,
    doubtful,
    judge_limit,
)


def codes(*values: float, direction: str = "above") -> list[int]:
    return judge_limit(np.array(values), 6.0, 0.5, direction).tolist()


def test_an_alarm_above_holds_from_the_setpoint_and_is_gone_below_the_deadband():
    assert codes(6.0, 7.0, 5.9, 5.5, 5.4, np.nan) == [HOLDS, HOLDS, BETWEEN, BETWEEN, GONE, UNKNOWN]


def test_an_alarm_below_mirrors_it():
    found = codes(6.0, 5.0, 6.1, 6.5, 6.6, direction="below")
    assert found == [HOLDS, HOLDS, BETWEEN, BETWEEN, GONE]


def test_poor_data_may_raise_but_never_end_an_alarm():
    found = doubtful(np.array([HOLDS, GONE, BETWEEN], np.int8), np.array([True, True, False]))
    assert found.tolist() == [HOLDS, UNKNOWN, BETWEEN]


def test_a_value_that_dips_before_the_delay_is_over_raises_nothing():
    timers = Timers.of(1)
    turned = [
        advance(timers, np.array([code], np.int8), now, 30, 0).raised.size
        for now, code in [(100, HOLDS), (120, BETWEEN), (125, HOLDS), (150, HOLDS), (155, HOLDS)]
    ]
    assert turned == [0, 0, 0, 0, 1]


def test_a_missing_value_neither_breaks_a_delay_nor_ends_it():
    timers = Timers.of(1)
    steps = [(100, HOLDS), (110, UNKNOWN), (140, UNKNOWN), (141, HOLDS)]
    turned = [
        advance(timers, np.array([code], np.int8), now, 30, 0).raised.size for now, code in steps
    ]
    assert turned == [0, 0, 0, 1]


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from([HOLDS, BETWEEN, GONE, UNKNOWN])),
        max_size=60,
    ),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_delays_equal_a_slow_and_obvious_reading(steps, on_delay, off_delay):
    timers, now = Timers.of(3), 1_000
    history: list[tuple[int, int]] = []
    is_active = False
    for wait, code in steps:
        now += wait
        history.append((now, code))
        row = np.array([code, UNKNOWN, code], np.int8)
        turned = advance(timers, row, now, on_delay, off_delay)
        # Obvious: the newest known code is the opposite one, and the unbroken run of it (unknown
        # values left out) began at least a delay ago.
        wanted, delay = (GONE, off_delay) if is_active else (HOLDS, on_delay)
        run = []
        for at, seen in reversed(history):
            if seen == wanted:
                run.append(at)
            elif seen != UNKNOWN:
                break
        expected = code == wanted and bool(run) and now - run[-1] >= delay
        assert bool(len(turned.raised) + len(turned.returned)) == expected
        if expected:
            assert (turned.returned if is_active else turned.raised).tolist() == [0, 2]
            is_active = not is_active
            history.clear()
        assert timers.is_active.tolist() == [is_active, False, is_active]


@pytest.mark.parametrize("n", [0, 10_000])
def test_a_whole_fleet_is_judged_at_once(n: int):
    timers = Timers.of(n)
    turned = advance(timers, np.full(n, HOLDS, np.int8), 5, 0, 0)
    assert turned.raised.tolist() == list(range(n))
