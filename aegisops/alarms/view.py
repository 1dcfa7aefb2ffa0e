"""An alarm as people and programs get it: its state beside its entry of the master database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from aegisops.alarms.lifecycle import Alarm
from aegisops.alarms.master import MasterDatabase
from aegisops.machines import AlarmDefinition

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row(alarm: Alarm, master: MasterDatabase, now: int) -> dict[str, Any]:
    """JSON members of one alarm; `now` in µs. Of a removed entry only the state is left."""
    entry = master.of(alarm)
    return {
        "alarm_id": alarm.alarm_id,
        "definition_id": alarm.definition_id,
        "kind": alarm.kind.value,
        "machine_id": alarm.machine_id,
        "machine_class": alarm.machine_class,
        "site": alarm.site,
        "area": alarm.area,
        "priority": alarm.priority,
        "state": alarm.state.value,
        **_texts(alarm, entry, master),
        "detail": alarm.detail,
        "value": alarm.value,
        "setpoint": alarm.setpoint,
        "is_active": alarm.is_active,
        "is_chattering": alarm.is_chattering(now),
        "occurrence": alarm.occurrence,
        "raised_at": iso(alarm.raised_at),
        "returned_at": iso(alarm.returned_at),
        "acknowledged_at": iso(alarm.acknowledged_at),
        "acknowledged_by": alarm.acknowledged_by,
        "comment": alarm.comment,
        "shelved_until": iso(alarm.shelved.until) if alarm.shelved else None,
        "shelved_by": alarm.shelved.by if alarm.shelved else None,
        "shelve_reason": alarm.shelved.reason if alarm.shelved else None,
        "suppressed_by": alarm.suppressed.reason if alarm.suppressed else None,
        "out_of_service_by": alarm.out_of_service.by if alarm.out_of_service else None,
        "out_of_service_reason": alarm.out_of_service.reason if alarm.out_of_service else None,
        "first_out": alarm.is_first_out,
        "group": alarm.group,
        "prediction_id": alarm.prediction_id,
        "outcome": alarm.outcome,
        "changed_at": iso(alarm.last.at) if alarm.last else None,
        "version": alarm.version,
    }


def _texts(alarm: Alarm, entry: AlarmDefinition | None, master: MasterDatabase) -> dict[str, Any]:
    if entry is None:
        gone = "Its entry was removed from the master alarm database."
        return {
            "title": alarm.definition_id,
            "cause": gone,
            "consequence": "",
            "response": "",
            "procedure": None,
            "time_to_respond_s": None,
            "owner": "",
            "unit": "1",
        }
    return {
        "title": entry.title,
        "cause": entry.cause,
        "consequence": entry.consequence,
        "response": entry.response,
        "procedure": entry.procedure,
        "time_to_respond_s": entry.time_to_respond_s,
        "owner": entry.owner,
        "unit": master.unit(alarm.machine_class, entry),
    }


def definition(machine_class: str, entry: AlarmDefinition, unit: str) -> dict[str, Any]:
    """JSON members of one entry; durations in seconds."""
    fields = entry.model_dump(mode="json")
    for name in ("time_to_respond", "on_delay", "off_delay", "re_alarm"):
        microseconds = fields.pop(name)
        fields[f"{name}_s"] = None if microseconds is None else microseconds / 1_000_000
    return {"machine_class": machine_class, "unit": unit, "group": entry.group, **fields}


def iso(us: int | None) -> str | None:
    """ISO-8601 UTC text, in milliseconds, of µs since 1970."""
    if us is None:
        return None
    moment = _EPOCH + timedelta(microseconds=us)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
