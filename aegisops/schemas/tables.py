"""Every Delta table, declared once: columns, keys, partitioning, ranges and meaning.

Writers, checks, views, docs and tests read these declarations; nothing else states a schema.
Times are UTC microseconds; `_at` is a time; columns that start with `_` say where a row came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pyarrow as pa

from aegisops import names

TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: Arrow type, meaning, and the closed range its values must lie in."""

    type: pa.DataType
    doc: str
    nullable: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """One Delta table. `keys` are unique; `order` is the sort inside a commit."""

    name: str
    doc: str
    columns: dict[str, Column]
    keys: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    row_group: int | None = None
    """Most rows of a Parquet row group, for tables read by a few keys; the writer's choice."""
    properties: dict[str, str] = field(default_factory=lambda: {"delta.checkpointInterval": "50"})
    fresh_within: timedelta | None = None
    """Rows should arrive at least this often; None = whenever there is something to say."""
    cluster_by: tuple[str, ...] = ()
    """Columns by which maintenance orders the files of a finished day, so that readers skip."""
    identity: tuple[str, ...] = ()
    """Columns that are all equal only when one record was sent twice: the lake writer keeps the
    first. Empty = a record is known by its place in Kafka alone."""
    worst_bad_share: float | None = None
    """Largest share of a channel's values that may be bad or uncertain without a warning."""

    @property
    def is_append_only(self) -> bool:
        """Whether rows are only ever added: bronze keeps everything as it arrived."""
        return self.name.startswith("bronze/")

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the table's rows."""
        return pa.schema(
            [pa.field(name, c.type, nullable=c.nullable) for name, c in self.columns.items()]
        )


def _source() -> dict[str, Column]:
    return {
        "_topic": Column(
            pa.string(), "`<topic>@<incarnation>` on Kafka, or `import/<name>` for bulk history"
        ),
        "_partition": Column(pa.int32(), "Kafka partition (0 for bulk history)", low=0),
        "_offset": Column(pa.int64(), "Kafka offset (running number for bulk history)", low=0),
        "_index": Column(pa.int32(), "position of the row inside its message", low=0),
        "_ingested_at": Column(TIMESTAMP, "when the row was written"),
    }


_REBUILDABLE = {
    "delta.checkpointInterval": "50",
    # Models name the versions their rows came from; the log must still know them years later.
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}
_SOURCE_KEY = ("_topic", "_partition", "_offset", "_index")
_MACHINE = Column(pa.string(), "machine id, unique in the fleet")
_DATE = Column(pa.date32(), "UTC day of the event time; the partition")
_QUALITY = Column(pa.int8(), "0 good, 1 uncertain, 2 bad (OPC UA severity)", low=0, high=2)

MACHINES = Table(
    name=names.BRONZE_MACHINES,
    doc="The fleet: one row per machine, newest registration wins.",
    columns={
        "machine_id": _MACHINE,
        "machine_class": Column(pa.string(), "name of its machine class"),
        "site": Column(pa.string(), "plant"),
        "area": Column(pa.string(), "area of the plant"),
        "attributes": Column(pa.string(), "JSON object of fixed properties, such as age"),
        "registered_at": Column(TIMESTAMP, "when this registration was made"),
    },
    keys=("machine_id",),
)

READINGS = Table(
    name=names.BRONZE_READINGS,
    doc="Scalar and counter readings, one row each, exactly as they arrived.",
    columns={
        "machine_id": _MACHINE,
        "channel": Column(pa.string(), "channel of the machine class"),
        "ts": Column(TIMESTAMP, "source time of the reading (cycle clock: 1 cycle = 1 s)"),
        "value": Column(pa.float64(), "value in the channel's unit; null when bad", nullable=True),
        "quality": _QUALITY,
        "seq": Column(pa.int64(), "the sender's running number of the message"),
        "date": _DATE,
        **_source(),
    },
    keys=_SOURCE_KEY,
    partition_by=("date",),
    order=("machine_id", "channel", "ts"),
    cluster_by=("machine_id", "channel", "ts"),
    fresh_within=timedelta(hours=1),
    worst_bad_share=0.05,
)

WAVEFORMS = Table(
    name=names.BRONZE_WAVEFORMS,
    doc="Waveform captures, one row each.",
    columns={
        "machine_id": _MACHINE,
        "channel": Column(pa.string(), "channel of the machine class"),
        "ts": Column(TIMESTAMP, "source time of the first sample"),
        "period_us": Column(pa.int64(), "time between samples in microseconds", low=1),
        "values": Column(pa.list_(pa.float64()), "samples in the channel's unit, in time order"),
        "quality": _QUALITY,
        "seq": Column(pa.int64(), "the sender's running number of the message"),
        "date": _DATE,
        **_source(),
    },
    keys=_SOURCE_KEY,
    partition_by=("date",),
    order=("machine_id", "channel", "ts"),
    cluster_by=("machine_id", "channel", "ts"),
    fresh_within=timedelta(hours=1),
    worst_bad_share=0.05,
)

