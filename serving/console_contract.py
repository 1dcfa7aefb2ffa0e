"""The wire contract of the console's endpoints as OpenAPI sees it; the rest: serving.contract."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from aegisops.machines import Clock
from aegisops.names import Outcome, RiskLevel, Rung
from serving.alarm_contract import AlarmRow
from serving.contract import Action, DataQuality, MachineId, NormalRange, SensorStatus
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


class Indicator(BaseModel):
    """A value drawn as a bar with its normal band and limits."""

    feature: str = Field(examples=["vibration_rms_1h"])
    channel: str = Field(examples=["vibration"])
    title: str
    unit: str
    value: float | None
    low: float | None = Field(description="5 % point of healthy machines; null without a model.")
    high: float | None = Field(description="95 % point of healthy machines.")
    warning: float | None
    alarm: float | None
    direction: Literal["above", "below"] | None = Field(description="Side of the limits.")


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
    indicators: list[Indicator] = Field(description="One per channel, with a limit rule first.")


class MachineDetail(FleetMachine):
    """One machine: its row of the fleet page and more."""

    attributes: dict[str, str | float | None]
    sensors: list[SensorStatus]
    last_maintenance_at: datetime | None
    as_of: datetime


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


class SeriesLimits(BaseModel):
    """A limit rule."""

    warning: float
    alarm: float
    direction: Literal["above", "below"]


class History(BaseModel):
    """One series in buckets of equal width: entry i covers `from` + i × `bucket_seconds`.

    null = no good value in the bucket.
    """

    model_config = ConfigDict(populate_by_name=True)

    machine_id: str
    kind: Literal["channel", "feature", "risk"]
    name: str
    title: str
    unit: str
    normal: NormalRange | None = Field(
        description="Of a feature: healthy machines of the class, by the model in production."
    )
    limits: SeriesLimits | None = Field(description="Of a feature: the class's limit rule.")
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


# --- machine classes ------------------------------------------------------------------------------


class ClassChannel(BaseModel):
    """A measured quantity; `low` and `high` are its physical limits."""

    name: str
    title: str
    unit: str
    kind: Literal["scalar", "waveform", "counter"]
    period_seconds: float
    low: float
    high: float
    baseline: float | None


class ClassFeature(BaseModel):
    """A model input computed from readings."""

    name: str
    title: str
    unit: str
    channel: str
    statistic: str
    window_seconds: float | None = Field(description="null = over all history.")


class ClassThreshold(SeriesLimits):
    """A limit rule on a feature."""

    feature: str
    failure_mode: str | None


class ClassFailureMode(BaseModel):
    """A way to fail and what to do about it."""

    code: str
    title: str
    action: str
    procedure: str | None


class ClassInfo(BaseModel):
    """A kind of machine. Durations on a `cycles` clock are in cycles."""

    name: str
    title: str
    clock: Clock
    feature_set: str
    horizon_hours: float
    stale_after_seconds: float
    channels: list[ClassChannel]
    features: list[ClassFeature]
    thresholds: list[ClassThreshold]
    failure_modes: list[ClassFailureMode]


class MachineClasses(BaseModel):
    """Every class the API knows."""

    classes: list[ClassInfo]


# --- sign-in --------------------------------------------------------------------------------------


class OidcClient(BaseModel):
    """What the console needs for an authorization code flow with PKCE."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    end_session_endpoint: str | None
    client_id: str
    scopes: list[str]
    audience: str


class SignIn(BaseModel):
    """Ways to sign in."""

    token: bool = Field(description="Tokens of `aegisops token` are accepted.")
    oidc: OidcClient | None
    notice: str | None = Field(description="Why the provider cannot be used just now.")
    as_of: datetime


class SignedIn(BaseModel):
    """What the token says."""

    subject: str
    role: Literal["viewer", "operator", "engineer", "admin"]
    sites: list[str] | None = Field(description="null = all.")
    areas: list[str] | None
    expires_at: datetime


# --- evidence -------------------------------------------------------------------------------------


class OwnRange(BaseModel):
    """5, 50 and 95 % points of the machine's own hourly means in the weeks before."""

    hours: int
    low: float
    median: float
    high: float


class EvidenceInput(BaseModel):
    """One model input of the prediction."""

    feature: str
    title: str
    value: float | None = Field(description="null = missing")
    unit: str
    text: str
    own_range: OwnRange | None = Field(description="null with less than a day of hours.")
    class_range: tuple[float, float] | None = Field(description="5 and 95 % of healthy machines.")
    contribution: float | None = Field(description="Exact SHAP value in log-odds.")


