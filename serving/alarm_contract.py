"""The wire contract of /api/v1/alarms as OpenAPI sees it. The rest: serving.contract."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from aegisops.names import AlarmKind, AlarmState, Outcome, Transition
from serving.contract import Moment

Version = Annotated[
    int,
    Field(
        ge=0,
        le=2**53,
        description="`version` of the alarm as you saw it; if it has changed since, 409.",
        examples=[1772420927412],
    ),
]
Comment = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]
MOST_MINUTES = 525_600
"""A year, which no setting should reach."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AlarmQuery(_Request):
    """What to list."""

    kind: AlarmKind = Field(
        default=AlarmKind.ALARM, description="Advisories have a list of their own."
    )
    state: list[AlarmState] | None = Field(default=None, description="None = all but normal.")
    priority: list[int] | None = None
    machine_id: str | None = Field(default=None, max_length=200)
    area: str | None = Field(default=None, max_length=200)


class SpanQuery(_Request):
    """A span of the journal; from a day ago to now when absent. Without offset times are UTC."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    begin: Moment | None = Field(default=None, alias="from")
    end: Moment | None = Field(default=None, alias="to")


class JournalQuery(SpanQuery):
    """Which transitions."""

    machine_id: str | None = Field(default=None, max_length=200)
    alarm_id: str | None = Field(default=None, max_length=64)
    cursor: str | None = Field(default=None, max_length=100)
    limit: int = Field(default=100, ge=1, le=1_000)


class AcknowledgeRequest(_Request):
    """I have seen this alarm."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"version": 1772420927412, "comment": "On my way."}]}
    )

    version: Version
    comment: Comment = ""


class ShelveRequest(_Request):
    """Set this alarm aside for a while."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": 1772420927412,
                    "reason": "Sensor cable is being replaced",
                    "minutes": 60,
                }
            ]
        }
    )

    version: Version
    reason: Reason = Field(examples=["Sensor cable is being replaced"])
    minutes: float = Field(
        gt=0, le=MOST_MINUTES, description="At most AEGIS_ALARMS__SHELVE_HOURS.", examples=[60]
    )


class VersionRequest(_Request):
    """Unshelve, or return to service."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 1772420927412}]})

    version: Version


class OutOfServiceRequest(_Request):
    """Take this alarm out of use until somebody puts it back."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"version": 1772420927412, "reason": "Accelerometer is out for calibration"}
            ]
        }
    )

    version: Version
    reason: Reason


class AlarmRow(BaseModel):
    """One alarm: its state, and its entry of the master alarm database."""

    alarm_id: str = Field(examples=["9c1f0d2be5a37a11"])
    definition_id: str = Field(examples=["vibration_high"])
    kind: AlarmKind
    machine_id: str = Field(description="Empty for the product's own parts.")
    machine_class: str
    site: str
    area: str
    priority: int = Field(ge=1, le=4, description="1 = act at once … 4.")
    state: AlarmState
    title: str
    cause: str
    consequence: str
    response: str
    procedure: str | None
    time_to_respond_s: float | None
    owner: str
    detail: str = Field(description="What exactly is wrong, where the entry does not say.")
    value: float | None = Field(description="The value that raised it.")
    unit: str
    setpoint: float | None
    is_active: bool = Field(description="Whether the condition holds, hidden or not.")
    is_chattering: bool = Field(description="Raised three times within the last minute.")
    occurrence: int = Field(description="How often it was raised, ever.")
    raised_at: datetime | None
    returned_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    comment: str | None
    shelved_until: datetime | None
    shelved_by: str | None
    shelve_reason: str | None
    suppressed_by: str | None = Field(description="Machine state that explains the condition.")
    out_of_service_by: str | None
    out_of_service_reason: str | None
    first_out: bool = Field(description="No other alarm of its group and area stood before it.")
    group: str = Field(description="What alarms of one cause have in common.")
    prediction_id: str | None
    outcome: Outcome | None = Field(description="What became of its last occurrence, if reported.")
    changed_at: datetime | None
    version: int


class FloodGroup(BaseModel):
    """Standing alarms of one cause in one area."""

    cause: str
    site: str
    area: str
    first_out: str = Field(description="Id of the alarm that came first.")
    count: int
    alarm_ids: list[str]


class Flood(BaseModel):
    """More than ten raises in ten minutes, until fewer than five."""

    active: bool
    since: datetime | None
    raised_last_10_min: int
    groups: list[FloodGroup]


class EngineState(BaseModel):
    """Whether somebody evaluates."""

    is_active: bool = Field(description="False: nobody evaluates; the list may be out of date.")


class AlarmList(BaseModel):
    """The alarms that the token may see, most urgent first."""

    alarms: list[AlarmRow]
    flood: Flood
    engine: EngineState
    as_of: datetime


class AlarmDefinitionRow(BaseModel):
    """One entry of the master alarm database."""

    model_config = ConfigDict(extra="allow")

    machine_class: str = Field(description="Empty for the product's own parts.")
    id: str
    title: str
    source: str
    kind: AlarmKind
    priority: int
    cause: str
    consequence: str
    response: str
    procedure: str | None
    time_to_respond_s: float
    owner: str
    revision: int
    unit: str
    setpoint: float | None
    deadband: float
    on_delay_s: float
    off_delay_s: float


class JournalRow(BaseModel):
    """One transition."""

    journal_id: str
    alarm_id: str
    version: int
    changed_at: datetime
    transition: Transition
    state: AlarmState
    kind: AlarmKind
    priority: int
    definition_id: str
    revision: int
    machine_id: str
    site: str
    area: str
    group: str
    first_out: bool
    occurrence: int
    subject: str
    comment: str
    value: float | None
    setpoint: float | None
    prediction_id: str | None


class JournalPage(BaseModel):
    """Transitions, newest first."""

    records: list[JournalRow]
    cursor: str | None = Field(description="Send it back for the next page; null = the last page.")
    as_of: datetime


class FrequentAlarm(BaseModel):
    """One of the most frequent alarms."""

    alarm_id: str
    definition_id: str
    machine_id: str
    count: int
    share: float


class StaleAlarm(BaseModel):
    """Active for more than a day without a break."""

    alarm_id: str
    definition_id: str
    machine_id: str
    raised_at: datetime


class ChatteringAlarm(BaseModel):
    """Raised three or more times within a minute."""

    alarm_id: str
    definition_id: str
    machine_id: str
    bursts: int


class AlarmKpi(BaseModel):
    """Figures of an alarm system (ISA-18.2), from the journal alone; advisories do not count."""

    begin: datetime
    end: datetime
    annunciated: int = Field(description="Raises that were shown: not shelved, suppressed or out.")
    per_hour: float
    peak_per_10_min: int
    flood_share: float = Field(description="Share of 10-minute periods with more than 10.")
    top_10_share: float = Field(description="Share of the ten most frequent alarms.")
    most_frequent: list[FrequentAlarm]
    chattering: list[ChatteringAlarm]
    stale: list[StaleAlarm]
    standing: int = Field(description="Active or waiting for an acknowledgement at the end.")
    shelved: int
    suppressed: int
    out_of_service: int
    acknowledged_share: float | None
    median_seconds_to_acknowledge: float | None
    priorities: dict[str, float] = Field(description="Share of raises by priority.")


BODIES: list[type[BaseModel]] = [
    AcknowledgeRequest,
    ShelveRequest,
    VersionRequest,
    OutOfServiceRequest,
]
"""Request bodies that the routes read themselves."""
