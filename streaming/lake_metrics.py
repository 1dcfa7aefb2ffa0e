"""What the lake writer counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from aegisops.names import metric

_APP = "lake_writer"


class LakeMetrics:
    """Counters in a registry of their own, so that two writers fit in one process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.rows = Counter(
            metric(_APP, "rows"), "Rows committed", ["table"], registry=self.registry
        )
        self.dead_letters = Counter(
            metric(_APP, "dead_letters"), "Rejections", ["reason"], registry=self.registry
        )
        self.skipped = Counter(
            metric(_APP, "skipped_messages"),
            "Messages dropped because they were written before",
            registry=self.registry,
        )
        self.conflicts = Counter(
            metric(_APP, "conflicts"), "Commits refused by another writer's", registry=self.registry
        )
        self.backpressure = Counter(
            metric(_APP, "backpressure"),
            "Flushes postponed because a store or the registry was away",
            registry=self.registry,
        )
        self.alarms = Counter(
            metric(_APP, "position_alarms"),
            "The lake's offsets and the broker's contradict each other",
            ["kind"],
            registry=self.registry,
        )
        self.missing = Counter(
            metric(_APP, "missing_offsets"),
            "Offsets that the broker dropped before they were read",
            registry=self.registry,
        )
        self.flush_seconds = Histogram(
            metric(_APP, "flush_seconds"), "Duration of a flush", registry=self.registry
        )
