"""The wire contract of /api/v1 as OpenAPI sees it: request bodies, answers, examples.

Requests are validated with these models. Answers are built as plain dicts on the hot path; the
tests hold every answer against its model here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

from aegisops.names import Outcome, RiskLevel, Rung
from serving.telemetry import Kind
from serving.vectors import Cause

MachineId = Annotated[str, Field(min_length=1, max_length=200, examples=["spindle-007"])]


def _no_number(value: object) -> object:
    # A bare number would be taken for seconds or milliseconds since 1970, whichever is likelier.
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value
    raise PydanticCustomError("time", "give an ISO 8601 time, like 2026-03-02T03:12:07Z")


Moment = Annotated[datetime, BeforeValidator(_no_number)]
"""A time in a request. Without offset it is UTC."""

LARGE = 1_000
"""Machines from which a batch is streamed as NDJSON unless the caller insists on JSON."""
MOST = 100_000
"""Machines in one batch."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PredictRequest(_Request):
    """One machine, as of now unless said otherwise."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"machine_id": "spindle-007"},
                {"machine_id": "spindle-007", "at": "latest"},
                {"machine_id": "spindle-007", "features": {"vibration_rms_1h": 6.2}},
            ]
        }
    )

    machine_id: MachineId
    at: Literal["now", "latest"] | Moment = Field(
        default="now",
        description="`now` refuses stale readings; `latest` takes the newest, however old "
        "(imported history); a time answers as of then, from the lake. Without offset it is UTC.",
    )
    features: dict[str, float | str | None] | None = Field(
        default=None,
        description="Explicit model inputs by name instead of the machine's own; the answer is "
        "marked `source: request`. Inputs left out are missing, not zero.",
    )


class BatchRequest(_Request):
    """Several machines, or all that the token may see."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"machine_ids": ["spindle-001", "spindle-002"]},
                {"all": True, "machine_class": "cnc_spindle"},
            ]
        }
    )

    machine_ids: list[MachineId] | None = Field(default=None, min_length=1, max_length=MOST)
    all: bool = False
    machine_class: str | None = Field(default=None, description="With `all`: only this class.")
    at: Literal["now", "latest"] = "now"


class FeedbackRequest(_Request):
    """What became of an alert."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "machine_id": "spindle-007",
                    "prediction_id": "5f0c9d1e-7a51-4f7e-9d0e-0f5f0f6a2b11",
                    "outcome": "confirmed",
                    "failure_mode": "bearing_wear",
                    "idempotency_key": "work-order-88123",
                }
            ]
        }
    )

    machine_id: MachineId
    outcome: Outcome
    prediction_id: str = Field(default="", max_length=100)
    alarm_id: str | None = Field(
        default=None,
        max_length=64,
        description="The alarm it is about: the outcome shows on its row. Needs `version`.",
    )
    version: int | None = Field(
        default=None, ge=0, le=2**53, description="Of that alarm; if it has changed since, 409."
    )
    failure_mode: str | None = Field(default=None, max_length=100)
    at: Moment | None = Field(
        default=None, description="Time the outcome refers to; now when absent."
    )
    idempotency_key: str = Field(
        min_length=8,
        max_length=100,
        pattern=r"^[\x21-\x7e]+$",
        description="Same key, same report: repeating it changes nothing.",
    )


class NormalRange(BaseModel):
    """Healthy machines of this class: 5, 50 and 95 % points."""

    low: float
    median: float
    high: float


class Contribution(BaseModel):
    """One input's part in the answer."""

    feature: str = Field(examples=["vibration_rms_1h"])
    title: str = Field(examples=["vibration RMS over 1 h"])
    value: float | None = Field(description="null = missing", examples=[6.2])
    text: str = Field(description="The value as people read it.", examples=["6.2 m/s²"])
    unit: str = Field(examples=["m/s²"])
    normal_range: NormalRange | None
    contribution: float | None = Field(
        description="Exact SHAP value in log-odds; null on the other rungs. On the anomaly rung "
        "the list is sorted by distance from the normal range.",
        examples=[1.31],
    )


class LimitViolation(BaseModel):
    """A limit rule of the machine class that is broken, whatever the model says."""

    feature: str
    value: float
    unit: str
    limit: float
    direction: Literal["above", "below"]
    level: Literal["elevated", "high"]


class FailureMode(BaseModel):
    """Most likely way to fail."""

    code: str = Field(examples=["bearing_wear"])
    title: str = Field(examples=["Front bearing wear"])
    share: float | None = Field(
        description="Its share among the modes, 0 to 1; null without a model of the modes."
    )


class Action(BaseModel):
    """What to do."""

    text: str = Field(examples=["Plan a bearing replacement within the shift."])
    procedure: str | None = Field(examples=["SP-BRG-04"])


class DataQuality(BaseModel):
    """How good the data behind the answer is."""

    coverage: float | None = Field(
        description="Lowest share of expected readings behind any input, 0 to 1."
    )
    minimum_coverage: float
    status: Literal["good", "degraded", "instrument_fault", "no_data"]


class Model(BaseModel):
    """Which model answered; the digest is that of the signed bundle."""

    name: str
    version: str
    digest: str


