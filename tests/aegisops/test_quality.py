from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops import quality
from aegisops.machines import load_class
from aegisops.names import Reason
from aegisops.quality import Level, Limits, judge_counter, judge_events, judge_feedback
from aegisops.schemas import tables

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
LIMITS = Limits(max_future_us=300 * SECOND, max_past_us=3_650 * 86_400 * SECOND)
SPINDLE = load_class("cnc_spindle")
CYCLES = SPINDLE.model_copy(update={"name": "engine", "clock": "cycles"})
FLEET = {"m-1": SPINDLE, "m-2": SPINDLE, "e-1": CYCLES}
BLOCK = pl.Struct(
    {
        "channel": pl.String,
        "start_us": pl.Int64,
        "period_us": pl.Int64,
        "quality": pl.Int32,
        "values": pl.List(pl.Float64),
    }
)


def block(channel, *values, start=NOW, period=None, quality=0):
    return {
        "channel": channel,
        "start_us": start,
        "period_us": period,
        "quality": quality,
        "values": list(values),
    }


def messages(*rows):
    return pl.DataFrame(
        [
            {"machine_id": machine, "seq": i, "blocks": blocks, "arrived_us": NOW, "_offset": i}
            for i, (machine, *blocks) in enumerate(rows)
        ],
        schema={
            "machine_id": pl.String,
            "seq": pl.Int64,
            "blocks": pl.List(BLOCK),
            "arrived_us": pl.Int64,
            "_offset": pl.Int64,
        },
    )


def judge(*rows, counters=None):
    return quality.judge_readings(messages(*rows), FLEET, LIMITS, counters or {})


def reasons(judged):
    return judged.rejected["reason"].to_list()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (block("colour", 1.0), Reason.UNKNOWN_CHANNEL),
        (block("temperature", math.nan), Reason.NOT_FINITE),
        (block("temperature", math.inf), Reason.NOT_FINITE),
        (block("temperature", math.nan, quality=1), Reason.NOT_FINITE),
        (block("temperature"), Reason.NOT_FINITE),
        (block("vibration", 1.0, math.nan), Reason.NOT_FINITE),
        (block("vibration", -math.inf, 0.0), Reason.NOT_FINITE),
        (block("vibration"), Reason.NOT_FINITE),
        (block("temperature", 251.0), Reason.OUT_OF_RANGE),
        (block("vibration", 0.0, -501.0, 1.0), Reason.OUT_OF_RANGE),
        (block("cycles", -1.0), Reason.NEGATIVE_COUNTER),
        (block("temperature", 20.0, quality=3), Reason.UNKNOWN_VOCABULARY),
        (block("temperature", 20.0, 21.0), Reason.MALFORMED),
        (block("vibration", 1.0, 2.0, period=-5), Reason.MALFORMED),
        (block("temperature", 20.0, start=NOW + 301 * SECOND), Reason.FUTURE_TIMESTAMP),
        (block("vibration", *[2.0] * 9, period=2**60), Reason.FUTURE_TIMESTAMP),
        (block("temperature", 20.0, start=0), Reason.ANCIENT_TIMESTAMP),
        (block("temperature", 20.0, start=-(2**63)), Reason.ANCIENT_TIMESTAMP),
    ],
)
def test_one_bad_reading_is_rejected_with_its_reason_and_its_neighbours_are_kept(bad, reason):
    judged = judge(("m-1", block("power", 1.0), bad, block("power", 2.0)))
    assert set(reasons(judged)) == {reason}
    assert judged.rejected["why"].null_count() == 0
    assert judged.scalars["value"].to_list() == [1.0, 2.0]
    assert judged.scalars["_index"].to_list() == [0, 1 + max(len(bad["values"]), 1)]


def test_every_reading_of_a_good_message_is_kept_in_order_with_its_own_time_and_index():
    judged = judge(
        ("m-1", block("temperature", 20.0, 21.0, period=SECOND), block("vibration", 1.0, 2.0, 3.0)),
        ("m-2", block("cycles", 7.0, start=NOW - SECOND)),
    )
    assert not reasons(judged)
    assert judged.scalars.select("machine_id", "channel", "ts", "value", "_index").rows() == [
        ("m-1", "temperature", NOW, 20.0, 0),
        ("m-1", "temperature", NOW + SECOND, 21.0, 1),
        ("m-2", "cycles", NOW - SECOND, 7.0, 0),
    ]
    capture = judged.waveforms.row(0, named=True)
    assert capture["values"] == [1.0, 2.0, 3.0]
    assert (capture["_index"], capture["period_us"]) == (2, 1_000)  # the class's sample period


