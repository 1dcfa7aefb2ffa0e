"""Records to Kafka bytes, and the producer behind the outbox.

The outbox keeps Avro bodies without their frame: the frame carries the registry's schema id, and
the API must start and answer while the registry is away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aegisops.errors import ServiceUnavailable
from aegisops.names import (
    ALARMS_TOPIC,
    FEEDBACK_TOPIC,
    PREDICTIONS_TOPIC,
    SHADOW_SCORES_TOPIC,
    WORK_ORDERS_TOPIC,
    subject,
)
from aegisops.schemas import avro

if TYPE_CHECKING:
    from aegisops.bus import Producer
    from aegisops.schema_registry import SchemaRegistry

TOPICS = (PREDICTIONS_TOPIC, FEEDBACK_TOPIC, SHADOW_SCORES_TOPIC, ALARMS_TOPIC, WORK_ORDERS_TOPIC)


def body_encoder(topic: str) -> Callable[[Mapping[str, Any]], bytes]:
    """Encoder of a topic's records to Avro bodies; raises `BadInput` for one that does not fit."""
    return lambda record: avro.unframe(avro.encode(topic, record, 0))[1]


class KafkaPublisher:
    """Frames bodies with the registered schema's id and hands them to the producer."""

    def __init__(
        self, producer: Callable[[], Producer], registry: Callable[[], SchemaRegistry]
    ) -> None:
        """Both are made at `prepare`, so that nothing is opened before the API starts."""
        self._make_producer = producer
        self._make_registry = registry
        self._producer: Producer | None = None
        self._ids: dict[str, int] = {}

    def prepare(self) -> None:
        """Register the contracts (blocking); `Retryable` while the registry is away."""
        with self._make_registry() as registry:
            for topic in TOPICS:
                if topic not in self._ids:
                    self._ids[topic] = registry.register(subject(topic), avro.contract(topic).text)
        if self._producer is None:
            self._producer = self._make_producer()

    def publish(
        self, topic: str, key: str, value: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        """Hand over one body; `Retryable` when the producer's queue is full or nothing is ready."""
        if self._producer is None:
            raise ServiceUnavailable("the schema registry has not answered yet")
        self._producer.publish(topic, key, avro.frame(self._ids[topic], value), done)

    def poll(self) -> None:
        """Serve delivery reports without waiting."""
        if self._producer is not None:
            self._producer.poll()

    def close(self) -> None:
        """Let go of the producer; what it had not delivered is still in the outbox."""
        self._producer = None
