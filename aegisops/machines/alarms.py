"""Entries of the master alarm database (ISA-18.2), validated. What they mean: aegisops.alarms.

An alarm is an abnormal condition with a defined response that someone can give in time. What only
says that something may come, such as a risk within days, is an advisory and listed apart.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aegisops.machines.durations import US_PER_SECOND, Duration
from aegisops.names import AlarmKind, RiskLevel

Text = Annotated[str, Field(min_length=1)]

_NAME = r"^[a-z][a-z0-9_]*$"


class AlarmSource(StrEnum):
    """What an alarm watches."""

    LIMIT = "limit"  # a feature against a setpoint
    RISK = "risk"  # the full decision's probability against the model's own levels
    DATA = "data"  # the data itself: silence, missing readings, a dead sensor
    SYSTEM = "system"  # the product's own parts


class DataFault(StrEnum):
    """What a data alarm looks for."""

    NO_DATA = "no_data"  # nothing for longer than the class's `stale_after`
    LOW_COVERAGE = "low_coverage"  # fewer readings than the class's `min_coverage`
    SIGNAL_LOST = "signal_lost"  # every feature of `channel` is missing while others come


class StateRule(BaseModel):
    """How a machine's state is told from one feature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str
    below: float
    """In this state while the feature is at or below."""


class AlarmDefinition(BaseModel):
    """One entry: what is wrong, what it leads to, what to do about it, and by when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=_NAME)
    title: Text
    source: AlarmSource
    kind: AlarmKind = AlarmKind.ALARM
    priority: int = Field(ge=1, le=4)
    """1 = act at once … 4 = lowest."""
    cause: Text
    consequence: Text
    response: Text
    procedure: str | None = None
    time_to_respond: Duration
    owner: Text
    revision: int = Field(ge=1)
    failure_mode: str | None = None
    feature: str | None = None
    direction: str = Field(default="above", pattern="^(above|below)$")
    setpoint: float | None = None
    deadband: float = Field(default=0.0, ge=0)
    """The alarm returns only this far on the good side of the setpoint."""
    level: RiskLevel | None = None
    """Risk: the model's level from which on it is active; the deadband is in probability."""
    fault: DataFault | None = None
    channel: str | None = None
    signal: str | None = None
    """System: the part's word for what is wrong."""
    on_delay: Duration = 0
    """The condition must hold this long before the alarm is raised."""
    off_delay: Duration = 0
    """It must be gone this long before the alarm returns."""
    re_alarm: Duration | None = None
    """Acknowledged and still active after this long: it asks again."""
    suppressed_in: tuple[str, ...] = ()
    """Machine states in which the condition is expected and no alarm."""

    @property
    def group(self) -> str:
        """What alarms of one cause have in common."""
        return self.failure_mode or self.channel or self.id

    @property
    def time_to_respond_s(self) -> float:
        """Seconds."""
        return self.time_to_respond / US_PER_SECOND

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        needs = {
            AlarmSource.LIMIT: ("feature", "setpoint"),
            AlarmSource.RISK: ("level",),
            AlarmSource.DATA: ("fault",),
            AlarmSource.SYSTEM: ("signal",),
        }
        for field in ("feature", "setpoint", "level", "fault", "signal"):
            if (getattr(self, field) is None) == (field in needs[self.source]):
                verb = "needs" if field in needs[self.source] else "has no"
                raise ValueError(f"alarms.{self.id}: a {self.source} alarm {verb} {field!r}")
        if (self.fault is DataFault.SIGNAL_LOST) != (self.channel is not None):
            raise ValueError(f"alarms.{self.id}: `channel` belongs to fault signal_lost")
        if self.level not in {None, RiskLevel.ELEVATED, RiskLevel.HIGH}:
            raise ValueError(f"alarms.{self.id}: level is elevated or high")
        if self.source is AlarmSource.RISK and self.kind is not AlarmKind.ADVISORY:
            # A risk within hours or days leaves no response that is due now.
            raise ValueError(f'alarms.{self.id}: a risk is an advisory; set kind = "advisory"')
        return self
