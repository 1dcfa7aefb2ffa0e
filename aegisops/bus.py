"""The Kafka edge: producers, topics and positions. Streaming's consumers belong to Quix Streams.

Keys are machine ids and the partitioner is murmur2 everywhere (Java's and Quix's default, not
librdkafka's), so that all messages of a machine meet in one partition, in order.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import Producer as _Producer
from confluent_kafka.admin import AdminClient, NewTopic

from aegisops import names
from aegisops.errors import AegisError, ConfigurationError, Permanent, Retryable, ServiceUnavailable
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.settings import KafkaSettings, Settings

Done = Callable[[Exception | None], None]
"""Called once per message, on the thread that polls: None = acknowledged by all replicas."""
Headers = Mapping[str, str]

log = logging.getLogger(__name__)

_TIMEOUT = 10.0
_PURGE_SECONDS = 1.0
_TAIL_SECONDS = 60.0
TAIL_GROUP = "aegis-tail"
"""Group of `tail`; it commits nothing, but a broker with ACLs asks for one."""


_TUNED: Mapping[str, Any] = {
    "linger.ms": 20,
    "compression.type": "zstd",
    # Bounds what a broker that is away costs in memory; then `publish` says Retryable.
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
}
"""Producer options that AEGIS_KAFKA__OPTIONS may change."""
_PROMISED: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
}
"""Producer options that what we claim about delivery and order rests on."""


def _made(client: Callable[[dict[str, Any]], Any], options: dict[str, Any]) -> Any:  # noqa: ANN401
    try:
        return client(options)
    except KafkaException as error:
        raise ConfigurationError(f"AEGIS_KAFKA__OPTIONS: {error.args[0].str()}") from error


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Options of librdkafka that every client shares."""
    return {"bootstrap.servers": kafka.bootstrap, "log_level": 3, **kafka.options}


