"""The live loop: paced by a clock we turn by hand, sent to a list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aegisops.errors import ConfigurationError
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.simulator import FleetPlan
from aegisops.simulator.live_fleet import LiveFleet
from aegisops.simulator.publishing import Defect, DefectFile, Pace, defect_path, request, run

PLAN = FleetPlan.ending(datetime(2025, 6, 20, 5, 30, tzinfo=UTC), machines=3, days=2)
MINUTE = 60_000_000


class Outbox:
    """A publisher that keeps what was flushed."""

    def __init__(self) -> None:
        self.queued: list[tuple[str, str, Mapping[str, Any]]] = []
        self.sent: list[tuple[str, str, Mapping[str, Any]]] = []

    def publish(self, topic: str, key: str, record: Mapping[str, Any]) -> None:
        self.queued.append((topic, key, record))

    def flush(self) -> None:
        self.sent += self.queued
        self.queued = []


class Hand:
    """A clock that one wait moves on by `step`, for `turns` waits."""

    def __init__(self, start: int, step: int, turns: int) -> None:
        self.now, self.step, self.turns = start, step, turns

    def clock(self) -> int:
        return self.now

    def wait(self) -> bool:
        self.now += self.step
        self.turns -= 1
        return self.turns < 0


def readings(outbox: Outbox) -> list[Mapping[str, Any]]:
    return [record for topic, _, record in outbox.sent if topic == READINGS_TOPIC]


def test_in_real_time_each_machine_sends_once_a_period() -> None:
    outbox, hand = Outbox(), Hand(PLAN.end, MINUTE // 60, 10 * 60)
    count = run(
        LiveFleet(PLAN), outbox, Pace(PLAN.end, PLAN.end, 1.0), clock=hand.clock, wait=hand.wait
    )
    assert count == len(outbox.sent) == 30
    for record in readings(outbox):
        source = record["blocks"][0]["start_us"]
        assert 0 <= record["sent_at"] - source <= MINUTE // 60


def test_catching_up_runs_at_speed_and_never_passes_the_clock() -> None:
    now = PLAN.end + 120 * MINUTE
    outbox, hand = Outbox(), Hand(now, 1_000_000, 10)
    pace = Pace(PLAN.end, now, 600.0)
    run(LiveFleet(PLAN), outbox, pace, clock=hand.clock, wait=hand.wait)
    newest = max(r["blocks"][0]["start_us"] for r in readings(outbox))
    assert PLAN.end + 98 * MINUTE <= newest <= PLAN.end + 100 * MINUTE
    assert pace.at(now + 60 * MINUTE) == now + 60 * MINUTE


def test_a_requested_defect_reaches_the_running_fleet(tmp_path: Path) -> None:
    request(tmp_path, Defect("spindle-001", "drive_overload", 1.0))  # of an earlier run
    file = DefectFile(defect_path(tmp_path))
    request(tmp_path, Defect("spindle-777", "bearing_wear", 1.0))
    request(tmp_path, Defect("spindle-002", "bearing_wear", 1.0))
    outbox, hand, complaints = Outbox(), Hand(PLAN.end, 10 * MINUTE, 18), []
    run(
        LiveFleet(PLAN),
        outbox,
        Pace(PLAN.end, PLAN.end, 1.0),
        clock=hand.clock,
        wait=hand.wait,
        defects=file.new,
        complain=complaints.append,
    )
    failed = [r for topic, _, r in outbox.sent if topic == EVENTS_TOPIC and r["type"] == "failure"]
    assert [(r["machine_id"], r["code"]) for r in failed] == [("spindle-002", "bearing_wear")]
    assert len(complaints) == 1
    assert "spindle-777" in complaints[0]


def test_a_half_written_request_waits_for_its_end(tmp_path: Path) -> None:
    file = DefectFile(defect_path(tmp_path))
    request(tmp_path, Defect("spindle-001", "bearing_wear"))
    with defect_path(tmp_path).open("ab") as raw:
        raw.write(b'{"machine_id": "spin')
    assert file.new() == [Defect("spindle-001", "bearing_wear")]
    assert file.new() == []
    with defect_path(tmp_path).open("ab") as raw:
        raw.write(b'dle-002", "mode": "coolant_loss", "hours": 2}\n')
    assert file.new() == [Defect("spindle-002", "coolant_loss", 2)]


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        ("spindle-003:bearing_wear", Defect("spindle-003", "bearing_wear")),
        ("spindle-003:coolant_loss:2.5", Defect("spindle-003", "coolant_loss", 2.5)),
    ],
)
def test_a_defect_is_written_as_machine_mode_and_hours(text: str, defect: Defect) -> None:
    assert Defect.parse(text) == defect


def test_a_defect_with_wrong_hours_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="MACHINE:MODE:HOURS"):
        Defect.parse("spindle-003:bearing_wear:soon")