EVENTS = Table(
    name=names.BRONZE_EVENTS,
    doc="What happened to machines: maintenance, failures, error codes, counter resets.",
    columns={
        "machine_id": _MACHINE,
        "ts": Column(TIMESTAMP, "when it happened"),
        "type": Column(pa.string(), "maintenance | failure | error | counter_reset"),
        "code": Column(pa.string(), "component, failure mode or error code; empty if none"),
        "detail": Column(pa.string(), "free text of the source; empty if none"),
        "date": _DATE,
        **_source(),
    },
    keys=_SOURCE_KEY,
    partition_by=(),
    order=("machine_id", "ts"),
)

PREDICTIONS = Table(
    name=names.BRONZE_PREDICTIONS,
    doc="Audit log: every prediction that was answered, hash-chained per API instance.",
    columns={
        "prediction_id": Column(pa.string(), "UUID of the answer"),
        "machine_id": _MACHINE,
        "asked_at": Column(TIMESTAMP, "when the question arrived"),
        "subject": Column(pa.string(), "token subject of who asked; never a personal name"),
        "served_by": Column(pa.string(), "rung: production | anomaly | thresholds | abstained"),
        "probability": Column(pa.float64(), "calibrated failure probability", True, 0, 1),
        "risk": Column(pa.string(), "normal | elevated | high | unknown"),
        "failure_mode": Column(pa.string(), "most likely failure mode", nullable=True),
        "model_version": Column(pa.string(), "bundle version that answered", nullable=True),
        "model_digest": Column(pa.string(), "sha256 of the signed bundle", nullable=True),
        "feature_set": Column(pa.string(), "class@version of the vector"),
        "features_at": Column(TIMESTAMP, "event time of the vector", nullable=True),
        "vector": Column(pa.list_(pa.float64()), "model inputs in vector order; NaN = missing"),
        "source": Column(pa.string(), "cache | lake | request | none: where the vector came from"),
        "latency_us": Column(pa.int64(), "time to the answer in microseconds", low=0),
        "instance": Column(pa.string(), "API instance that answered"),
        "chain_seq": Column(pa.int64(), "running number in the instance's chain", low=0),
        "previous_digest": Column(pa.string(), "digest of the record before in the chain"),
        "digest": Column(pa.string(), "sha256 over this record and previous_digest"),
        "date": _DATE,
        **_source(),
    },
    keys=("prediction_id",),
    partition_by=("date",),
    order=("instance", "chain_seq"),
    identity=("prediction_id", "digest"),
)

FEEDBACK = Table(
    name=names.BRONZE_FEEDBACK,
    doc="What became of alerts, in the fixed vocabulary.",
    columns={
        "feedback_id": Column(pa.string(), "idempotency key"),
        "prediction_id": Column(pa.string(), "prediction it is about; empty if none"),
        "machine_id": _MACHINE,
        "ts": Column(TIMESTAMP, "time the outcome refers to"),
        "outcome": Column(pa.string(), "confirmed | false_alarm | prevented | sensor_fault | …"),
        "failure_mode": Column(pa.string(), "found failure mode", nullable=True),
        "subject": Column(pa.string(), "token subject of who reported"),
        "date": _DATE,
        **_source(),
    },
    keys=_SOURCE_KEY,
    order=("machine_id", "ts"),
    identity=(
        "feedback_id",
        "prediction_id",
        "machine_id",
        "ts",
        "outcome",
        "failure_mode",
        "subject",
    ),
)

SHADOW_SCORES = Table(
    name=names.BRONZE_SHADOW_SCORES,
    doc="What shadow models said about the vectors of answered predictions; nobody acts on it.",
    columns={
        "prediction_id": Column(pa.string(), "the answered prediction, in bronze/predictions"),
        "machine_id": _MACHINE,
        "scored_at": Column(TIMESTAMP, "when the shadow model scored it"),
        "model_version": Column(pa.string(), "version of the shadow model's bundle"),
        "digest": Column(pa.string(), "sha256 of the shadow model's signed bundle"),
        "probability": Column(pa.float64(), "calibrated failure probability", low=0, high=1),
        "date": _DATE,
        **_source(),
    },
    keys=("prediction_id", "digest"),
    partition_by=("date",),
    order=("machine_id", "scored_at"),
    identity=("prediction_id", "digest", "scored_at"),
)