def test_a_message_of_an_unknown_machine_is_one_dead_letter():
    judged = judge(("ghost", block("temperature", 20.0), block("power", 1.0)), ("m-1",))
    assert judged.rejected.select("machine_id", "channel", "reason", "_index").rows() == [
        ("ghost", None, Reason.UNKNOWN_MACHINE, 0)
    ]
    assert judged.scalars.is_empty()


def test_a_bad_value_is_kept_without_a_number_that_is_none():
    judged = judge(
        (
            "m-1",
            block("temperature", math.nan, quality=2),
            block("temperature", quality=2),
            block("temperature", 999.0, quality=2),
            block("vibration", math.nan, 1.0, quality=2),
        )
    )
    assert not reasons(judged)
    assert judged.scalars["value"].to_list() == [None, None, 999.0]
    assert judged.waveforms["quality"].to_list() == [2]


def test_a_cycle_clock_has_no_future_and_no_past_but_must_fit_a_date():
    judged = judge(
        ("e-1", block("temperature", 20.0, start=5 * SECOND)),
        ("e-1", block("temperature", 20.0, start=2**62)),
    )
    assert reasons(judged) == [Reason.FUTURE_TIMESTAMP]
    assert judged.scalars.height == 1


def test_values_whose_time_leaves_the_calendar_are_rejected_and_those_before_are_kept():
    judged = judge(("m-1", block("temperature", *[2.0] * 9, period=2**60)))
    assert judged.scalars["ts"].to_list() == [NOW]
    assert reasons(judged) == [Reason.FUTURE_TIMESTAMP] * 8


def test_no_messages_give_no_readings():
    judged = judge()
    assert judged.readings.is_empty()
    assert judged.rejected.is_empty()
    assert judged.levels == {}


# --- counters


def cycles(*steps):
    return ("m-1", *(block("cycles", x, start=NOW + t * SECOND) for t, x in steps))


def test_a_jump_is_rejected_a_fall_is_a_reset_and_the_level_is_kept_for_the_next_flush():
    judged = judge(cycles((0, 100), (60, 200), (120, 9_000), (180, 300), (240, 0), (300, 4)))
    assert judged.rejected.select("reason", "value").rows() == [(Reason.COUNTER_JUMP, 9_000.0)]
    assert judged.levels == {("m-1", "cycles"): Level(NOW + 300 * SECOND, 4.0)}
    later = judge(cycles((300, 5_000)), counters=judged.levels)
    assert reasons(later) == [Reason.COUNTER_JUMP]


def test_the_first_reading_of_a_counter_has_nothing_to_jump_from():
    assert not reasons(judge(cycles((0, 800_000_000))))


def test_a_late_counter_reading_is_kept_and_does_not_move_the_level():
    before = {("m-1", "cycles"): Level(NOW + 600 * SECOND, 1_000.0)}
    judged = judge(cycles((0, 5)), counters=before)
    assert not reasons(judged)
    assert judged.levels == before


def test_a_new_level_that_agrees_with_itself_replaces_the_old_one():
    judged = judge(cycles((0, 10), (60, 70_000), (120, 70_010), (180, 70_020), (240, 70_030)))
    assert judged.rejected["value"].to_list() == [70_000.0, 70_010.0]
    assert judged.levels[("m-1", "cycles")].value == 70_030


def test_judging_does_not_change_the_levels_it_was_given():
    before = {("m-1", "cycles"): Level(NOW, 1.0)}
    judge(cycles((60, 2)), counters=before)
    assert before == {("m-1", "cycles"): Level(NOW, 1.0)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9, 4), st.integers(0, 900)), min_size=1, max_size=25),
    st.integers(1, 5),
)
def test_judging_many_at_once_equals_judging_one_reading_after_the_other(steps, cut):
    steps = [(60 * minute, value) for minute, value in steps]
    rule = {"max_rate": 5.0, "period_s": 60.0}
    ts = np.array([NOW + t * SECOND for t, _ in steps])
    values = np.array([float(x) for _, x in steps])
    bad, end = judge_counter(None, ts, values, **rule)
    levels, kept = {}, []
    for begin in range(0, len(steps), cut):
        judged = judge(cycles(*steps[begin : begin + cut]), counters=levels)
        levels.update(judged.levels)
        kept += judged.readings["reason"].is_null().to_list()
    assert kept == (~bad).tolist()
    assert levels == {("m-1", "cycles"): end}


