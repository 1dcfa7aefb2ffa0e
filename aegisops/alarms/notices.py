"""What a pager must be told of an alarm next (PagerDuty Events API v2). Pure.

Nothing is queued: what was told last is compared with what the alarm's state asks for now. So a
pager that was away learns the present, in order, and not a past that is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aegisops.alarms.lifecycle import Alarm
from aegisops.alarms.view import iso
from aegisops.names import AlarmKind, AlarmState

LONGEST_SUMMARY = 1_024
_SEVERITIES = {1: "critical", 2: "error", 3: "warning", 4: "info"}


class Action(StrEnum):
    """Event actions of the API."""

    TRIGGER = "trigger"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True)
class Told:
    """What the pager was told last: of which occurrence, and what."""

    occurrence: int
    action: Action

    @classmethod
    def parse(cls, text: str) -> Told:
        """From its text."""
        occurrence, _, action = text.partition(" ")
        return cls(int(occurrence), Action(action))

    def __str__(self) -> str:
        return f"{self.occurrence} {self.action}"


@dataclass(frozen=True, slots=True)
class Step:
    """The next event: what, and of which occurrence."""

    alarm_id: str
    occurrence: int
    action: Action

    @property
    def dedup_key(self) -> str:
        """The same for every event of one occurrence, whoever sends it and however often."""
        return f"aegisops-{self.alarm_id}-{self.occurrence}"

    @property
    def told(self) -> Told | None:
        """What is to be remembered; a resolved occurrence is forgotten."""
        if self.action is Action.RESOLVE:
            return None
        return Told(self.occurrence, self.action)


def next_step(alarm: Alarm, told: Told | None, lowest_priority: int) -> Step | None:
    """The event that brings the pager one step nearer to the alarm's state; None = it knows."""
    wanted = _wanted(alarm, lowest_priority)
    if told is None:
        # An acknowledgement of what was never triggered would be about nothing.
        is_news = wanted is not Action.RESOLVE
        return Step(alarm.alarm_id, alarm.occurrence, Action.TRIGGER) if is_news else None
    if told.occurrence != alarm.occurrence:
        return Step(alarm.alarm_id, told.occurrence, Action.RESOLVE)
    if told.action is wanted:
        return None
    return Step(alarm.alarm_id, alarm.occurrence, wanted)


def _wanted(alarm: Alarm, lowest_priority: int) -> Action:
    if alarm.kind is AlarmKind.ALARM and alarm.priority <= lowest_priority:
        if alarm.state is AlarmState.UNACKNOWLEDGED:
            return Action.TRIGGER
        if alarm.state is AlarmState.ACKNOWLEDGED:
            return Action.ACKNOWLEDGE
    return Action.RESOLVE


def event(step: Step, row: dict[str, Any], routing_key: str) -> dict[str, Any]:
    """The request's body; `row` is the alarm as the API shows it."""
    body: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": step.action.value,
        "dedup_key": step.dedup_key,
    }
    if step.action is Action.TRIGGER:
        body["client"] = "AegisOps"
        body["payload"] = _payload(row)
    return body


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    where = row["machine_id"] or "AegisOps"
    value = ""
    if row["value"] is not None:
        unit = "" if row["unit"] == "1" else f" {row['unit']}"
        value = f", {row['value']:.4g}{unit}"
        if row["setpoint"] is not None:
            value += f" (limit {row['setpoint']:g})"
    shown = (
        "alarm_id",
        "priority",
        "cause",
        "consequence",
        "response",
        "procedure",
        "time_to_respond_s",
        "owner",
        "value",
        "setpoint",
        "unit",
        "detail",
        "first_out",
        "group",
    )
    return {
        "summary": f"{where}: {row['title']}{value}. {row['response']}"[:LONGEST_SUMMARY],
        "source": where,
        "severity": _SEVERITIES[row["priority"]],
        "timestamp": row["raised_at"] or iso(0),
        "component": row["definition_id"],
        "group": "/".join(part for part in (row["site"], row["area"]) if part),
        "class": row["group"],
        "custom_details": {name: row[name] for name in shown},
    }
