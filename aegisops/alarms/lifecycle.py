"""One alarm's life (ISA-18.2): its snapshot and the transitions it may make. Pure.

Three things are kept apart and give the state together: whether the condition holds, whether
somebody acknowledged it, and what hides it (out of service, shelved, suppressed by design). The
condition is followed while an alarm is hidden, so that it appears as it is when it comes back.

Every transition returns a new snapshot with a higher version. A version is a hybrid clock: the
milliseconds of the transition, or one more than the last if that is higher. So versions keep rising
even if the stored states were lost in between, and of two snapshots the higher version is newer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from aegisops.errors import Permanent
from aegisops.names import AlarmKind, AlarmState, Outcome, Transition

ENGINE = "alarm-engine"
"""Subject of transitions that nobody asked for."""
CHATTER_RAISES = 3
CHATTER_US = 60_000_000
"""ISA-18.2: three raises within a minute are chatter."""

SHOWN = frozenset(
    {AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED, AlarmState.RETURNED_UNACKNOWLEDGED}
)
"""States that ask an operator for something."""
WAITING = frozenset({AlarmState.UNACKNOWLEDGED, AlarmState.RETURNED_UNACKNOWLEDGED})
"""States that wait for an acknowledgement."""


class IllegalTransition(Permanent):
    """The alarm's state does not allow that."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Why and since when an alarm is shelved, suppressed or out of service; times in µs."""

    at: int
    by: str
    reason: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Last:
    """The transition that led to a snapshot."""

    transition: Transition
    at: int
    by: str
    reason: str
    from_version: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """All there is to know of one alarm; times are µs since 1970 UTC."""

    alarm_id: str
    definition_id: str
    machine_id: str
    machine_class: str
    site: str
    area: str
    kind: AlarmKind
    priority: int
    group: str
    revision: int = 0
    version: int = 0
    occurrence: int = 0
    """How often it was raised."""
    is_active: bool = False
    is_acknowledged: bool = True
    detail: str = ""
    """What exactly is wrong, where the entry does not say."""
    is_first_out: bool = False
    """Raised before every other standing alarm of its group."""
    value: float | None = None
    setpoint: float | None = None
    prediction_id: str | None = None
    raised_at: int | None = None
    returned_at: int | None = None
    acknowledged_at: int | None = None
    acknowledged_by: str | None = None
    comment: str | None = None
    outcome: Outcome | None = None
    shelved: Hidden | None = None
    suppressed: Hidden | None = None
    out_of_service: Hidden | None = None
    raises: tuple[int, ...] = ()
    """Times of the last raises."""
    last: Last | None = None

    @property
    def state(self) -> AlarmState:
        """The state people see."""
        if self.out_of_service:
            return AlarmState.OUT_OF_SERVICE
        if self.shelved:
            return AlarmState.SHELVED
        if self.suppressed:
            return AlarmState.SUPPRESSED
        if self.is_active:
            acknowledged = self.is_acknowledged
            return AlarmState.ACKNOWLEDGED if acknowledged else AlarmState.UNACKNOWLEDGED
        if self.is_acknowledged:
            return AlarmState.NORMAL
        return AlarmState.RETURNED_UNACKNOWLEDGED

    @property
    def is_hidden(self) -> bool:
        """Shelved, suppressed or out of service."""
        return bool(self.out_of_service or self.shelved or self.suppressed)

    def is_chattering(self, now: int) -> bool:
        """Whether its last raises came in a burst that is at most a minute past."""
        recent = self.raises[-CHATTER_RAISES:]
        return (
            len(recent) == CHATTER_RAISES
            and recent[-1] - recent[0] <= CHATTER_US
            and now - recent[-1] <= CHATTER_US
        )


def alarm_id(definition_id: str, machine_id: str) -> str:
    """Id of a definition's alarm on a machine: the same for ever, and fit for a URL."""
    return hashlib.sha256(f"{definition_id}\0{machine_id}".encode()).hexdigest()[:16]


# --- the condition --------------------------------------------------------------------------------


