"""What both stream applications count, for Prometheus; and how they feel, for who watches them."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from aegisops import names

_FLUSH_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FLUSH_MESSAGES = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


class StreamMetrics:
    """Counters in a registry of their own, so that two applications fit in one process."""

    def __init__(
        self,
        app: str,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`app` as in the metrics' names, for example `lake_writer`."""
        self.app = app
        self.registry = registry or CollectorRegistry()
        self._clock = clock
        self.trouble = ""
        """Why the last flush was postponed; empty when it was not."""
        self.lag = self.gauge("lag_messages", "Messages not read yet", "topic", "partition")
        self.event_lag = self.gauge(
            "event_lag_seconds", "Age of the newest event time in the last flush"
        )
        self.skipped = self.counter(
            "skipped_messages", "Messages dropped because they were written before"
        )
        self.missing = self.counter(
            "missing_offsets", "Offsets that the broker dropped before they were read"
        )
        self.backpressure = self.counter(
            "backpressure", "Flushes postponed because a store, the registry or Kafka was away"
        )
        self.restarts = self.gauge("restarts", "Times the supervisor has started this again")
        self.flush_seconds = Histogram(
            self.name("flush_seconds"),
            "Duration of a flush",
            buckets=_FLUSH_SECONDS,
            registry=self.registry,
        )
        self.flush_messages = Histogram(
            self.name("flush_messages"),
            "Messages in a flush",
            buckets=_FLUSH_MESSAGES,
            registry=self.registry,
        )

    def name(self, noun: str) -> str:
        """Full name of a metric."""
        return names.metric(self.app, noun)

    def counter(self, noun: str, doc: str, *labels: str) -> Counter:
        """A counter of this application."""
        return Counter(self.name(noun), doc, labels, registry=self.registry)

    def gauge(self, noun: str, doc: str, *labels: str) -> Gauge:
        """A gauge of this application."""
        return Gauge(self.name(noun), doc, labels, registry=self.registry)

    def postponed(self, error: Exception) -> None:
        """A flush could not be written yet."""
        self.trouble = f"{type(error).__name__}: {error}"
        self.backpressure.inc()

    def flushed(self, messages: int) -> None:
        """A flush was written."""
        self.trouble = ""
        self.flush_messages.observe(messages)

    def saw(self, newest_us: int | None) -> None:
        """Event time (µs) of the newest record of a flush; None when it had none."""
        if newest_us is not None:
            self.event_lag.set(max(0.0, self._clock() - newest_us / 1_000_000))