DEAD_LETTERS = Table(
    name=names.BRONZE_DEAD_LETTERS,
    doc="Messages and single readings that broke their contract, with the reason and the bytes.",
    columns={
        "reason": Column(pa.string(), "stable word, see names.Reason"),
        "detail": Column(pa.string(), "what exactly is wrong"),
        "machine_id": Column(pa.string(), "machine, if it could be read", nullable=True),
        "channel": Column(pa.string(), "channel, if it could be read", nullable=True),
        "ts": Column(pa.int64(), "source time in microseconds, as sent", nullable=True),
        "schema_id": Column(pa.int32(), "registry id in the frame, if any", nullable=True),
        "raw": Column(pa.binary(), "the message as received"),
        **_source(),
    },
    keys=_SOURCE_KEY,
)

TILES = Table(
    name=names.SILVER_TILES,
    doc="Mergeable state of one machine, channel and tile of time; see features/tiles.py.",
    columns={
        "machine_id": _MACHINE,
        "channel": Column(pa.string(), "channel or event of the machine class"),
        "tile_start": Column(TIMESTAMP, "start of the tile; it ends tile_us later"),
        "tile_us": Column(pa.int64(), "length of the tile in microseconds", low=1),
        "n": Column(pa.float64(), "good values", low=0),
        "n_bad": Column(
            pa.float64(), "values of bad or uncertain quality, or without a value", low=0
        ),
        "mean": Column(pa.float64(), "mean of the good values"),
        "m2": Column(pa.float64(), "sum of squared deviations", low=0),
        "m3": Column(pa.float64(), "sum of cubed deviations"),
        "m4": Column(pa.float64(), "sum of fourth powers of deviations", low=0),
        "min": Column(pa.float64(), "smallest value"),
        "max": Column(pa.float64(), "largest value"),
        "t_mean": Column(pa.float64(), "mean time in seconds after tile_start"),
        "t_m2": Column(pa.float64(), "sum of squared time deviations, s²", low=0),
        "tx_m2": Column(pa.float64(), "sum of products of time and value deviations"),
        "first": Column(pa.float64(), "earliest value"),
        "last": Column(pa.float64(), "latest value"),
        "first_ts": Column(pa.float64(), "time of the earliest value, µs since 1970"),
        "last_ts": Column(pa.float64(), "time of the latest value, µs since 1970"),
        "date": _DATE,
    },
    keys=("machine_id", "channel", "tile_start"),
    partition_by=("date",),
    order=("machine_id", "channel", "tile_start"),
    worst_bad_share=0.05,
)

FEATURES = Table(
    name=names.GOLD_FEATURES,
    doc="Feature vectors, one row per machine and step, as of the step's last reading.",
    columns={
        "machine_id": _MACHINE,
        "machine_class": Column(pa.string(), "class; decides the meaning of the vector"),
        "feature_set": Column(pa.string(), "class@version of the vector"),
        "ts": Column(TIMESTAMP, "event time of the last reading inside the vector"),
        "vector": Column(pa.list_(pa.float64()), "model inputs in vector order; NaN = missing"),
        "coverage": Column(pa.float64(), "lowest share of expected readings", low=0, high=1),
        "date": _DATE,
    },
    keys=("machine_id", "ts"),
    partition_by=("machine_class", "date"),
    order=("machine_id", "ts"),
    properties=_REBUILDABLE,
)

LABELS = Table(
    name=names.GOLD_LABELS,
    doc="What followed each feature row, and why it counts or does not.",
    columns={
        "machine_id": _MACHINE,
        "machine_class": Column(pa.string(), "class"),
        "ts": Column(TIMESTAMP, "event time of the feature row"),
        "horizon_us": Column(pa.int64(), "horizon of the label in microseconds", low=1),
        "label": Column(pa.int8(), "1 fails within the horizon, 0 does not; null censored", True),
        "failure_modes": Column(pa.list_(pa.string()), "modes that fail within the horizon"),
        "hours_to_failure": Column(pa.float64(), "to the next failure, if any", nullable=True),
        "hours_followed": Column(
            pa.float64(), "to that failure, to work that hides it, or to the record's end"
        ),
        "provenance": Column(pa.string(), "why: failure | survived | end_of_data | maintenance…"),
        "date": _DATE,
    },
    keys=("machine_id", "ts", "horizon_us"),
    partition_by=("machine_class",),
    order=("machine_id", "ts"),
    properties=_REBUILDABLE,
)