def raised(
    alarm: Alarm,
    at: int,
    *,
    value: float | None = None,
    setpoint: float | None = None,
    prediction_id: str | None = None,
    is_first_out: bool = False,
    machine_state: str | None = None,
    detail: str = "",
) -> Alarm:
    """The condition holds. In a `machine_state` that explains it, the alarm is suppressed."""
    _require(alarm, not alarm.is_active, Transition.RAISED)
    hidden = alarm.suppressed
    if machine_state is not None and hidden is None:
        hidden = Hidden(at, ENGINE, machine_state)
    return _after(
        alarm,
        Transition.RAISED,
        at,
        ENGINE,
        machine_state or detail,
        detail=detail,
        occurrence=alarm.occurrence + 1,
        is_active=True,
        is_acknowledged=False,
        is_first_out=is_first_out,
        value=value,
        setpoint=setpoint,
        prediction_id=prediction_id,
        raised_at=at,
        returned_at=None,
        acknowledged_at=None,
        acknowledged_by=None,
        comment=None,
        outcome=None,
        suppressed=hidden,
        raises=(*alarm.raises, at)[-CHATTER_RAISES:],
    )


def returned(alarm: Alarm, at: int) -> Alarm:
    """The condition is gone."""
    _require(alarm, alarm.is_active, Transition.RETURNED)
    return _after(alarm, Transition.RETURNED, at, ENGINE, is_active=False, returned_at=at)


def re_alarmed(alarm: Alarm, at: int) -> Alarm:
    """Acknowledged long ago and still active: it asks again."""
    _require(alarm, alarm.state is AlarmState.ACKNOWLEDGED, Transition.RE_ALARMED)
    return _after(alarm, Transition.RE_ALARMED, at, ENGINE, is_acknowledged=False)


def suppressed(alarm: Alarm, at: int, machine_state: str) -> Alarm:
    """The machine's state explains the condition now.

    Only an acknowledged alarm: what nobody has seen yet is never taken away by itself.
    """
    _require(alarm, alarm.state is AlarmState.ACKNOWLEDGED, Transition.SUPPRESSED)
    hidden = Hidden(at, ENGINE, machine_state)
    return _after(alarm, Transition.SUPPRESSED, at, ENGINE, machine_state, suppressed=hidden)


def unsuppressed(alarm: Alarm, at: int) -> Alarm:
    """The machine has left the state that explained the condition."""
    _require(alarm, alarm.suppressed is not None, Transition.UNSUPPRESSED)
    return _revealed(alarm, Transition.UNSUPPRESSED, at, ENGINE, "", suppressed=None)


# --- people ---------------------------------------------------------------------------------------


def acknowledged(alarm: Alarm, at: int, by: str, comment: str = "") -> Alarm:
    """Somebody has seen it. One alarm at a time: there is no blanket acknowledgement."""
    _require(alarm, alarm.state in WAITING, Transition.ACKNOWLEDGED)
    return _after(
        alarm,
        Transition.ACKNOWLEDGED,
        at,
        by,
        comment,
        is_acknowledged=True,
        acknowledged_at=at,
        acknowledged_by=by,
        comment=comment or None,
    )


def shelved(alarm: Alarm, at: int, by: str, reason: str, until: int) -> Alarm:
    """Set aside until a time, with a reason; it comes back by itself."""
    _require(alarm, not (alarm.shelved or alarm.out_of_service), Transition.SHELVED)
    if not reason.strip():
        raise IllegalTransition("shelving needs a reason")
    if until <= at:
        raise IllegalTransition("shelving needs an end in the future")
    hidden = Hidden(at, by, reason, until)
    return _after(alarm, Transition.SHELVED, at, by, reason, shelved=hidden)


def unshelved(alarm: Alarm, at: int, by: str = ENGINE) -> Alarm:
    """Back from the shelf: its time is over, or somebody took it out."""
    _require(alarm, alarm.shelved is not None, Transition.UNSHELVED)
    return _revealed(alarm, Transition.UNSHELVED, at, by, "", shelved=None)


