"""Prometheus metrics of the API, in a registry of their own: two apps in a process never clash."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from aegisops.names import metric
from serving.ladder import Judgement

_APP = "serving"
_SECONDS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5)


class Metrics:
    """What the API counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._predictions = Counter(
            metric(_APP, "predictions_total"),
            "Answers by rung, machine class and risk",
            ["rung", "machine_class", "risk"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            metric(_APP, "prediction_seconds"),
            "Time from question to answer",
            ["rung"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refused = Counter(
            metric(_APP, "refused_total"),
            "Requests refused at the door",
            ["reason"],
            registry=self.registry,
        )
        self.bundles_refused = Counter(
            metric(_APP, "bundles_refused_total"),
            "Model bundles that were not loaded; any increase is an alert",
            ["machine_class"],
            registry=self.registry,
        )
        self.model_loaded = Gauge(
            metric(_APP, "model_loaded"),
            "1 while a production model is in use",
            ["machine_class"],
            registry=self.registry,
        )
        self._shadow = {
            ended: Counter(
                metric(_APP, f"shadow_{ended}_total"),
                text,
                ["machine_class"],
                registry=self.registry,
            )
            for ended, text in (
                ("scored", "Vectors the shadow model scored"),
                ("dropped", "Vectors not scored, or scores not kept, for want of room"),
                ("failed", "Vectors at which the shadow model failed"),
            )
        }
        self.outbox_depth = Gauge(
            metric(_APP, "outbox_records"),
            "Audit and feedback records not yet delivered to Kafka",
            registry=self.registry,
        )
        self.telemetry_clients = Gauge(
            metric(_APP, "telemetry_clients"),
            "Clients of the live telemetry",
            registry=self.registry,
        )
        self._seen: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def answered(self, judgement: Judgement, machine_class: str, seconds: float) -> None:
        """Count one answer."""
        key = (judgement.rung.value, machine_class, judgement.risk.value)
        found = self._seen.get(key)
        if found is None:
            found = self._predictions.labels(*key), self._seconds.labels(key[0])
            self._seen[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def scored(self, machine_class: str, n: int) -> None:
        """Count vectors the shadow model scored."""
        self._shadow["scored"].labels(machine_class).inc(n)

    def dropped(self, machine_class: str, n: int) -> None:
        """Count vectors the shadow had no room for."""
        self._shadow["dropped"].labels(machine_class).inc(n)

    def failed(self, machine_class: str, n: int) -> None:
        """Count vectors at which the shadow model failed."""
        self._shadow["failed"].labels(machine_class).inc(n)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