HOURLY = Table(
    name=names.GOLD_HOURLY,
    doc="Hourly summary of each channel, feature and risk: what long views are drawn from.",
    columns={
        "machine_id": _MACHINE,
        "kind": Column(pa.string(), "channel | feature | risk"),
        "name": Column(pa.string(), "channel or model input; `probability` for a risk"),
        "ts": Column(TIMESTAMP, "start of the hour"),
        "n": Column(pa.float64(), "good values", low=0),
        "n_bad": Column(pa.float64(), "values of bad quality, or missing", low=0),
        "mean": Column(pa.float64(), "mean of the good values", nullable=True),
        "mean_square": Column(pa.float64(), "mean of their squares", nullable=True, low=0),
        "min": Column(pa.float64(), "smallest", nullable=True),
        "max": Column(pa.float64(), "largest", nullable=True),
        "month": Column(pa.string(), "UTC month such as 2026-03; the partition"),
    },
    keys=("machine_id", "kind", "name", "ts"),
    partition_by=("month",),
    order=("machine_id", "kind", "name", "ts"),
    # One series' year is 12 row groups then: measured 20 ms among 2,400 series.
    row_group=20_000,
)

TRAINING_SET = Table(
    name=names.ML_TRAINING_SET,
    doc="Labelled rows of the last training per class, with their fold.",
    columns={
        "machine_id": _MACHINE,
        "machine_class": Column(pa.string(), "class"),
        "ts": Column(TIMESTAMP, "event time of the feature row"),
        "vector": Column(pa.list_(pa.float64()), "model inputs in vector order; NaN = missing"),
        "label": Column(pa.int8(), "1 fails within the horizon, 0 does not", low=0, high=1),
        "failure_modes": Column(pa.list_(pa.string()), "modes that fail within the horizon"),
        "hours_to_failure": Column(pa.float64(), "to the next failure, if any", nullable=True),
        "hours_followed": Column(
            pa.float64(), "to that failure, to work that hides it, or to the record's end"
        ),
        "fold": Column(pa.string(), "train | calibrate | test"),
    },
    keys=("machine_id", "ts"),
    partition_by=("machine_class",),
    order=("machine_id", "ts"),
    properties=_REBUILDABLE,
)

MODEL_DECISIONS = Table(
    name=names.OPS_MODEL_DECISIONS,
    doc="Every decision about a model: who, what, why, on which evidence.",
    columns={
        "decided_at": Column(TIMESTAMP, "when"),
        "machine_class": Column(pa.string(), "class"),
        "model_version": Column(pa.string(), "version of the bundle decided about"),
        "model_digest": Column(pa.string(), "sha256 of the signed bundle"),
        "decision": Column(
            pa.string(),
            "promoted | refused | rolled_back | restored | shadowed | unshadowed",
        ),
        "decided_by": Column(pa.string(), "subject or run that decided"),
        "reason": Column(pa.string(), "why, for people"),
        "evidence": Column(pa.string(), "JSON of the checks and metrics it rests on"),
    },
    keys=("decided_at", "machine_class", "model_version"),
)

REPLAYS = Table(
    name=names.OPS_REPLAYS,
    doc="Dead letters that were sent again: one row before the sending, one when Kafka has it.",
    columns={
        "replay_id": Column(pa.string(), "run of `aegisops dlq replay`"),
        "state": Column(pa.string(), "intended | acknowledged"),
        "reason": Column(pa.string(), "why it was a dead letter"),
        "recorded_at": Column(TIMESTAMP, "when this row was written"),
        **{n: c for n, c in _source().items() if n in _SOURCE_KEY},
    },
    keys=("replay_id", "state", *_SOURCE_KEY),
)

DRIFT = Table(
    name=names.OPS_DRIFT,
    doc="Drift reports: one row per class, run and feature.",
    columns={
        "run_id": Column(pa.string(), "run that compared"),
        "checked_at": Column(TIMESTAMP, "when it compared"),
        "machine_class": Column(pa.string(), "class"),
        "kind": Column(pa.string(), "data | prediction | quality"),
        "feature": Column(pa.string(), "input, `log_odds`, `coverage` or `<channel>_bad_share`"),
        "value": Column(pa.float64(), "population stability index; 0 = the same", True, low=0),
        "threshold": Column(pa.float64(), "from unchanged windows of the past", True, low=0),
        "drifted": Column(pa.bool_(), "beyond the threshold, and repairs do not explain it"),
        "verdict": Column(pa.string(), "steady | drifted | context | unknown"),
        "machines": Column(pa.list_(pa.string()), "machines most affected, worst first"),
        "doubtful_modes": Column(pa.list_(pa.string()), "failure modes whose alarms are in doubt"),
        "reference_rows": Column(pa.int64(), "machine intervals of the past", low=0),
        "current_rows": Column(pa.int64(), "machine intervals of the current window", low=0),
        "current_from": Column(TIMESTAMP, "start of the current window"),
        "current_until": Column(TIMESTAMP, "end of the current window"),
        "report": Column(pa.string(), "file name, without suffix, in reports/drift/<class>"),
    },
    keys=("run_id", "machine_class", "kind", "feature"),
)

