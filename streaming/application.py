"""What both stream applications share: Quix Streams on our terms, lag metrics, the way to end.

Partitions start where our own stores say, not where the consumer group last committed: the stores'
offsets are transactional with the data, the group's are only for lag tools.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from quixstreams import Application
from quixstreams.models.topics import Topic, TopicAdmin, TopicConfig, TopicManager
from quixstreams.sinks.base import BaseSink

from aegisops import bus, names
from aegisops.errors import ConfigurationError
from aegisops.settings import KafkaSettings, Settings
from streaming import logs
from streaming.buffers import TopicPartition as Partition

log = logging.getLogger(__name__)

STATISTICS_MS = 5_000
TIMEOUT_SECONDS = 10.0

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
        sink: BaseSink,
        commit_seconds: float,
        starts: Starts,
        registry: CollectorRegistry,
    ) -> None:
        kafka = settings.kafka
        self._starts = starts
        self._lag = Gauge(
            names.metric(name.removeprefix("aegis-").replace("-", "_"), "lag_messages"),
            "Messages in the partition that were not read yet",
            ["topic", "partition"],
            registry=registry,
        )
        super().__init__(
            broker_address=kafka.bootstrap,
            consumer_group=name,
            auto_offset_reset="earliest",  # the default would skip what came before the first start
            commit_interval=commit_seconds,
            consumer_poll_timeout=min(0.1, commit_seconds / 2),
            consumer_extra_config={
                **kafka.options,
                **_membership(kafka, f"{name}-{settings.stream.instance}"),
                "fetch.wait.max.ms": 100,
                "statistics.interval.ms": STATISTICS_MS,
                "stats_cb": self._on_statistics,
            },
            producer_extra_config=dict(kafka.options),
            topic_manager=_InMemoryTopics(kafka.bootstrap, name) if kafka.in_memory else None,
            state_dir=settings.data_dir.absolute() / "quix" / name,
            use_changelog_topics=False,
            loglevel=None,
        )
        config = TopicConfig(num_partitions=names.PARTITIONS, replication_factor=1)
        for topic in topics:
            self.dataframe(self.topic(topic, value_deserializer="bytes", config=config)).sink(sink)

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

    def _watermarks(self, partition: Partition) -> tuple[int, int]:
        return self._consumer.get_watermark_offsets(
            TopicPartition(*partition), timeout=TIMEOUT_SECONDS
        )

    def _on_statistics(self, text: str) -> None:
        for topic, details in orjson.loads(text).get("topics", {}).items():
            for partition, state in details["partitions"].items():
                if state.get("consumer_lag", -1) >= 0:
                    self._lag.labels(topic, partition).set(state["consumer_lag"])


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


def incarnations(kafka: KafkaSettings, topics: Sequence[str]) -> dict[str, str]:
    """Topic → cluster id and topic id: what tells its offsets from those of a namesake.

    Raises `ConfigurationError` for an in-memory broker without AEGIS_KAFKA__CLUSTER_ID: each of its
    starts must have its own, else new data would be discarded as already written.
    """
    if kafka.in_memory:
        if not kafka.cluster_id:
            raise ConfigurationError(
                "the in-memory broker needs a new AEGIS_KAFKA__CLUSTER_ID at each of its starts "
                "(the broker's `incarnation`)"
            )
        return dict.fromkeys(topics, kafka.cluster_id)
    bus.ensure_topics(kafka, topics)
    cluster = kafka.cluster_id or bus.cluster_id(kafka)
    admin = AdminClient(bus.client_options(kafka))
    described = admin.describe_topics(
        TopicCollection(list(topics)), request_timeout=TIMEOUT_SECONDS
    )
    return {topic: f"{cluster}/{future.result().topic_id}" for topic, future in described.items()}


def serve_metrics(port: int, registry: CollectorRegistry) -> None:
    """Prometheus metrics on a port; 0 = none. A taken port must not stop the data."""
    if not port:
        return
    try:
        start_http_server(port, registry=registry)
    except OSError as error:
        log.warning("no metrics on port %s: %s; set AEGIS_STREAM__*_METRICS_PORT", port, error)


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