class Signal(BaseModel):
    """What arrived of a channel over the longest window before the prediction."""

    channel: str
    title: str
    unit: str
    coverage: float = Field(description="Good values per expected ones, up to 1.")
    bad_share: float | None


class ModelRef(BaseModel):
    """A signed bundle."""

    version: str
    digest: str


class ChainLink(BaseModel):
    """Where the record stands in the audit log."""

    instance: str
    number: int
    digest: str


class ToldOutcome(BaseModel):
    """Feedback about a prediction."""

    at: datetime
    outcome: str
    failure_mode: str | None
    subject: str


class Evidence(BaseModel):
    """What one prediction rests on."""

    prediction_id: str
    machine_id: str
    machine_class: str | None
    asked_at: datetime
    subject: str | None
    served_by: Rung
    probability: float | None
    risk: RiskLevel
    failure_mode: ModeName | None
    explanation: str | None
    recommended_action: Action | None
    source: str
    features_at: datetime | None
    feature_set: str | None
    model: ModelRef | None
    latency_ms: float
    inputs: list[EvidenceInput] = Field(description="Largest contribution first.")
    signals: list[Signal]
    is_logged: bool = Field(description="false in the first seconds: told from the answer.")
    is_replayable: bool
    is_record_intact: bool | None
    detail: str | None = Field(description="Why it cannot be computed again.")
    chain: ChainLink | None
    feedback: list[ToldOutcome]


class Compared(BaseModel):
    """What is compared between then and now."""

    probability: float | None
    risk: RiskLevel
    failure_mode: str | None


class Replay(BaseModel):
    """A logged prediction beside the same computed now; nulls when it cannot be computed."""

    prediction_id: str
    served_by: Rung
    model_version: str | None
    model_digest: str | None
    is_equal: bool | None = Field(description="The record is intact and nothing differs.")
    is_record_intact: bool | None
    logged: Compared | None
    computed: Compared | None
    differences: list[str]
    explanation: str | None
    detail: str | None


class LoggedPrediction(BaseModel):
    """A row of the audit log."""

    prediction_id: str
    asked_at: datetime
    probability: float | None
    risk: RiskLevel
    served_by: Rung
    failure_mode: str | None
    model_version: str | None
    source: str
    outcome: str | None


class MachinePredictions(BaseModel):
    """Newest first."""

    model_config = ConfigDict(populate_by_name=True)

    machine_id: str
    begin: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    predictions: list[LoggedPrediction]
    as_of: datetime


# --- work orders ----------------------------------------------------------------------------------


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkOrderRequest(_Body):
    """A draft for the maintenance system."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "machine_id": "spindle-007",
                    "prediction_id": "019cc0de-7a51-7f7e-9d0e-0f5f0f6a2b11",
                    "title": "Replace the front bearing",
                    "priority": 2,
                    "procedure": "SP-BRG-04",
                    "idempotency_key": "3d1f0c5e-draft",
                }
            ]
        }
    )

    machine_id: MachineId
    alarm_id: str | None = Field(default=None, max_length=200)
    prediction_id: str | None = Field(default=None, max_length=100)
    title: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=4_000)
    priority: int = Field(default=3, ge=1, le=4, description="1 = most urgent.")
    procedure: str | None = Field(default=None, max_length=100)
    idempotency_key: str = Field(
        min_length=8,
        max_length=100,
        pattern=r"^[\x21-\x7e]+$",
        description="Same key, same draft: repeating it changes nothing.",
    )


class WorkOrderOutcome(_Body):
    """What was found and done."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"outcome": "confirmed", "failure_mode": "bearing_wear"}]}
    )

    outcome: Outcome
    failure_mode: str | None = Field(default=None, max_length=100)
    comment: str | None = Field(default=None, max_length=4_000)


class Delivered(BaseModel):
    """How the maintenance system took it."""

    webhook: Literal["off", "queued", "delivered", "failed"]
    attempts: int
    detail: str | None


class WorkOrder(BaseModel):
    """A work order."""

    work_order_id: str = Field(examples=["WO-9C1F5A20B3D4"])
    version: int
    machine_id: str
    site: str
    area: str
    alarm_id: str | None
    prediction_id: str | None
    title: str
    description: str
    priority: int
    procedure: str | None
    state: Literal["draft", "closed"]
    created_at: datetime
    created_by: str
    outcome: Outcome | None
    failure_mode: str | None
    comment: str | None
    closed_at: datetime | None
    closed_by: str | None
    delivery: Delivered


class WorkOrders(BaseModel):
    """Newest first."""

    work_orders: list[WorkOrder]
    as_of: datetime


# --- models and handover --------------------------------------------------------------------------


