"""Alarm floods: more than ten raises in ten minutes at one position. Pure.

ISA-18.2 / EEMUA 191: a flood begins above ten alarms in ten minutes and ends below five.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aegisops.alarms.lifecycle import SHOWN, Alarm
from aegisops.names import AlarmKind

WINDOW_US = 600_000_000
BEGINS_ABOVE = 10
ENDS_BELOW = 5


@dataclass(frozen=True, slots=True)
class Group:
    """Standing alarms of one cause in one area, first out first."""

    cause: str
    site: str
    area: str
    first_out: str
    """Alarm id."""
    alarm_ids: tuple[str, ...]


def since(raises: Sequence[int], now: int) -> int | None:
    """Since when a flood lasts, in µs; None when there is none. `raises`: times, ascending."""
    begun: int | None = None
    first = 0
    for i, at in enumerate(raises):
        while raises[first] <= at - WINDOW_US:
            first += 1
            if begun is not None and i - first < ENDS_BELOW:
                begun = None
        if i - first + 1 > BEGINS_ABOVE and begun is None:
            begun = at
    recent = sum(at > now - WINDOW_US for at in raises[first:])
    return begun if recent >= ENDS_BELOW else None


def groups(alarms: Iterable[Alarm]) -> list[Group]:
    """The alarms that ask for something, by cause and area; largest group first."""
    found: dict[tuple[str, str, str], list[Alarm]] = defaultdict(list)
    for alarm in alarms:
        if alarm.kind is AlarmKind.ALARM and alarm.state in SHOWN:
            found[alarm.site, alarm.area, alarm.group].append(alarm)
    made = []
    for (site, area, cause), members in found.items():
        members.sort(key=lambda a: (not a.is_first_out, a.raised_at or 0, a.alarm_id))
        ids = tuple(a.alarm_id for a in members)
        made.append(Group(cause, site, area, ids[0], ids))
    return sorted(made, key=lambda g: (-len(g.alarm_ids), g.site, g.area, g.cause))