def taken_out_of_service(alarm: Alarm, at: int, by: str, reason: str) -> Alarm:
    """Out of use, for example for repair of the instrument, until somebody puts it back."""
    _require(alarm, alarm.out_of_service is None, Transition.TAKEN_OUT_OF_SERVICE)
    if not reason.strip():
        raise IllegalTransition("taking an alarm out of service needs a reason")
    hidden = Hidden(at, by, reason)
    return _after(
        alarm, Transition.TAKEN_OUT_OF_SERVICE, at, by, reason, out_of_service=hidden, shelved=None
    )


def returned_to_service(alarm: Alarm, at: int, by: str) -> Alarm:
    """In use again."""
    is_out = alarm.out_of_service is not None
    _require(alarm, is_out, Transition.RETURNED_TO_SERVICE)
    return _revealed(alarm, Transition.RETURNED_TO_SERVICE, at, by, "", out_of_service=None)


def outcome_reported(alarm: Alarm, at: int, by: str, outcome: Outcome, feedback_id: str) -> Alarm:
    """What became of its last occurrence; changes no state."""
    _require(alarm, alarm.occurrence > 0, Transition.OUTCOME_REPORTED)
    reason = f"{outcome} {feedback_id}"
    return _after(alarm, Transition.OUTCOME_REPORTED, at, by, reason, outcome=outcome)


def removed(alarm: Alarm, at: int) -> Alarm:
    """Its entry is gone from the master database: no entry, no alarm."""
    return _after(
        alarm,
        Transition.REMOVED,
        at,
        ENGINE,
        is_active=False,
        is_acknowledged=True,
        shelved=None,
        suppressed=None,
        out_of_service=None,
    )


def is_repeat(
    alarm: Alarm, from_version: int, transition: Transition, by: str, reason: str
) -> bool:
    """Whether the snapshot is already what this request asked for, by the same subject."""
    last = alarm.last
    return last is not None and (
        (last.from_version, last.transition, last.by, last.reason)
        == (from_version, transition, by, reason)
    )


def first_out(alarm: Alarm, standing: Sequence[Alarm]) -> bool:
    """Whether no other active alarm of the same kind, place and group stands already."""
    return not any(
        other.is_active
        and other.alarm_id != alarm.alarm_id
        and (other.kind, other.site, other.area, other.group)
        == (alarm.kind, alarm.site, alarm.area, alarm.group)
        for other in standing
    )


def _revealed(
    alarm: Alarm, transition: Transition, at: int, by: str, reason: str, **cover: None
) -> Alarm:
    """One cover less. If it was the last, an active alarm asks anew and another one is normal."""
    after = _after(alarm, transition, at, by, reason, **cover)
    if after.is_hidden:
        return after
    return replace(after, is_acknowledged=not after.is_active)


def _after(
    alarm: Alarm,
    transition: Transition,
    at: int,
    by: str,
    reason: str = "",
    **changes: Any,  # noqa: ANN401 - fields of Alarm
) -> Alarm:
    version = max(alarm.version + 1, at // 1_000)
    last = Last(transition, at, by, reason, alarm.version)
    return replace(alarm, version=version, last=last, **changes)


def _require(alarm: Alarm, is_legal: bool, transition: Transition) -> None:
    if not is_legal:
        raise IllegalTransition(
            f"alarm {alarm.alarm_id} is {alarm.state}; {transition} is not possible from there"
        )


# --- as bytes -------------------------------------------------------------------------------------


def dump(alarm: Alarm) -> bytes:
    """The snapshot as JSON."""
    return orjson.dumps(asdict(alarm))


def load(blob: bytes | str) -> Alarm:
    """The snapshot from its JSON; fields it does not have yet keep their default."""
    fields: dict[str, Any] = orjson.loads(blob)
    fields["kind"] = AlarmKind(fields["kind"])
    fields["raises"] = tuple(fields.get("raises", ()))
    if fields.get("outcome"):
        fields["outcome"] = Outcome(fields["outcome"])
    for name in ("shelved", "suppressed", "out_of_service"):
        if fields.get(name):
            fields[name] = Hidden(**fields[name])
    if fields.get("last"):
        last = fields["last"]
        fields["last"] = Last(**{**last, "transition": Transition(last["transition"])})
    return Alarm(**fields)
