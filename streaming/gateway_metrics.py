"""What the gateway counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from aegisops.names import metric

_APP = "gateway"


class GatewayMetrics:
    """Counters in a registry of their own, so that two gateways fit in one process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.items = Counter(
            metric(_APP, "items"),
            "Values, events and refusals that are safe on disk",
            ["source"],
            registry=self.registry,
        )
        self.refused = Counter(
            metric(_APP, "refused"),
            "What became a dead letter",
            ["source", "reason"],
            registry=self.registry,
        )
        self.ignored = Counter(
            metric(_APP, "ignored"),
            "Values that are no readings: why",
            ["source", "why"],
            registry=self.registry,
        )
        self.connected = Gauge(
            metric(_APP, "connected"), "1 while connected", ["source"], registry=self.registry
        )
        self.connections = Counter(
            metric(_APP, "connections"), "Connections made", ["source"], registry=self.registry
        )
        self.gaps = Counter(
            metric(_APP, "gaps"),
            "Times when values of a source are known to be missing",
            ["source"],
            registry=self.registry,
        )
        self.delivered = Counter(
            metric(_APP, "delivered_messages"),
            "Messages that Kafka acknowledged",
            registry=self.registry,
        )
        self.failed = Counter(
            metric(_APP, "failed_messages"),
            "Messages that Kafka did not take; they stay in the spool",
            registry=self.registry,
        )
        self.spool_messages = Gauge(
            metric(_APP, "spool_messages"),
            "Messages not yet acknowledged by Kafka",
            registry=self.registry,
        )
        self.spool_bytes = Gauge(
            metric(_APP, "spool_bytes"), "What they take", registry=self.registry
        )
        self.spool_age = Gauge(
            metric(_APP, "spool_age_seconds"), "Age of the oldest", registry=self.registry
        )
        self.commit_seconds = Histogram(
            metric(_APP, "commit_seconds"),
            "Duration of a commit to the spool",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
