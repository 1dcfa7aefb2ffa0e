"""What the feature worker counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from aegisops.names import metric

_APP = "feature_worker"


class FeatureMetrics:
    """Counters in a registry of their own, so that two workers fit in one process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.values = Counter(
            metric(_APP, "values"), "Values applied to features", registry=self.registry
        )
        self.late = Counter(
            metric(_APP, "late_values"),
            "Values older than every window, left out of features",
            registry=self.registry,
        )
        self.rejected = Counter(
            metric(_APP, "rejected"), "Readings and messages not used", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self.vectors = Counter(
            metric(_APP, "vectors"), "Feature vectors written", registry=self.registry
        )
        self.skipped = Counter(
            metric(_APP, "skipped_messages"),
            "Messages dropped because they were applied before",
            registry=self.registry,
        )
        self.missing = Counter(
            metric(_APP, "missing_offsets"),
            "Offsets that the broker dropped before they were read",
            registry=self.registry,
        )
        self.warm_ups = Counter(
            metric(_APP, "warm_ups"), "Partitions rebuilt from the lake", registry=self.registry
        )
        self.backpressure = Counter(
            metric(_APP, "backpressure"),
            "Flushes postponed because Redis or the registry was away",
            registry=self.registry,
        )
        self.flush_seconds = Histogram(
            metric(_APP, "flush_seconds"), "Duration of a flush", registry=self.registry
        )
