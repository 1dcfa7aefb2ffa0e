"""The append-only journal: a record per transition, and states from records. Pure.

A record carries the whole snapshot it led to. So the newest record of an alarm is its state, and a
record that comes twice, late or out of order does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aegisops.alarms import lifecycle
from aegisops.alarms.lifecycle import Alarm
from aegisops.names import Transition


def journal_id(alarm: Alarm) -> str:
    """Identity of the record of the alarm's last transition."""
    return f"{alarm.alarm_id}-{alarm.version}"


def record(alarm: Alarm) -> dict[str, Any]:
    """The alarms.avsc record of the transition that led to this snapshot."""
    last = alarm.last
    assert last is not None  # noqa: S101 - only a transition makes a record
    return {
        "journal_id": journal_id(alarm),
        "alarm_id": alarm.alarm_id,
        "version": alarm.version,
        "changed_at": last.at,
        "transition": last.transition.value,
        "state": alarm.state.value,
        "kind": alarm.kind.value,
        "priority": alarm.priority,
        "definition_id": alarm.definition_id,
        "revision": alarm.revision,
        "machine_id": alarm.machine_id,
        "machine_class": alarm.machine_class,
        "site": alarm.site,
        "area": alarm.area,
        "cause_group": alarm.group,
        "is_first_out": alarm.is_first_out,
        "is_active": alarm.is_active,
        "raised_at": alarm.raised_at,
        "occurrence": alarm.occurrence,
        "subject": last.by,
        "comment": last.reason,
        "value": alarm.value,
        "setpoint": alarm.setpoint,
        "prediction_id": alarm.prediction_id,
        "snapshot": lifecycle.dump(alarm).decode(),
    }


def replay(records: Iterable[Mapping[str, Any]]) -> dict[str, Alarm]:
    """Alarm id → state after these records, in whatever order and however often they come."""
    newest: dict[str, Mapping[str, Any]] = {}
    for each in records:
        known = newest.get(each["alarm_id"])
        if known is None or each["version"] > known["version"]:
            newest[each["alarm_id"]] = each
    return {
        alarm_id: lifecycle.load(each["snapshot"])
        for alarm_id, each in newest.items()
        if each["transition"] != Transition.REMOVED
    }