class RemainingLife(BaseModel):
    """How long until the machine fails if nobody intervenes; in hours (cycles on a cycle clock)."""

    hours: float = Field(description="Half of the machines that looked like this failed earlier.")
    low: float
    high: float
    coverage: float = Field(description="Share of such lives between low and high.", examples=[0.9])


class Prediction(BaseModel):
    """A decision about one machine, with its reasons."""

    prediction_id: str
    machine_id: str
    machine_class: str
    asked_at: datetime
    horizon_hours: float = Field(description="Hours (cycles on a cycle clock).")
    probability: float | None = Field(
        description="Calibrated probability of a failure within the horizon; null when the rung "
        "has none. Never an invented number. On the anomaly rung: the share of held-out states as "
        "unusual as this one that were followed by a failure.",
        ge=0,
        le=1,
    )
    risk: RiskLevel
    failure_mode: FailureMode | None
    remaining_life: RemainingLife | None = Field(
        description="Only from the production model, and null where the machine shows no trend."
    )
    explanation: str
    contributions: list[Contribution]
    limit_violations: list[LimitViolation]
    recommended_action: Action | None
    data_quality: DataQuality
    features_at: datetime | None
    feature_age_seconds: float | None
    source: Literal["cache", "lake", "request", "none"]
    served_by: Rung
    cause: Cause | None = Field(description="Why the answer is not from the production model.")
    detail: str | None
    model: Model | None
    latency_ms: float


class HealthPart(BaseModel):
    """One part of the score, 0 (worst) to 100."""

    name: Literal["failure_risk", "limits"]
    score: float | None
    detail: str


class SensorStatus(BaseModel):
    """One channel's state as the features show it."""

    channel: str
    title: str
    unit: str
    status: Literal["ok", "no_data"]


class Health(BaseModel):
    """State of one machine. The score is that of its worst part; null when nothing is known."""

    machine_id: str
    machine_class: str
    site: str
    area: str
    score: float | None
    risk: RiskLevel
    served_by: Rung
    parts: list[HealthPart]
    explanation: str
    last_maintenance_at: datetime | None
    data_quality: DataQuality
    sensors: list[SensorStatus]
    features_at: datetime | None


class FeedbackReceipt(BaseModel):
    """The report is kept and on its way."""

    feedback_id: str
    is_repeat: bool


class TelemetryRequest(_Request):
    """First message of a telemetry WebSocket."""

    token: SecretStr | None = None
    """Needed unless the handshake carried one."""
    machine_ids: list[str] | None = Field(default=None, examples=[["spindle-007"]])
    """None = all that the token may see."""
    kinds: list[Kind] | None = None
    """None = all."""
    since: str | None = Field(default=None, max_length=64)
    """`position` of the last message received, to resume behind it."""


class ProblemDocument(BaseModel):
    """RFC 9457 problem document."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["/api/problems/unknown-machine"])
    title: str
    status: int
    detail: str
    instance: str = ""


class Unanswered(BaseModel):
    """The place of a machine in a batch that is unknown, or that the token may not see."""

    machine_id: str
    problem: ProblemDocument


TELEMETRY_EXAMPLE = """id: 1772420927412-5f0c9d1e
event: readings
data: {"v":1,"type":"readings","position":"1772420927412-5f0c9d1e","machines":[{"machine_id":\
"spindle-007","batches":[{"readings":[["power",1772420927000000,9.1,0]]}]}]}

"""

PREDICTION_EXAMPLE = {
    "prediction_id": "5f0c9d1e-7a51-4f7e-9d0e-0f5f0f6a2b11",
    "machine_id": "spindle-007",
    "machine_class": "cnc_spindle",
    "asked_at": "2026-03-02T03:12:07.412Z",
    "horizon_hours": 24.0,
    "probability": 0.83,
    "risk": "high",
    "failure_mode": {
        "code": "bearing_wear",
        "title": "Front bearing wear",
        "share": 0.79,
    },
    "remaining_life": {"hours": 6.5, "low": 0.9, "high": 18.4, "coverage": 0.9},
    "explanation": "Failure risk within 24 h is 83 %: vibration RMS over 1 h is 6.2 m/s² "
    "(normal 1.8–3.1), mostly pointing to front bearing wear.",
    "contributions": [
        {
            "feature": "vibration_rms_1h",
            "title": "vibration RMS over 1 h",
            "value": 6.2,
            "text": "6.2 m/s²",
            "unit": "m/s²",
            "normal_range": {"low": 1.8, "median": 2.4, "high": 3.1},
            "contribution": 1.31,
        }
    ],
    "limit_violations": [],
    "recommended_action": {
        "text": "Plan a bearing replacement within the shift; reduce speed until then.",
        "procedure": "SP-BRG-04",
    },
    "data_quality": {"coverage": 0.98, "minimum_coverage": 0.5, "status": "good"},
    "features_at": "2026-03-02T03:12:05.000Z",
    "feature_age_seconds": 2.4,
    "source": "cache",
    "served_by": "production",
    "cause": None,
    "detail": None,
    "model": {"name": "failure-cnc_spindle", "version": "3", "digest": "9c1f…"},
    "latency_ms": 1.1,
}
