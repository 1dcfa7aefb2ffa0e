"""Every topic, table, Redis key, metric prefix, model name and alias. No other file spells one."""

from __future__ import annotations

from enum import IntEnum, StrEnum

# --- Kafka topics; consumer group = app name -------------------------------------------------
READINGS_TOPIC = "aegis.readings.v1"
EVENTS_TOPIC = "aegis.events.v1"
PREDICTIONS_TOPIC = "aegis.predictions.v1"
FEEDBACK_TOPIC = "aegis.feedback.v1"
SHADOW_SCORES_TOPIC = "aegis.shadow_scores.v1"
ALARMS_TOPIC = "aegis.alarms.v1"
WORK_ORDERS_TOPIC = "aegis.work_orders.v1"
REFUSALS_TOPIC = "aegis.refusals.v1"  # what a gateway could not read or place
TOPICS = (
    READINGS_TOPIC,
    EVENTS_TOPIC,
    PREDICTIONS_TOPIC,
    FEEDBACK_TOPIC,
    SHADOW_SCORES_TOPIC,
    ALARMS_TOPIC,
    WORK_ORDERS_TOPIC,
    REFUSALS_TOPIC,
)
PARTITIONS = 12
LAKE_WRITER_APP = "aegis-lake-writer"
FEATURE_WORKER_APP = "aegis-feature-worker"
GATEWAY_APP = "aegis-gateway"

# --- Kafka headers ------------------------------------------------------------------------------
REPLAY_OF_HEADER = "aegis-replay-of"  # source position of the dead letter that is sent again
REPLAY_ID_HEADER = "aegis-replay-id"  # run of `aegisops dlq replay`

# --- Delta tables: name = folder under the lake = Dagster asset key ---------------------------
BRONZE_MACHINES = "bronze/machines"
BRONZE_READINGS = "bronze/readings"
BRONZE_WAVEFORMS = "bronze/waveforms"
BRONZE_EVENTS = "bronze/events"
BRONZE_PREDICTIONS = "bronze/predictions"
BRONZE_FEEDBACK = "bronze/feedback"
BRONZE_SHADOW_SCORES = "bronze/shadow_scores"
BRONZE_DEAD_LETTERS = "bronze/dead_letters"
SILVER_TILES = "silver/tiles"
GOLD_FEATURES = "gold/features"
GOLD_LABELS = "gold/labels"
GOLD_HOURLY = "gold/hourly"
ML_TRAINING_SET = "ml/training_set"
OPS_MODEL_DECISIONS = "ops/model_decisions"
OPS_REPLAYS = "ops/replays"
OPS_DRIFT = "ops/drift"
OPS_ALARM_JOURNAL = "ops/alarm_journal"
OPS_WORK_ORDERS = "ops/work_orders"

# --- Dagster assets that are not tables -------------------------------------------------------
ML_FAILURE_MODEL = "ml/failure_model"
ML_ANOMALY_MODEL = "ml/anomaly_model"
ML_VALIDATION = "ml/validation"
ML_SHADOW = "ml/shadow"
ML_PRODUCTION = "ml/production"
ML_DRIFT_REPORT = "ml/drift_report"
ML_PARITY_REPORT = "ml/parity_report"
OPS_MAINTENANCE = "ops/maintenance"


def subject(topic: str) -> str:
    """Schema-registry subject of a topic's values (Confluent's TopicNameStrategy)."""
    return f"{topic}-value"


# --- Redis ------------------------------------------------------------------------------------
TELEMETRY_CHANNEL = "telemetry"  # one message per flush of the feature worker
PREDICTIONS_CHANNEL = "telemetry:predictions"  # answered predictions, from every API process
ALARMS_CHANNEL = "telemetry:alarms"  # every change of an alarm, with its state's write
TELEMETRY_EPOCH_KEY = "telemetry:epoch"  # another value = Redis was emptied in between


def rate_key(subject: str) -> str:
    """Hash with the token bucket of a principal: `tokens`, `at`."""
    return f"rate:{subject}"


def features_key(machine_id: str) -> str:
    """Hash with the latest feature vector: `v`, `fv`, `ts` and readable fields."""
    return f"feat:{machine_id}"


def tiles_key(machine_id: str) -> str:
    """Hash with the machine's live tile states, the feature worker's memory."""
    return f"tiles:{machine_id}"


def position_key(topic: str, partition: int) -> str:
    """Last Kafka offset whose readings are inside the stored tiles."""
    return f"fpos:{topic}:{partition}"


def machine_key(machine_id: str) -> str:
    """JSON of the machine's registration (class, site, area, attributes)."""
    return f"machine:{machine_id}"


MACHINES_KEY = "machines"  # set of every registered machine id


LATEST_PREDICTIONS_KEY = "predictions:latest"  # hash: machine id → JSON of its last answer


WORK_ORDERS_KEY = "work_orders"  # hash: order id → JSON of its state
WORK_ORDERS_EPOCH_KEY = "work_orders:epoch"  # there while the orders are complete
WORK_ORDER_DELIVERY_KEY = "work_orders:delivery"  # the process that delivers them


def recent_prediction_key(prediction_id: str) -> str:
    """JSON of an answer, until the lake has its record."""
    return f"prediction:{prediction_id}"


def report_ticket_key(ticket: str) -> str:
    """What a short-lived address of a drift report stands for."""
    return f"ticket:report:{ticket}"


def raw_key(machine_id: str) -> str:
    """Capped stream with the machine's last raw batches."""
    return f"raw:{machine_id}"


def idempotency_key(key: str) -> str:
    """Claim of a client's idempotency key."""
    return f"once:{key}"


