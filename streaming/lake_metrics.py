"""What the lake writer counts beside `StreamMetrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram

from streaming.metrics import StreamMetrics

_FLUSH_ROWS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


class LakeMetrics(StreamMetrics):
    """Rows and refusals."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__("lake_writer", registry)
        self.rows = self.counter("rows", "Rows committed", "table")
        self.flush_rows = Histogram(
            self.name("flush_rows"),
            "Rows of a flush in one table",
            ["table"],
            buckets=_FLUSH_ROWS,
            registry=self.registry,
        )
        self.dead_letters = self.counter("dead_letters", "Rejections", "reason")
        self.repeats = self.counter(
            "repeats", "Records dropped because the table has them already", "table"
        )
        self.conflicts = self.counter("conflicts", "Commits refused by another writer's")
        self.circuit_open = self.gauge(
            "circuit_open", "1 while too large a share of a topic is bad to go on", "topic"
        )
        self.alarms = self.counter(
            "position_alarms", "The lake's offsets and the broker's contradict each other", "kind"
        )
