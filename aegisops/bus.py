"""The Kafka edge: producers, topics and positions. Streaming's consumers belong to Quix Streams.

Keys are machine ids and the partitioner is murmur2 everywhere (Java's and Quix's default, not
librdkafka's), so that all messages of a machine meet in one partition, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import Producer as _Producer
from confluent_kafka.admin import AdminClient, NewTopic

from aegisops import names
from aegisops.errors import AegisError, Permanent, Retryable, ServiceUnavailable
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.settings import KafkaSettings, Settings

Done = Callable[[Exception | None], None]
"""Called once per message, on the thread that polls: None = acknowledged by all replicas."""
Headers = Mapping[str, str]

_TIMEOUT = 10.0


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Options of librdkafka that every client shares."""
    return {"bootstrap.servers": kafka.bootstrap, "log_level": 3, **kafka.options}


class Producer:
    """Bytes in, acknowledged by all replicas, each once per producer session, in order per key."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = _Producer(
            {
                **client_options(kafka),
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "compression.type": "zstd",
                "queue.buffering.max.messages": 100_000,
                "queue.buffering.max.kbytes": 65_536,
            }
        )

    def publish(
        self,
        topic: str,
        key: str,
        value: bytes,
        done: Done | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Queue one message. Raises `Retryable` when the queue is full: poll and try again."""

        def report(error: KafkaError | None, _: object) -> None:
            if done is not None:
                done(None if error is None else _as_failure(error))

        try:
            self._producer.produce(
                topic, value, key.encode(), on_delivery=report, headers=dict(headers or {}) or None
            )
        except BufferError as error:
            raise Retryable(f"{topic}: the producer's queue is full") from error
        except KafkaException as error:
            raise _as_failure(error.args[0]) from error

    def poll(self, seconds: float = 0.0) -> None:
        """Serve delivery reports, waiting at most `seconds` for the first."""
        self._producer.poll(seconds)

    def flush(self, seconds: float = 30.0) -> None:
        """Wait until everything queued is acknowledged or has failed.

        Raises `ServiceUnavailable` when messages are still queued after `seconds`.
        """
        left = self._producer.flush(seconds)
        if left:
            raise ServiceUnavailable(f"Kafka did not take {left} messages within {seconds:g} s")

    def __len__(self) -> int:
        """Messages not yet acknowledged."""
        return len(self._producer)


class Publisher:
    """Records in, encoded with their topic's registered contract. A context manager."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer(settings.kafka)
        self._registry = SchemaRegistry(settings)
        self._ids: dict[str, int] = {}
        self._failure: Exception | None = None

    def publish(
        self, topic: str, key: str, record: Mapping[str, Any], headers: Headers | None = None
    ) -> None:
        """Queue one record; waits while the queue is full.

        Raises `BadInput` when the record does not fit, and the failure of an earlier record.
        """
        if topic not in self._ids:
            self._ids[topic] = self._registry.register(
                names.subject(topic), avro.contract(topic).text
            )
        value = avro.encode(topic, record, self._ids[topic])
        while True:
            self._raise_failure()
            try:
                self._producer.publish(topic, key, value, self._report, headers)
                break
            except Retryable:
                self._producer.poll(0.1)
        self._producer.poll()

    def flush(self, seconds: float = 30.0) -> None:
        """Return when everything queued is acknowledged; raises the first failure."""
        self._producer.flush(seconds)
        self._raise_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self.flush()

    def _report(self, error: Exception | None) -> None:
        self._failure = self._failure or error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def ensure_topics(
    kafka: KafkaSettings,
    topics: Iterable[str] = names.TOPICS,
    partitions: int = names.PARTITIONS,
    replication: int = 1,
) -> None:
    """Create the topics that are missing on a real broker.

    The in-memory broker has no admin API: whoever holds it creates its topics.
    Raises `ServiceUnavailable` when the broker does not answer, `Permanent` when it refuses.
    """
    if kafka.in_memory:
        return
    admin = AdminClient(client_options(kafka))
    wanted = [
        NewTopic(t, num_partitions=partitions, replication_factor=replication) for t in topics
    ]
    for topic, future in admin.create_topics(wanted, request_timeout=_TIMEOUT).items():
        try:
            future.result(_TIMEOUT)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _as_failure(cause, f"create {topic}") from error


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """Partition numbers of a topic; empty when it does not exist."""
    try:
        found = consumer.list_topics(topic, timeout=_TIMEOUT).topics.get(topic)
    except KafkaException as error:
        raise _as_failure(error.args[0]) from error
    return sorted(found.partitions) if found is not None and found.error is None else []


def watermarks(kafka: KafkaSettings, topic: str) -> dict[int, tuple[int, int]]:
    """Partition → (oldest offset held, next offset to be written)."""
    with _Reader(kafka, "aegis-watermarks") as consumer:
        return {
            p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=_TIMEOUT)
            for p in partitions_of(consumer, topic)
        }


def lag(kafka: KafkaSettings, group: str, topic: str) -> dict[int, int]:
    """Partition → messages the consumer group has not committed yet."""
    with _Reader(kafka, group) as consumer:
        partitions = [TopicPartition(topic, p) for p in partitions_of(consumer, topic)]
        behind = {}
        for committed in consumer.committed(partitions, timeout=_TIMEOUT) if partitions else []:
            low, high = consumer.get_watermark_offsets(committed, timeout=_TIMEOUT)
            at = low if committed.offset == OFFSET_INVALID else max(committed.offset, low)
            behind[committed.partition] = high - at
        return behind


class _Reader:
    """A consumer that only asks questions: it never subscribes, so it joins no group."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._consumer = Consumer(
            {**client_options(kafka), "group.id": group, "enable.auto.commit": False}
        )

    def __enter__(self) -> Consumer:
        return self._consumer

    def __exit__(self, _: object, error: object, __: object) -> None:
        self._consumer.close()
        if isinstance(error, KafkaException):
            raise _as_failure(error.args[0]) from error


def _as_failure(error: KafkaError, action: str = "") -> AegisError:
    text = f"Kafka{': ' + action if action else ''}: {error.str()}"
    if error.retriable() or error.code() in _AWAY:
        return ServiceUnavailable(text)
    return Permanent(text)


_AWAY = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - how the client library spells its codes
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
    }
)
