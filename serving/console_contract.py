"""The wire contract of the console's endpoints as OpenAPI sees it; the rest: serving.contract."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from aegisops.machines import Clock
from aegisops.names import RiskLevel, Rung
from serving.contract import DataQuality
from serving.vectors import Cause

# --- fleet ----------------------------------------------------------------------------------------


class HealthPoint(BaseModel):
    """Health at one time."""

    at: datetime
    score: float


class HealthTrend(BaseModel):
    """Health score, 0 (failing) to 100 (sound), and where it goes."""

    score: float | None
    trend: Literal["falling", "steady", "rising"] | None
    change_per_hour: float | None = Field(description="Points per hour over the last hour.")
    history: list[HealthPoint] = Field(description="Last two hours, oldest first.")


class ModeName(BaseModel):
    """A way to fail."""

    code: str = Field(examples=["bearing_wear"])
    title: str = Field(examples=["Front bearing wear"])


class FleetMachine(BaseModel):
    """One machine on the fleet page."""

    machine_id: str = Field(examples=["spindle-007"])
    machine_class: str
    site: str
    area: str
    owner: str | None = Field(description="Who looks after it.", examples=["mechanics-north"])
    risk: RiskLevel
    probability: float | None
    failure_mode: ModeName | None
    explanation: str
    served_by: Rung | None = Field(description="Rung of the last answer; null = none yet.")
    cause: Cause | None
    model_version: str | None
    prediction_id: str | None
    predicted_at: datetime | None
    prediction_age_seconds: float | None
    is_abnormal: bool = Field(description="The last answer is not `normal`.")
    abnormal_since: datetime | None
    health: HealthTrend
    data_quality: DataQuality
    features_at: datetime | None
    feature_age_seconds: float | None


class FleetPage(BaseModel):
    """Machines the token may see, worst first."""

    machines: list[FleetMachine]
    total: int = Field(description="Machines that fit the filter.")
    offset: int
    counts: dict[str, int] = Field(
        description="Machines that fit per risk level.", examples=[{"high": 1, "normal": 199}]
    )
    notice: str | None = Field(description="Why rows are incomplete; null when they are not.")
    as_of: datetime = Field(description="The server's time; compare with your clock.")


class Area(BaseModel):
    """An area of a site."""

    area: str
    machines: int
    counts: dict[str, int]
    owners: list[str]


class Site(BaseModel):
    """A plant."""

    site: str
    machines: int
    areas: list[Area]


class Sites(BaseModel):
    """Sites and areas the token may see."""

    sites: list[Site]
    machine_classes: list[str]
    owners: list[str]
    as_of: datetime


# --- history --------------------------------------------------------------------------------------

Values = list[float | None]


class Gap(BaseModel):
    """A stretch without any value."""

    model_config = ConfigDict(populate_by_name=True)

    begin: datetime = Field(alias="from")
    end: datetime = Field(alias="to")


class History(BaseModel):
    """One series in buckets of equal width: entry i covers `from` + i × `bucket_seconds`.

    null = no good value in the bucket.
    """

    model_config = ConfigDict(populate_by_name=True)

    machine_id: str
    kind: Literal["channel", "feature", "risk"]
    name: str
    unit: str
    clock: Clock = Field(description="On a `cycles` clock one cycle counts as one second.")
    begin: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    bucket_seconds: float
    buckets: int
    mean: Values
    min: Values
    max: Values
    rms: Values | None = Field(description="Of waveforms only.")
    count: list[int] = Field(description="Good values.")
    bad_share: Values = Field(
        description="Share of values of bad or uncertain quality; for a risk, of answers without "
        "a probability. null = nothing arrived."
    )
    gaps: list[Gap] = Field(description="Two or more empty buckets in a row.")
    as_of: datetime


class HappenedEvent(BaseModel):
    """Something that happened to a machine."""

    at: datetime
    source: Literal["event", "feedback", "alarm"]
    type: str = Field(examples=["maintenance"])
    code: str = Field(examples=["bearing_wear"])
    detail: str = Field(description="Free text; the prediction of a feedback.")


class MachineEvents(BaseModel):
    """Maintenance, failures, error codes and feedback, oldest first."""

    model_config = ConfigDict(populate_by_name=True)

    machine_id: str
    begin: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    events: list[HappenedEvent]
    is_truncated: bool = Field(description="There are more; the newest are given.")
    as_of: datetime
