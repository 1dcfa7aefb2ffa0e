"""Live readings go on exactly where history stopped."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import polars as pl
import pytest

from aegisops.errors import ConfigurationError, UnknownMachine
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.simulator import FleetPlan, history
from aegisops.simulator.live_fleet import LiveFleet, Message, stamped

END = datetime(2025, 6, 20, 5, 30, tzinfo=UTC)
HOUR = 3_600_000_000


def plan(days: float = 2.3, machines: int = 2) -> FleetPlan:
    start = FleetPlan.ending(END, days=2.3).start
    return FleetPlan(seed=7, machines=machines, start=start, days=days)


def scalars(messages: list[Message]) -> list[tuple[Any, ...]]:
    return sorted(
        (
            m.machine_id,
            b["channel"],
            b["start_us"],
            b["values"][0] if b["values"] else None,
            b["quality"],
        )
        for m in messages
        if m.topic == READINGS_TOPIC
        for b in m.record["blocks"]
        if b["channel"] != "vibration"
    )


def events(messages: list[Message]) -> list[tuple[Any, ...]]:
    return sorted(tuple(m.record.values()) for m in messages if m.topic == EVENTS_TOPIC)


def rows(frames: list[pl.DataFrame]) -> list[tuple[Any, ...]]:
    frame = pl.concat(frames).select(
        "machine_id", "channel", pl.col("ts").cast(pl.Int64), "value", "quality"
    )
    return sorted(frame.iter_rows())


def told(frames: list[pl.DataFrame]) -> list[tuple[Any, ...]]:
    frame = pl.concat(frames).select(
        "machine_id", pl.col("ts").cast(pl.Int64), "type", "code", "detail"
    )
    return sorted(frame.iter_rows())


@pytest.mark.parametrize("days", [1.0, 2.3, 11.0])
def test_history_and_live_together_are_the_longer_history(days: float) -> None:
    short, long = plan(days), plan(days + 2.2)
    past, whole = list(history(short)), list(history(long))
    live = LiveFleet(short).due(long.end - 1)
    assert rows([c.readings for c in past]) + scalars(live) != []
    assert sorted(rows([c.readings for c in past]) + scalars(live)) == rows(
        [c.readings for c in whole]
    )
    assert sorted(told([c.events for c in past]) + events(live)) == told([c.events for c in whole])


def test_captures_continue_too() -> None:
    short, long = plan(1.0, 1), plan(1.5, 1)
    whole = next(history(long)).waveforms.filter(pl.col("ts").cast(pl.Int64) >= short.end)
    live = [
        (b["start_us"], b["period_us"], b["values"])
        for m in LiveFleet(short).due(long.end - 1)
        if m.topic == READINGS_TOPIC
        for b in m.record["blocks"]
        if b["channel"] == "vibration"
    ]
    expected = whole.select(pl.col("ts").cast(pl.Int64), "period_us", "values").rows()
    assert live == expected


def test_small_turns_of_the_clock_give_the_same_messages_as_one_large() -> None:
    short = plan()
    one = LiveFleet(short).due(short.end + 30 * HOUR)
    fleet, many = LiveFleet(short), []
    for now in range(short.end, short.end + 30 * HOUR + 1, HOUR // 7):
        many += fleet.due(now)
    many += fleet.due(short.end + 30 * HOUR, limit=5)
    while rest := fleet.due(short.end + 30 * HOUR, limit=5):
        many += rest
    assert sorted(many, key=repr) == sorted(one, key=repr)


def test_nothing_is_due_before_its_time_and_nothing_twice() -> None:
    fleet = LiveFleet(plan())
    assert fleet.due(plan().end - 1) == []
    first = fleet.due(plan().end + HOUR)
    assert len([m for m in first if m.topic == READINGS_TOPIC]) == 2 * 60
    assert all(plan().end <= m.ts <= plan().end + HOUR for m in first)
    assert fleet.due(plan().end + HOUR) == []


def test_resuming_sends_what_was_not_sent_and_skips_old_readings_but_no_event() -> None:
    end = plan().end
    everything = LiveFleet(plan(machines=8)).due(end + 48 * HOUR)
    resumed = LiveFleet(plan(machines=8), resume_at=end + 10 * HOUR).due(end + 48 * HOUR)
    assert scalars(resumed) == scalars([m for m in everything if m.ts >= end + 10 * HOUR])
    late = LiveFleet(plan(machines=8), readings_from=end + 40 * HOUR).due(end + 48 * HOUR)
    assert events(late) == events(everything)
    assert scalars(late) == scalars([m for m in everything if m.ts >= end + 40 * HOUR])


def test_readings_left_out_do_not_slow_the_catching_up() -> None:
    end = plan().end
    fleet = LiveFleet(plan(), readings_from=end + 71 * HOUR)
    messages = fleet.due(end + 72 * HOUR, limit=20)
    assert len([m for m in messages if m.topic == READINGS_TOPIC]) == 2 * 20
    assert min(m.ts for m in messages if m.topic == READINGS_TOPIC) >= end + 71 * HOUR


@pytest.mark.parametrize("mode", ["bearing_wear", "coolant_loss", "drive_overload"])
def test_an_injected_defect_ends_in_its_failure_and_leaves_the_others_alone(mode: str) -> None:
    end = plan().end
    plain, fleet = LiveFleet(plan()), LiveFleet(plan())
    assert fleet.due(end + HOUR) == plain.due(end + HOUR)
    fleet.inject("spindle-001", mode, hours=5)
    messages, expected = fleet.due(end + 14 * HOUR), plain.due(end + 14 * HOUR)
    failed = next(m for m in messages if m.record.get("type") == "failure")
    assert (failed.machine_id, failed.record["code"]) == ("spindle-001", mode)
    assert end + 4 * HOUR < failed.ts < end + 9 * HOUR
    other = [m for m in messages if m.machine_id == "spindle-002"]
    assert other == [m for m in expected if m.machine_id == "spindle-002"]


def test_a_defect_can_be_injected_while_the_machine_is_under_repair() -> None:
    end = plan().end
    fleet = LiveFleet(plan())
    fleet.inject("spindle-001", "coolant_loss", hours=0.5)
    first = next(m for m in fleet.due(end + HOUR) if m.topic == EVENTS_TOPIC)
    fleet.inject("spindle-001", "bearing_wear", hours=1)
    codes = [
        m.record["code"]
        for m in fleet.due(end + 24 * HOUR)
        if m.record.get("type") == "failure" and m.machine_id == "spindle-001"
    ]
    assert first.record["code"] == "coolant_loss"
    assert codes == ["bearing_wear"]


def test_wrong_injections_say_what_would_be_right() -> None:
    fleet = LiveFleet(plan(machines=1))
    with pytest.raises(UnknownMachine, match="spindle-009"):
        fleet.inject("spindle-009", "bearing_wear")
    with pytest.raises(ConfigurationError, match="bearing_wear, coolant_loss"):
        fleet.inject("spindle-001", "rust")
    with pytest.raises(ConfigurationError, match="hours"):
        fleet.inject("spindle-001", "bearing_wear", hours=0)


def test_the_senders_clock_is_stamped_on_readings_only() -> None:
    end = plan().end
    messages = [stamped(m, 99) for m in LiveFleet(plan(machines=8)).due(end + 48 * HOUR)]
    assert {m.record["sent_at"] for m in messages if m.topic == READINGS_TOPIC} == {99}
    assert all("sent_at" not in m.record for m in messages if m.topic == EVENTS_TOPIC)


def test_a_hastened_defect_grows_on_the_real_clock_and_ends_with_the_repair() -> None:
    fleet = LiveFleet(plan())
    now = fleet.plan.end + HOUR // 60
    fleet.due(now)
    fleet.inject("spindle-001", "bearing_wear", hours=6, speed=60)
    told, times = [], []
    while not any(m.record.get("type") == "maintenance" for m in told) and len(told) < 20_000:
        now += 1_000_000
        new = [m for m in fleet.due(now) if m.machine_id == "spindle-001"]
        assert all(m.ts <= now for m in new)
        times += [m.ts for m in new if m.topic == READINGS_TOPIC]
        told += new
    failed = next(m for m in told if m.record.get("type") == "failure")
    assert failed.record["code"] == "bearing_wear"
    assert 4 * HOUR // 60 < failed.ts - fleet.plan.end < 12 * HOUR // 60
    assert times == sorted(set(times))
    assert min(b - a for a, b in pairwise(times)) == 1_000_000
    after = [m.ts for m in fleet.due(now + HOUR) if m.machine_id == "spindle-001"]
    assert 55 <= len(after) <= 70  # once a minute again


def test_no_machine_lives_faster_than_its_waveforms_last() -> None:
    with pytest.raises(ConfigurationError, match="1 to 120"):
        LiveFleet(plan()).inject("spindle-001", "bearing_wear", speed=1e6)