# --- properties

number = st.floats(allow_nan=True, allow_infinity=True, width=64)
any_block = st.builds(
    lambda channel, start, period, quality, values: {
        "channel": channel,
        "start_us": start,
        "period_us": period,
        "quality": quality,
        "values": values,
    },
    st.sampled_from(["temperature", "vibration", "cycles", "power", "colour"]),
    st.sampled_from([NOW, NOW + 1, 0, -5, 2**62]) | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.sampled_from([0, -1, 1_000, SECOND, 2**62]),
    st.integers(-1, 4),
    st.lists(number | st.floats(-30, 30), max_size=5),
)
any_message = st.tuples(
    st.sampled_from(["m-1", "m-2", "e-1", "ghost"]), st.lists(any_block, max_size=4)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(any_message, max_size=6))
def test_whatever_arrives_is_either_good_within_its_contract_or_rejected_with_a_reason(rows):
    judged = judge(*((machine, *blocks) for machine, blocks in rows))
    for row in judged.scalars.iter_rows(named=True):
        channel = FLEET[row["machine_id"]].channels[row["channel"]]
        assert row["quality"] in {0, 1, 2}
        if row["quality"] < 2:
            assert channel.limits[0] <= row["value"] <= channel.limits[1]
        else:
            assert row["value"] is None or math.isfinite(row["value"])
        if row["machine_id"] != "e-1":
            assert abs(row["ts"] - NOW) <= LIMITS.max_past_us
    for row in judged.waveforms.iter_rows(named=True):
        assert row["period_us"] >= tables.WAVEFORMS.columns["period_us"].low
        if row["quality"] < 2:
            assert row["values"]
            assert all(-500 <= x <= 500 for x in row["values"])
    assert judged.rejected["why"].null_count() == 0
    expected = sum(
        1 if b["channel"] == "vibration" and machine != "ghost" else max(len(b["values"]), 1)
        for machine, blocks in rows
        for b in blocks
    )
    assert judged.readings.height == expected
    good = judged.scalars.height + judged.waveforms.height
    known = judged.readings.filter(pl.col("reason").ne_missing(Reason.UNKNOWN_MACHINE)).height
    ghosts = sum(1 for machine, blocks in rows if machine == "ghost" and blocks)
    assert good + judged.rejected.height == known + ghosts
    keys = pl.concat(
        [f.select("_offset", "_index") for f in (judged.scalars, judged.waveforms, judged.rejected)]
    )
    assert keys.is_duplicated().sum() == 0


# --- events and feedback


def rows(*items, **extra):
    names = ["machine_id", "ts", *extra]
    return pl.DataFrame(items, schema=names, orient="row").with_columns(arrived_us=pl.lit(NOW))


def test_events_are_judged_by_machine_type_and_time():
    events = rows(
        ("m-1", NOW, "failure"),
        ("ghost", NOW, "failure"),
        ("m-1", NOW, "party"),
        ("m-1", NOW + 900 * SECOND, "error"),
        ("m-1", 0, "error"),
        ("e-1", 3 * SECOND, "maintenance"),
        type=None,
    )
    judged = judge_events(events, FLEET, LIMITS)
    assert judged["reason"].to_list() == [
        None,
        Reason.UNKNOWN_MACHINE,
        Reason.UNKNOWN_VOCABULARY,
        Reason.FUTURE_TIMESTAMP,
        Reason.ANCIENT_TIMESTAMP,
        None,
    ]
    assert judged["why"].is_null().to_list() == judged["reason"].is_null().to_list()


def test_feedback_outside_the_vocabulary_is_rejected():
    feedback = rows(("m-1", NOW, "confirmed"), ("m-1", NOW, "meh"), outcome=None)
    judged = judge_feedback(feedback, FLEET, LIMITS)
    assert judged["reason"].to_list() == [None, Reason.UNKNOWN_VOCABULARY]