class Producer:
    """Bytes in, acknowledged by all replicas, each once per producer session, in order per key.

    When the broker ends the session for good (librdkafka's fatal errors, such as a lost sequence),
    what was queued is reported as failed (`ServiceUnavailable`) and a new session begins. Whoever
    sends such a message again may send it twice, so its receiver must know it by an id.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        """Raises `ConfigurationError` for options librdkafka does not know; asks nobody yet."""
        self._options = {**_TUNED, **client_options(kafka), **_PROMISED}
        self._producer = _made(_Producer, self._options)

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
            raise Retryable(
                f"{topic}: the producer's queue is full; poll, then try again"
            ) from error
        except KafkaException as error:
            self._begin_again_if_fatal(error)
            raise _as_failure(error.args[0]) from error

    def poll(self, seconds: float = 0.0) -> None:
        """Serve delivery reports, waiting at most `seconds` for the first."""
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            self._begin_again_if_fatal(error)

    def flush(self, seconds: float = 30.0) -> None:
        """Wait until everything queued is acknowledged or has failed.

        Raises `ServiceUnavailable` when messages are still queued after `seconds`; they stay so.
        """
        try:
            left = self._producer.flush(seconds)
        except KafkaException as error:
            self._begin_again_if_fatal(error)
            raise _as_failure(error.args[0]) from error
        if left:
            raise ServiceUnavailable(
                f"Kafka did not take {left} messages within {seconds:g} s; is the broker of "
                "AEGIS_KAFKA__BOOTSTRAP there?"
            )

    def __len__(self) -> int:
        """Messages not yet acknowledged."""
        return len(self._producer)

    def _begin_again_if_fatal(self, error: KafkaException) -> None:
        if not error.args[0].fatal():
            return
        log.error("Kafka ended the producer's session, a new one begins: %s", error.args[0].str())
        ended, self._producer = self._producer, _made(_Producer, self._options)
        ended.purge()
        with contextlib.suppress(KafkaException):
            ended.flush(_PURGE_SECONDS)  # calls the delivery reports of what was purged


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
        try:
            if failed is None:
                self.flush()
        finally:
            self._registry.close()

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
    admin = _made(AdminClient, client_options(kafka))
    try:
        there = admin.list_topics(timeout=_TIMEOUT).topics
    except KafkaException as error:
        raise _as_failure(error.args[0], "list the topics") from error
    # Only what is missing: a program that may read its topics need not be allowed to create any.
    wanted = [
        NewTopic(t, num_partitions=partitions, replication_factor=replication)
        for t in topics
        if t not in there
    ]
    if not wanted:
        return
    for topic, future in admin.create_topics(wanted, request_timeout=_TIMEOUT).items():
        try:
            future.result()  # ends by itself at request_timeout
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _as_failure(cause, f"create {topic}") from error


def cluster_id(kafka: KafkaSettings) -> str:
    """Id the brokers' cluster gave itself; it stays the same for the cluster's life.

    Asked through the admin API, which the in-memory broker has not. Raises `ServiceUnavailable`.
    """
    admin = _made(AdminClient, client_options(kafka))
    try:
        found: str = admin.describe_cluster(request_timeout=_TIMEOUT).result().cluster_id
    except KafkaException as error:
        raise _as_failure(error.args[0], "describe the cluster") from error
    return found


def consumer(kafka: KafkaSettings, group: str, **options: str | int | bool) -> Consumer:
    """A consumer that reads from the oldest message on and commits only when told.

    `options` are librdkafka's with `_` for `.`: consumer(kafka, "g", max_poll_interval_ms=60_000).
    """
    named = {name.replace("_", "."): value for name, value in options.items()}
    return _made(
        Consumer,
        {
            "auto.offset.reset": "earliest",  # the default would skip what came before the start
            "enable.auto.commit": False,
            **client_options(kafka),
            "group.id": group,
            **named,
        },
    )


def partitions_of(client: Consumer, topic: str) -> list[int]:
    """Partition numbers of a topic; empty when it does not exist."""
    try:
        found = client.list_topics(topic, timeout=_TIMEOUT).topics.get(topic)
    except KafkaException as error:
        raise _as_failure(error.args[0]) from error
    return sorted(found.partitions) if found is not None and found.error is None else []


def watermarks(kafka: KafkaSettings, topic: str) -> dict[int, tuple[int, int]]:
    """Partition → (oldest offset held, next offset to be written)."""
    with _Reader(kafka, "aegis-watermarks") as client:
        return {
            p: client.get_watermark_offsets(TopicPartition(topic, p), timeout=_TIMEOUT)
            for p in partitions_of(client, topic)
        }


def tail(kafka: KafkaSettings, topic: str, since_ms: int) -> list[bytes]:
    """Values of a topic's messages from a time (Kafka's, Unix ms) up to now, in no order.

    The in-memory broker does not look up times: there it is all that it still has. Raises
    `ServiceUnavailable` when the broker does not answer in time.
    """
    values: list[bytes] = []
    with _Reader(kafka, TAIL_GROUP) as client:
        wanted = [TopicPartition(topic, p, since_ms) for p in partitions_of(client, topic)]
        if not wanted:
            return values
        if kafka.in_memory:
            begins = [TopicPartition(topic, tp.partition, OFFSET_BEGINNING) for tp in wanted]
        else:
            begins = client.offsets_for_times(wanted, timeout=_TIMEOUT)
        ends = {
            tp.partition: client.get_watermark_offsets(
                TopicPartition(topic, tp.partition), timeout=_TIMEOUT
            )
            for tp in begins
        }
        # A time behind the last message is answered with the end.
        begins = [
            tp
            for tp in begins
            if ends[tp.partition][0] < ends[tp.partition][1]
            and tp.offset < ends[tp.partition][1]
            and tp.offset != OFFSET_END
        ]
        open_ends = {tp.partition for tp in begins}
        client.assign(begins)
        deadline = time.monotonic() + _TAIL_SECONDS
        while open_ends:
            if time.monotonic() > deadline:
                raise ServiceUnavailable(f"{topic}: its tail was not read in {_TAIL_SECONDS:g} s")
            for message in client.consume(500, timeout=0.2):
                if message.error():
                    raise KafkaException(message.error())
                number = message.partition()
                if message.offset() < ends[number][1]:
                    values.append(message.value() or b"")
                if message.offset() >= ends[number][1] - 1:
                    open_ends.discard(number)
    return values


def lag(kafka: KafkaSettings, group: str, topic: str) -> dict[int, int]:
    """Partition → messages the consumer group has not committed yet."""
    with _Reader(kafka, group) as client:
        partitions = [TopicPartition(topic, p) for p in partitions_of(client, topic)]
        behind = {}
        for committed in client.committed(partitions, timeout=_TIMEOUT) if partitions else []:
            low, high = client.get_watermark_offsets(committed, timeout=_TIMEOUT)
            at = low if committed.offset == OFFSET_INVALID else max(committed.offset, low)
            behind[committed.partition] = high - at
        return behind


class _Reader:
    """A consumer that only asks questions: it never subscribes, so it joins no group."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._consumer = consumer(kafka, group)

    def __enter__(self) -> Consumer:
        return self._consumer

    def __exit__(self, _: object, error: object, __: object) -> None:
        self._consumer.close()
        if isinstance(error, KafkaException):
            raise _as_failure(error.args[0]) from error


def _as_failure(error: KafkaError, action: str = "") -> AegisError:
    text = f"Kafka{': ' + action if action else ''}: {error.str()}"
    # Fatal is the end of a client's session, not of the message: a new session may send it.
    if error.retriable() or error.fatal() or error.code() in _AWAY:
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
        KafkaError._PURGE_QUEUE,  # noqa: SLF001
        KafkaError._PURGE_INFLIGHT,  # noqa: SLF001
        KafkaError._FATAL,  # noqa: SLF001
        # The broker lost or ended the producer's session, see Producer.
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
        # A broker that starts, stops or hands a partition over; consumers are told without the
        # flag that says so.
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_CONTROLLER,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
    }
)
