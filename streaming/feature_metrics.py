"""What the feature worker counts beside `StreamMetrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from streaming.metrics import StreamMetrics


class FeatureMetrics(StreamMetrics):
    """Values, vectors and what did not become one."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__("feature_worker", registry)
        self.values = self.counter("values", "Values applied to features")
        self.late = self.counter(
            "late_values", "Values older than every window, left out of features"
        )
        self.rejected = self.counter("rejected", "Readings and messages not used", "reason")
        self.vectors = self.counter("vectors", "Feature vectors written")
        self.warm_ups = self.counter("warm_ups", "Partitions rebuilt from the lake")
