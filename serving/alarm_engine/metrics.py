"""Prometheus metrics of the alarm engine."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from aegisops.names import metric

_APP = "alarm_engine"


class EngineMetrics:
    """What the engine counts; in the registry it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.is_active = Gauge(
            metric(_APP, "is_active"), "1 while this engine is the active one", registry=registry
        )
        self.evaluation_seconds = Histogram(
            metric(_APP, "evaluation_seconds"),
            "Time of one evaluation of all machines",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
            registry=registry,
        )
        self.evaluated_at = Gauge(
            metric(_APP, "evaluated_timestamp_seconds"),
            "When the last evaluation ended",
            registry=registry,
        )
        self.risks_at = Gauge(
            metric(_APP, "risks_timestamp_seconds"),
            "When the last round of full decisions ended",
            registry=registry,
        )
        self.standing = Gauge(
            metric(_APP, "standing_alarms"),
            "Alarms that are not normal",
            ["kind", "state"],
            registry=registry,
        )
        self.transitions = Counter(
            metric(_APP, "transitions_total"),
            "Transitions that this engine made",
            ["transition"],
            registry=registry,
        )
        self.conflicts = Counter(
            metric(_APP, "conflicts_total"),
            "Transitions given up because somebody changed the alarm first",
            registry=registry,
        )
        self.failures = Counter(
            metric(_APP, "failures_total"),
            "Rounds that ended early",
            ["round"],
            registry=registry,
        )
        self.pending = Gauge(
            metric(_APP, "pending_records"),
            "Journal records that no outbox had when last looked",
            registry=registry,
        )
        self.notifications = Counter(
            metric(_APP, "notifications_total"),
            "Notifications by how they ended",
            ["result"],
            registry=registry,
        )
