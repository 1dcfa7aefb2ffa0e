"""Figures of an alarm system, from its journal alone. Pure.

Definitions after ISA-18.2 / EEMUA 191: rates count alarms that were annunciated (shown as
unacknowledged when raised), 10-minute periods are those of the clock, a flood period has more than
ten, a stale alarm has been active for more than a day, chatter is three raises within a minute.
Advisories do not count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from aegisops.alarms.flood import BEGINS_ABOVE
from aegisops.alarms.lifecycle import CHATTER_RAISES, CHATTER_US, SHOWN
from aegisops.names import AlarmKind, AlarmState, Transition

PERIOD_US = 600_000_000
STALE_US = 86_400_000_000
TOP = 10
_HOUR_US = 3_600_000_000

_ANNUNCIATED = (Transition.RAISED, AlarmState.UNACKNOWLEDGED)

Record = Mapping[str, Any]


def figures(records: Iterable[Record], begin: int, end: int) -> dict[str, Any]:
    """The members of the API's AlarmKpi but the times, over [begin, end) in µs.

    `records`: the journal's, each once, ascending by `changed_at` (µs) and version; of those before
    `begin` the newest of each alarm is enough.
    """
    rows = [r for r in records if r["kind"] == AlarmKind.ALARM and r["changed_at"] < end]
    inside = [r for r in rows if r["changed_at"] >= begin]
    raises = [r for r in inside if _is_annunciated(r)]
    newest = {r["alarm_id"]: r for r in rows}
    seconds = _seconds_to_acknowledge(rows, begin)
    states = Counter(r["state"] for r in newest.values())
    return {
        "annunciated": len(raises),
        "per_hour": len(raises) / ((end - begin) / _HOUR_US),
        **_periods(raises, begin, end),
        **_frequent(raises),
        "chattering": _chattering(raises),
        "stale": _stale(rows, newest, end),
        "standing": sum(states[state] for state in SHOWN),
        "shelved": states[AlarmState.SHELVED],
        "suppressed": states[AlarmState.SUPPRESSED],
        "out_of_service": states[AlarmState.OUT_OF_SERVICE],
        "acknowledged_share": len(seconds) / len(raises) if raises else None,
        "median_seconds_to_acknowledge": median(seconds) if seconds else None,
        "priorities": {
            str(priority): count / len(raises)
            for priority, count in sorted(Counter(r["priority"] for r in raises).items())
        },
    }


def _is_annunciated(record: Record) -> bool:
    return (record["transition"], record["state"]) == _ANNUNCIATED


def _periods(raises: Sequence[Record], begin: int, end: int) -> dict[str, Any]:
    first, last = begin // PERIOD_US, -(-end // PERIOD_US)
    counts = Counter(r["changed_at"] // PERIOD_US for r in raises)
    floods = sum(count > BEGINS_ABOVE for count in counts.values())
    return {
        "peak_per_10_min": max(counts.values(), default=0),
        "flood_share": floods / max(1, last - first),
    }


def _frequent(raises: Sequence[Record]) -> dict[str, Any]:
    counts = Counter(r["alarm_id"] for r in raises)
    names = {r["alarm_id"]: r for r in raises}
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    total = len(raises)
    return {
        "top_10_share": sum(count for _, count in top) / total if total else 0.0,
        "most_frequent": [
            {**_identity(names[alarm_id]), "count": count, "share": count / total}
            for alarm_id, count in top
        ],
    }


def _chattering(raises: Sequence[Record]) -> list[dict[str, Any]]:
    """Alarms with bursts of three raises within a minute; a raise belongs to one burst."""
    times: dict[str, list[int]] = defaultdict(list)
    names: dict[str, Record] = {}
    for record in raises:
        times[record["alarm_id"]].append(record["changed_at"])
        names[record["alarm_id"]] = record
    found = []
    for alarm_id, ats in times.items():
        bursts, i = 0, 0
        while i + CHATTER_RAISES <= len(ats):
            if ats[i + CHATTER_RAISES - 1] - ats[i] <= CHATTER_US:
                bursts += 1
                i += CHATTER_RAISES
            else:
                i += 1
        if bursts:
            found.append({**_identity(names[alarm_id]), "bursts": bursts})
    return sorted(found, key=lambda row: (-row["bursts"], row["alarm_id"]))


def _stale(rows: Sequence[Record], newest: Mapping[str, Record], end: int) -> list[dict[str, Any]]:
    """Alarms shown and active at the end, raised more than a day before it."""
    raised_at: dict[str, int] = {}
    active: set[str] = set()
    for record in rows:
        if record["transition"] in {Transition.RETURNED, Transition.REMOVED}:
            active.discard(record["alarm_id"])
        elif record["raised_at"] is not None and record["is_active"]:
            raised_at[record["alarm_id"]] = record["raised_at"]
            active.add(record["alarm_id"])
    return [
        {**_identity(newest[alarm_id]), "raised_at": raised_at[alarm_id]}
        for alarm_id in sorted(active, key=lambda i: raised_at[i])
        if end - raised_at[alarm_id] > STALE_US and newest[alarm_id]["state"] in SHOWN
    ]


def _seconds_to_acknowledge(rows: Sequence[Record], begin: int) -> list[float]:
    """From each annunciation to its acknowledgement, of those that were acknowledged."""
    open_since: dict[str, int] = {}
    seconds = []
    for record in rows:
        alarm_id = record["alarm_id"]
        if _is_annunciated(record) and record["changed_at"] >= begin:
            open_since[alarm_id] = record["changed_at"]
        elif record["transition"] == Transition.ACKNOWLEDGED and alarm_id in open_since:
            seconds.append((record["changed_at"] - open_since.pop(alarm_id)) / 1e6)
    return seconds


def _identity(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in ("alarm_id", "definition_id", "machine_id")}