# The braces keep all alarm keys in one slot of a Redis cluster.
ALARM_STATES_KEY = "{alarms}:states"  # hash: alarm id → version and snapshot
ALARMS_STANDING_KEY = "{alarms}:standing"  # set: ids of the alarms that are not normal
ALARM_RAISES_KEY = "{alarms}:raises"  # sorted set of the last raises, by time
ALARMS_PENDING_KEY = "{alarms}:pending"  # hash: journal records not yet in an outbox
ALARM_ENGINE_KEY = "{alarms}:engine"  # the active engine's token
ALARM_FENCE_KEY = "{alarms}:fence"  # counts engines that became active
ALARMS_EPOCH_KEY = "{alarms}:epoch"  # there while the states are complete
ALARM_SIGNALS_KEY = "{alarms}:signals"  # hash: what parts of the product say of themselves
ALARM_NOTICES_KEY = "{alarms}:notices"  # hash: last notification of each alarm


# --- Models -----------------------------------------------------------------------------------
class Alias(StrEnum):
    """MLflow registry aliases, in the order a model moves through them."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    PRODUCTION = "production"


def model_name(machine_class: str) -> str:
    """Registered-model name in MLflow; one model per machine class."""
    return f"failure-{machine_class}"


def pointer_file(alias: Alias) -> str:
    """File in `<bundles>/<class>/` that says which bundle has the alias; serving follows it."""
    return f"{alias}.json"


class Verdict(StrEnum):
    """Kinds of row in ops/model_decisions."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled_back"  # taken out of production
    RESTORED = "restored"  # put back in its place; same decided_at
    SHADOWED = "shadowed"
    UNSHADOWED = "unshadowed"


class Rung(StrEnum):
    """Who answered a prediction, best first."""

    PRODUCTION = "production"
    ANOMALY = "anomaly"
    THRESHOLDS = "thresholds"
    ABSTAINED = "abstained"


class RiskLevel(StrEnum):
    """Risk of failure within the class's horizon, as shown to people."""

    NORMAL = "normal"
    ELEVATED = "elevated"
    HIGH = "high"
    UNKNOWN = "unknown"


# --- Wire vocabulary --------------------------------------------------------------------------
class Quality(IntEnum):
    """OPC UA status severity of a value (Part 8): only good values enter a feature."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


class EventType(StrEnum):
    """Kinds of row in bronze/events."""

    MAINTENANCE = "maintenance"
    FAILURE = "failure"
    ERROR = "error"
    COUNTER_RESET = "counter_reset"


REGIME_CHANGE = "regime_change"
"""Code of a maintenance event after which a machine works differently, as planned."""


class Outcome(StrEnum):
    """Feedback vocabulary: what became of an alert."""

    CONFIRMED = "confirmed"
    FALSE_ALARM = "false_alarm"
    PREVENTED = "prevented"
    SENSOR_FAULT = "sensor_fault"
    PLANNED_WORK = "planned_work"
    UNKNOWN = "unknown"


# --- Alarms (ISA-18.2) ----------------------------------------------------------------------
class AlarmKind(StrEnum):
    """An alarm asks for a response now; an advisory says what may come."""

    ALARM = "alarm"
    ADVISORY = "advisory"


class AlarmState(StrEnum):
    """States of an alarm."""

    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED_UNACKNOWLEDGED = "returned_unacknowledged"
    SHELVED = "shelved"
    SUPPRESSED = "suppressed"  # by design: the machine's state explains it
    OUT_OF_SERVICE = "out_of_service"


class Transition(StrEnum):
    """Kinds of row in ops/alarm_journal."""

    RAISED = "raised"
    RETURNED = "returned"
    ACKNOWLEDGED = "acknowledged"
    RE_ALARMED = "re_alarmed"
    SHELVED = "shelved"
    UNSHELVED = "unshelved"
    SUPPRESSED = "suppressed"
    UNSUPPRESSED = "unsuppressed"
    TAKEN_OUT_OF_SERVICE = "taken_out_of_service"
    RETURNED_TO_SERVICE = "returned_to_service"
    OUTCOME_REPORTED = "outcome_reported"
    REMOVED = "removed"  # its entry is gone from the master database


# --- Dead letters ---------------------------------------------------------------------------
class Reason(StrEnum):
    """Why a message or a reading went to bronze/dead_letters."""

    MALFORMED = "malformed"  # not Confluent framing, or Avro does not decode
    UNKNOWN_SCHEMA = "unknown_schema"  # the registry answered: no such id
    UNKNOWN_MACHINE = "unknown_machine"
    UNKNOWN_CHANNEL = "unknown_channel"
    NOT_FINITE = "not_finite"
    FUTURE_TIMESTAMP = "future_timestamp"
    ANCIENT_TIMESTAMP = "ancient_timestamp"
    OUT_OF_RANGE = "out_of_range"  # outside the channel's physical limits
    NEGATIVE_COUNTER = "negative_counter"
    COUNTER_JUMP = "counter_jump"
    DUPLICATE = "duplicate"  # an import has one key twice
    UNKNOWN_VOCABULARY = "unknown_vocabulary"  # event type or outcome outside the fixed list
    UNMAPPED = "unmapped"  # a gateway got it and its mapping file does not name it
    TOO_LARGE = "too_large"  # a gateway got more in one piece than one message may hold
    GAP = "gap"  # a gateway knows that values of this source are missing, and since when


# --- Metrics ----------------------------------------------------------------------------------
def metric(app: str, noun: str) -> str:
    """Prometheus metric name, for example `aegis_lake_writer_rows_total`."""
    return f"aegis_{app}_{noun}"