class ModelDecision(BaseModel):
    """A recorded decision about a model."""

    decided_at: datetime
    machine_class: str
    version: str
    digest: str
    decision: str = Field(examples=["promoted"])
    decided_by: str
    reason: str


class ModelInfo(BaseModel):
    """A bundle's own words and the last decision about it."""

    version: str
    digest: str | None
    trained_at: str | None
    feature_set: str | None
    metrics: dict[str, float]
    promoted_at: datetime | None
    last_decision: ModelDecision | None


class RefusedBundle(BaseModel):
    """A bundle that was not loaded."""

    version: str
    reason: str


class ShadowComparison(BaseModel):
    """Scores of the same vectors by the answering model and its shadow, over two weeks."""

    model_config = ConfigDict(populate_by_name=True)

    pairs: int
    begin: datetime | None = Field(alias="from")
    end: datetime | None = Field(alias="to")
    mean_difference: float | None = Field(description="Shadow minus answer.")
    mean_absolute_difference: float | None
    correlation: float | None
    agreement: float | None = Field(description="Share of pairs with the same risk level.")


class ClassModels(BaseModel):
    """The models of one machine class."""

    machine_class: str
    title: str
    rung: Rung = Field(description="Who would answer now, given good data.")
    production: ModelInfo | None
    refused: RefusedBundle | None
    shadow: ModelInfo | None
    candidate: ModelInfo | None = Field(
        description="Newest bundle that is trained but neither in production nor in the shadow."
    )
    shadow_comparison: ShadowComparison | None
    history: list[ModelDecision] = Field(description="Newest first.")


class Models(BaseModel):
    """Every class."""

    models: list[ClassModels]
    as_of: datetime


class DriftFeature(BaseModel):
    """One row of a drift report."""

    kind: Literal["data", "prediction", "quality"]
    feature: str
    value: float | None = Field(description="Population stability index; 0 = the same.")
    threshold: float | None
    drifted: bool
    verdict: Literal["steady", "drifted", "context", "unknown"]
    machines: list[str]
    doubtful_modes: list[str]
    checked_at: datetime
    current_from: datetime
    current_until: datetime
    reference_rows: int
    current_rows: int
    report: str


class Drift(BaseModel):
    """The newest drift report of a class; nulls when there is none."""

    machine_class: str
    checked_at: datetime | None
    current_from: datetime | None
    current_until: datetime | None
    is_drifting: bool
    features: list[DriftFeature] = Field(description="Drifted ones first.")
    has_report: bool
    as_of: datetime


class ReportTicket(BaseModel):
    """Address of a report's page."""

    url: str
    expires_at: datetime


class AbnormalMachine(BaseModel):
    """A machine whose last answer is not normal."""

    machine_id: str
    site: str
    area: str
    owner: str | None
    risk: RiskLevel
    since: datetime
    explanation: str


class Handover(BaseModel):
    """What the next shift must know."""

    since: datetime
    until: datetime
    new_alarms: list[AlarmRow] = Field(description="Raised since, and not normal.")
    standing_alarms: list[AlarmRow]
    advisories: list[AlarmRow]
    shelved: list[AlarmRow]
    out_of_service: list[AlarmRow]
    work_orders: list[WorkOrder] = Field(description="Not closed.")
    model_changes: list[ModelDecision]
    abnormal_machines: list[AbnormalMachine]
    notices: list[str] = Field(description="Parts that could not be told, and why.")
    as_of: datetime


# --- system ---------------------------------------------------------------------------------------


class Freshness(BaseModel):
    """When a stage last had news."""

    stage: str = Field(examples=["lake: bronze/readings"])
    newest_at: datetime | None
    age_seconds: float | None


class Lag(BaseModel):
    """Messages that a stream application has not taken yet."""

    app: str
    topic: str
    messages: int


class SystemStatus(BaseModel):
    """State of every part. Without a token there is `status: alive` alone."""

    status: Literal["alive", "ok", "degraded"]
    version: str | None = None
    uptime_seconds: float | None = None
    audit_instance: str | None = None
    dependencies: dict[str, dict[str, Any]] | None = Field(
        default=None, description="`status` (ok | away) and `detail` by name."
    )
    models: list[dict[str, Any]] | None = Field(
        default=None, description="Rung, version and digest in use by machine class."
    )
    freshness: list[Freshness] | None = None
    lag: list[Lag] | None = Field(
        default=None, description="As of the last look, at most every 10 s; empty at first."
    )
    lag_problem: str | None = None
    heartbeat_seconds: float | None = None
    as_of: datetime | None = None


BODIES: list[type[BaseModel]] = [WorkOrderRequest, WorkOrderOutcome]
"""Request bodies that the routes read themselves."""
