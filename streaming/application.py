"""What both stream applications share: Quix Streams on our terms, and the way to end.

Partitions start where our own stores say, not where the consumer group last committed: the stores'
offsets are transactional with the data, the group's are only for lag tools.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition
from quixstreams import Application
from quixstreams.kafka.consumer import raise_for_msg_error
from quixstreams.models.topics import Topic, TopicAdmin, TopicConfig, TopicManager

from aegisops import names
from aegisops.settings import KafkaSettings, Settings
from streaming import logs
from streaming.buffers import Messages
from streaming.buffers import TopicPartition as Partition
from streaming.health import Health
from streaming.metrics import StreamMetrics
from streaming.sink import BufferedSink

log = logging.getLogger(__name__)

STATISTICS_MS = 5_000
TIMEOUT_SECONDS = 10.0
BATCH_MESSAGES = 10_000
"""Taken from the client library in one call."""
LAST_SECONDS = 25.0
"""After SIGTERM: for the last flush. What it does not finish, the next start does again."""
_GARBAGE = (50_000, 20, 50)

Watermarks = Callable[[Partition], tuple[int, int]]
Starts = Callable[[Sequence[Partition], Watermarks], Mapping[Partition, int]]
"""(assigned partitions, their watermarks) → offset to read each from."""


class StreamApplication(Application):
    """A Quix application over some topics and one sink, one per process, in the main thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        topics: Sequence[str],
        sink: BufferedSink,
        commit_seconds: float,
        starts: Starts,
        metrics: StreamMetrics,
        health: Health,
    ) -> None:
        kafka = settings.kafka
        self._starts = starts
        self._sink = sink
        self._metrics = metrics
        self._health = health
        self._most_bytes = settings.stream.max_buffer_mb << 20
        super().__init__(
            broker_address=kafka.bootstrap,
            consumer_group=name,
            auto_offset_reset="earliest",  # the default would skip what came before the first start
            commit_interval=commit_seconds,
            consumer_poll_timeout=min(0.1, commit_seconds / 4),
            consumer_extra_config={
                **_membership(kafka, f"{name}-{settings.stream.instance}"),
                **kafka.options,
                "fetch.wait.max.ms": 100,
                # What the client library holds back beside the sink's own buffer.
                "queued.max.messages.kbytes": 65_536,
                "statistics.interval.ms": STATISTICS_MS,
                "stats_cb": self._on_statistics,
            },
            # It sends nothing; an idempotent producer would need the right to write all the same.
            producer_extra_config={**kafka.options, "enable.idempotence": False},
            topic_manager=_InMemoryTopics(kafka.bootstrap, name) if kafka.in_memory else None,
            state_dir=settings.data_dir.absolute() / "quix" / name,
            use_changelog_topics=False,
            loglevel=None,
        )
        config = TopicConfig(num_partitions=names.PARTITIONS, replication_factor=1)
        for topic in topics:
            self.dataframe(self.topic(topic, value_deserializer="bytes", config=config)).sink(sink)

    def run(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Quix declares it
        """Run until SIGTERM or an error that a restart may cure."""
        # What is wired now stays for ever; walking it again and again cost a fifth of each flush.
        gc.freeze()
        gc.set_threshold(*_GARBAGE)
        return super().run(*args, **kwargs)

    def _process_message(self, dataframe_composed: object) -> None:  # noqa: ARG002
        # Works around Quix calling its dataframes message by message, 13 µs each: ours only hand
        # the bytes on. Groups, rebalances, checkpoints and backpressure stay Quix's.
        self._health.beat()
        self._producer.poll(0)
        fetched = self._consumer.consume(BATCH_MESSAGES, self._config.consumer_poll_timeout)
        self._run_tracker.set_message_consumed(bool(fetched))
        if not fetched:
            return
        mine = {(tp.topic, tp.partition) for tp in self._consumer.assignment()}
        for partition, messages in _by_partition(fetched).items():
            # Fetched before a rebalance that the same call has served: their new owner has them.
            if partition in mine:
                self._sink.extend(partition, messages.offsets, messages.arrived_ms, messages.values)
                for offset in sorted({messages.offsets[0], messages.last}):
                    self._store(partition, offset)
        # Memory stays bounded when more arrives in a commit interval than it can hold.
        if self._sink.waiting_bytes > self._most_bytes:
            self._processing_context.commit_checkpoint(force=True)

    def _store(self, partition: Partition, offset: int) -> None:
        topic, number = partition
        self._processing_context.store_offset(topic=topic, partition=number, offset=offset)

    def _assign_partitions(self, topic_partitions: list[TopicPartition]) -> None:
        # Works around Quix having no hook for start offsets: `assign` takes them from here.
        offsets = self._starts(
            [(tp.topic, tp.partition) for tp in topic_partitions], self._watermarks
        )
        for tp in topic_partitions:
            tp.offset = offsets[tp.topic, tp.partition] or OFFSET_BEGINNING
        log.info("reading %s partitions from where the stores end", len(offsets))
        log.debug("start offsets: %s", offsets)
        super()._assign_partitions(topic_partitions)
        self._health.assigned()

    def _watermarks(self, partition: Partition) -> tuple[int, int]:
        return self._consumer.get_watermark_offsets(
            TopicPartition(*partition), timeout=TIMEOUT_SECONDS
        )

    def _on_statistics(self, text: str) -> None:
        for topic, details in orjson.loads(text).get("topics", {}).items():
            for partition, state in details["partitions"].items():
                if state.get("consumer_lag", -1) >= 0:
                    self._metrics.lag.labels(topic, partition).set(state["consumer_lag"])

    def _on_sigterm(self, *args: Any) -> None:  # noqa: ANN401 - as Quix declares it
        watchdog = threading.Timer(LAST_SECONDS, _give_up)
        watchdog.daemon = True
        watchdog.start()
        super()._on_sigterm(*args)  # type: ignore[no-untyped-call]


def _give_up() -> None:
    log.error("not flushed within %g s of SIGTERM; the next start does it again", LAST_SECONDS)
    os._exit(1)


def _by_partition(fetched: Sequence[Message]) -> dict[Partition, Messages]:
    found: dict[Partition, Messages] = {}
    for message in fetched:
        if message.error() is not None:
            raise_for_msg_error(message)
        partition = (message.topic(), message.partition())
        kept = found.get(partition)
        if kept is None:
            kept = found[partition] = Messages()
        kept.offsets.append(message.offset())
        kept.arrived_ms.append(message.timestamp()[1])
        kept.values.append(message.value() or b"")
    return found


def _membership(kafka: KafkaSettings, instance: str) -> dict[str, Any]:
    """How a restart gets its partitions back soon: as the same member of the group.

    The in-memory broker does not know static members; there the dead member must time out quickly.
    """
    if kafka.in_memory:
        return {"session.timeout.ms": 3_000, "heartbeat.interval.ms": 500}
    return {"group.instance.id": instance, "session.timeout.ms": 30_000}


class _InMemoryTopics(TopicManager):
    """The in-memory broker has no admin API: its holder made the topics, nothing is asked."""

    def __init__(self, bootstrap: str, group: str) -> None:
        super().__init__(topic_admin=TopicAdmin(bootstrap), consumer_group=group)

    def _get_or_create_broker_topic(self, topic: Topic) -> Topic:
        found = Topic(name=topic.name)
        found.broker_config = TopicConfig(
            num_partitions=names.PARTITIONS,
            replication_factor=1,
            extra_config={"retention.ms": "604800000", "retention.bytes": "-1"},
        )
        return found


def run_main(name: str, run: Callable[[Settings], Any]) -> int:
    """Exit code of an app: 0 after SIGTERM or Ctrl-C, 1 after an error a restart may cure."""
    logs.configure(name)
    # Until Quix installs its own handlers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(Settings())
    except KeyboardInterrupt:
        pass
    except Exception:
        log.exception("%s ends; a restart continues where the stores are", name)
        return 1
    return 0