ALARM_JOURNAL = Table(
    name=names.OPS_ALARM_JOURNAL,
    doc="Append-only journal of alarms: a row per transition, with the state it led to.",
    columns={
        "journal_id": Column(pa.string(), "alarm id and version; a repeat has the same"),
        "alarm_id": Column(pa.string(), "id of the definition's alarm on the machine"),
        "version": Column(pa.int64(), "rises with every transition of the alarm", low=1),
        "changed_at": Column(TIMESTAMP, "when the transition happened"),
        "transition": Column(pa.string(), "raised | returned | acknowledged | shelved | …"),
        "state": Column(pa.string(), "state after it, see docs/alarms.md"),
        "kind": Column(pa.string(), "alarm | advisory"),
        "priority": Column(pa.int32(), "1 = act at once … 4", low=1, high=4),
        "definition_id": Column(pa.string(), "entry of the master alarm database"),
        "revision": Column(pa.int32(), "revision of the entry", low=0),
        "machine_id": Column(pa.string(), "machine; empty for the product's own parts"),
        "machine_class": Column(pa.string(), "class; empty for the product's own parts"),
        "site": Column(pa.string(), "plant"),
        "area": Column(pa.string(), "area of the plant"),
        "cause_group": Column(pa.string(), "what alarms of one cause have in common"),
        "is_first_out": Column(pa.bool_(), "no other alarm of its group stood when it was raised"),
        "is_active": Column(pa.bool_(), "whether the condition holds, hidden or not"),
        "raised_at": Column(TIMESTAMP, "when it was last raised", nullable=True),
        "occurrence": Column(pa.int64(), "how often the alarm had been raised", low=0),
        "subject": Column(pa.string(), "token subject, or alarm-engine; never a personal name"),
        "comment": Column(pa.string(), "why, or what was said; empty if none"),
        "value": Column(pa.float64(), "value that raised it", nullable=True),
        "setpoint": Column(pa.float64(), "limit at that time", nullable=True),
        "prediction_id": Column(pa.string(), "prediction behind an advisory", nullable=True),
        "snapshot": Column(pa.string(), "JSON of the alarm's whole state after the transition"),
        "date": _DATE,
        **_source(),
    },
    keys=("journal_id",),
    partition_by=("date",),
    order=("alarm_id", "version"),
    identity=("journal_id", "changed_at", "subject", "snapshot"),
)

WORK_ORDERS = Table(
    name=names.OPS_WORK_ORDERS,
    doc="Every change of a work order, append-only; the snapshot is the order after it.",
    columns={
        "work_order_id": Column(pa.string(), "order; follows from its idempotency key"),
        "version": Column(pa.int64(), "running number of the order's changes", low=1),
        "changed_at": Column(TIMESTAMP, "when it changed"),
        "state": Column(pa.string(), "draft | closed"),
        "machine_id": _MACHINE,
        "alarm_id": Column(pa.string(), "alarm it was drafted from", nullable=True),
        "prediction_id": Column(pa.string(), "prediction it is about", nullable=True),
        "outcome": Column(pa.string(), "what was found, as in bronze/feedback", nullable=True),
        "subject": Column(pa.string(), "token subject of who changed it, or webhook"),
        "snapshot": Column(pa.string(), "JSON of the order after the change"),
        "date": _DATE,
        **_source(),
    },
    keys=("work_order_id", "version"),
    order=("work_order_id", "version"),
    identity=("work_order_id", "version", "changed_at", "subject", "snapshot"),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        MACHINES,
        READINGS,
        WAVEFORMS,
        EVENTS,
        PREDICTIONS,
        FEEDBACK,
        SHADOW_SCORES,
        DEAD_LETTERS,
        TILES,
        FEATURES,
        LABELS,
        HOURLY,
        TRAINING_SET,
        MODEL_DECISIONS,
        REPLAYS,
        DRIFT,
        ALARM_JOURNAL,
        WORK_ORDERS,
    )
}
