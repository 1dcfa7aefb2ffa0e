"""What people do with alarms: list them, acknowledge, shelve, take out of service. No HTTP here.

A change is written to Redis with compare-and-set and its journal record with it; before it is
confirmed the record is in the outbox on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aegisops.alarm_store import AlarmStore, Change
from aegisops.alarms import flood, journal, lifecycle, view
from aegisops.alarms.lifecycle import Alarm
from aegisops.alarms.master import MasterDatabase
from aegisops.errors import Permanent, Retryable
from aegisops.machines.durations import US_PER_SECOND
from aegisops.names import ALARMS_TOPIC, AlarmKind, AlarmState, Outcome, Transition
from serving.outbox import Message, Outbox, OutboxFull

May = Callable[[str, str], bool]
"""Whether a place (site, area) is inside the token's scope."""


class UnknownAlarm(Permanent):
    """There is no such alarm, or not for this token."""


class StaleVersion(Retryable):
    """The alarm has changed since the caller saw it. `current` is its row now."""

    def __init__(self, current: dict[str, Any]) -> None:
        super().__init__(
            f"the alarm is now {current['state']}, version {current['version']}; look again"
        )
        self.current = current


@dataclass(frozen=True, slots=True)
class Filters:
    """What to list; None = all."""

    kind: AlarmKind | None = AlarmKind.ALARM
    states: Collection[AlarmState] | None = None
    priorities: Collection[int] | None = None
    machine_id: str | None = None
    area: str | None = None

    def take(self, alarm: Alarm) -> bool:
        """Whether the alarm is wanted."""
        return (
            self.kind in {None, alarm.kind}
            and (self.states is None or alarm.state in self.states)
            and (self.priorities is None or alarm.priority in self.priorities)
            and self.machine_id in {None, alarm.machine_id}
            and self.area in {None, alarm.area}
        )


class AlarmDesk:
    """Lists and changes alarms for the API. Runs on one event loop."""

    def __init__(
        self,
        store: AlarmStore,
        outbox: Outbox,
        encode: Callable[[Mapping[str, Any]], bytes],
        master: MasterDatabase,
        *,
        clock: Callable[[], float],
        shelve_hours: float,
        outbox_capacity: int,
    ) -> None:
        """`encode`: wire form of an alarms.avsc record. `clock`: Unix seconds."""
        self.store = store
        self.master = master
        self._outbox = outbox
        self._encode = encode
        self._clock = clock
        self._longest = round(shelve_hours * 3_600 * US_PER_SECOND)
        self._capacity = outbox_capacity

    # --- reading ----------------------------------------------------------------------------------

    async def standing(self, may_see: May, filters: Filters | None = None) -> list[Alarm]:
        """Alarms that are not normal, most urgent first. Raises `AlarmsAway`.

        States that are asked for include `normal` ones, which are then read too.
        """
        filters = filters or Filters()
        wants_normal = filters.states is not None and AlarmState.NORMAL in filters.states
        found = await (self.store.everything() if wants_normal else self.store.standing())
        mine = [a for a in found.values() if _visible(a, may_see) and filters.take(a)]
        return sorted(mine, key=_urgency)

    async def listing(self, may_see: May, filters: Filters) -> dict[str, Any]:
        """The members of alarm_contract.AlarmList."""
        now = self._now()
        everything = await self.standing(may_see, Filters(kind=None, states=filters.states))
        active = await self.store.active_engine()
        return {
            "alarms": [view.row(a, self.master, now) for a in everything if filters.take(a)],
            "flood": await self._flood(may_see, everything, now),
            "engine": {"is_active": active is not None},
            "as_of": view.iso(now),
        }

    async def _flood(self, may_see: May, standing: Sequence[Alarm], now: int) -> dict[str, Any]:
        raises = await self.store.raises((now - 24 * 3_600 * US_PER_SECOND) // 1_000)
        begun = None
        recent = 0
        if len(raises) > flood.BEGINS_ABOVE:
            alarms = await self.store.get_all(sorted({alarm_id for _, alarm_id in raises}))
            mine = {i for i, alarm in alarms.items() if _visible(alarm, may_see)}
            times = [ms * 1_000 for ms, alarm_id in raises if alarm_id in mine]
            begun = flood.since(times, now)
            recent = sum(at > now - flood.WINDOW_US for at in times)
        else:
            recent = sum(ms * 1_000 > now - flood.WINDOW_US for ms, _ in raises)
        return {
            "active": begun is not None,
            "since": view.iso(begun),
            "raised_last_10_min": recent,
            "groups": [
                {
                    "cause": group.cause,
                    "site": group.site,
                    "area": group.area,
                    "first_out": group.first_out,
                    "count": len(group.alarm_ids),
                    "alarm_ids": list(group.alarm_ids),
                }
                for group in flood.groups(standing)
            ],
        }

    async def find(self, alarm_id: str, may_see: May) -> Alarm:
        """One alarm; raises `UnknownAlarm`."""
        alarm = await self.store.get(alarm_id)
        if alarm is None or not _visible(alarm, may_see):
            raise UnknownAlarm(f"there is no alarm {alarm_id!r}")
        return alarm

    def row(self, alarm: Alarm) -> dict[str, Any]:
        """The members of alarm_contract.AlarmRow."""
        return view.row(alarm, self.master, self._now())

    def definitions(self) -> list[dict[str, Any]]:
        """The members of alarm_contract.AlarmDefinitionRow, entry by entry."""
        return [
            view.definition(machine_class, entry, self.master.unit(machine_class, entry))
            for machine_class, entry in self.master
        ]

    # --- changing ---------------------------------------------------------------------------------

    async def acknowledge(
        self, alarm_id: str, version: int, by: str, may_see: May, comment: str = ""
    ) -> Alarm:
        """Seen by `by`."""
        return await self._change(
            alarm_id,
            version,
            may_see,
            (Transition.ACKNOWLEDGED, by, comment),
            lambda alarm, at: lifecycle.acknowledged(alarm, at, by, comment),
        )

    async def shelve(
        self, alarm_id: str, version: int, by: str, may_see: May, *, reason: str, minutes: float
    ) -> Alarm:
        """Set aside for some minutes; raises `IllegalTransition` beyond the longest time."""
        length = round(minutes * 60 * US_PER_SECOND)
        if length > self._longest:
            most = self._longest // (60 * US_PER_SECOND)
            raise lifecycle.IllegalTransition(f"an alarm may be shelved for {most} min at most")
        return await self._change(
            alarm_id,
            version,
            may_see,
            (Transition.SHELVED, by, reason),
            lambda alarm, at: lifecycle.shelved(alarm, at, by, reason, at + length),
        )

    async def unshelve(self, alarm_id: str, version: int, by: str, may_see: May) -> Alarm:
        """Back from the shelf before its time."""
        return await self._change(
            alarm_id,
            version,
            may_see,
            (Transition.UNSHELVED, by, ""),
            lambda alarm, at: lifecycle.unshelved(alarm, at, by),
        )

    async def take_out_of_service(
        self, alarm_id: str, version: int, by: str, may_see: May, reason: str
    ) -> Alarm:
        """Out of use until somebody puts it back."""
        return await self._change(
            alarm_id,
            version,
            may_see,
            (Transition.TAKEN_OUT_OF_SERVICE, by, reason),
            lambda alarm, at: lifecycle.taken_out_of_service(alarm, at, by, reason),
        )

    async def return_to_service(self, alarm_id: str, version: int, by: str, may_see: May) -> Alarm:
        """In use again."""
        return await self._change(
            alarm_id,
            version,
            may_see,
            (Transition.RETURNED_TO_SERVICE, by, ""),
            lambda alarm, at: lifecycle.returned_to_service(alarm, at, by),
        )

    async def report_outcome(
        self,
        alarm_id: str,
        version: int,
        by: str,
        may_see: May,
        *,
        outcome: Outcome,
        feedback_id: str,
    ) -> Alarm:
        """What became of the alarm; the report itself is feedback."""
        return await self._change(
            alarm_id,
            version,
            may_see,
            (Transition.OUTCOME_REPORTED, by, f"{outcome} {feedback_id}"),
            lambda alarm, at: lifecycle.outcome_reported(alarm, at, by, outcome, feedback_id),
        )

    async def _change(
        self,
        alarm_id: str,
        version: int,
        may_see: May,
        asked: tuple[Transition, str, str],
        make: Callable[[Alarm, int], Alarm],
    ) -> Alarm:
        """The alarm after the change, or as it is if this very request was carried out before."""
        alarm = await self.find(alarm_id, may_see)
        if lifecycle.is_repeat(alarm, version, *asked):
            return alarm
        if alarm.version != version:
            raise StaleVersion(self.row(alarm))
        if self._outbox.depth >= self._capacity:
            raise OutboxFull("the journal's outbox is full; check Kafka, then try again")
        changed = make(alarm, self._now())
        (was_written,) = await self.store.commit([self.change(changed, version)])
        if not was_written:
            raise StaleVersion(self.row(await self.find(alarm_id, may_see)))
        self.journal([changed])
        await self.store.journaled([journal.journal_id(changed)])
        return changed

    def change(self, alarm: Alarm, expected: int) -> Change:
        """A snapshot on its way into the store."""
        return Change(alarm, expected, self.row(alarm))

    def journal(self, alarms: Sequence[Alarm]) -> None:
        """Put the records of these snapshots into the outbox; `OutboxFull` keeps none of them."""
        self.journal_records([journal.record(alarm) for alarm in alarms])

    def journal_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The same for records."""
        # Kafka's key decides the partition: records of one machine stay in order.
        self._outbox.append(
            [
                Message(ALARMS_TOPIC, each["machine_id"] or each["alarm_id"], self._encode(each))
                for each in records
            ]
        )

    def _now(self) -> int:
        return round(self._clock() * US_PER_SECOND)


def _visible(alarm: Alarm, may_see: May) -> bool:
    """The product's own parts belong to no place: everybody sees them."""
    return not alarm.machine_id or may_see(alarm.site, alarm.area)


def _urgency(alarm: Alarm) -> tuple[int, int, int]:
    order = (
        AlarmState.UNACKNOWLEDGED,
        AlarmState.RETURNED_UNACKNOWLEDGED,
        AlarmState.ACKNOWLEDGED,
    )
    rank = order.index(alarm.state) if alarm.state in order else len(order)
    return rank, alarm.priority, -(alarm.raised_at or 0)
