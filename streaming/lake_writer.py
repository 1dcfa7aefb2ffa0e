"""The lake writer: every topic from Kafka into Delta.

Run with `python -m streaming.lake_writer`; configured by AEGIS_* variables. Ends with 1 after an
error that a restart may cure, so run it under a supervisor.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

from aegisops import names
from aegisops.alarm_store import Signal, SignalBoard
from aegisops.errors import ServiceUnavailable
from aegisops.lake import Lake
from aegisops.machines import load_classes
from aegisops.quality import Limits
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.settings import Settings
from streaming import offsets
from streaming.application import StreamApplication, Watermarks, run_main
from streaming.buffers import TopicPartition
from streaming.fleet import Fleet
from streaming.health import Health, serve
from streaming.identity import checker, incarnations
from streaming.lake_metrics import LakeMetrics
from streaming.lake_sink import LakeSink

log = logging.getLogger(__name__)

TOPICS = names.TOPICS


def run(settings: Settings) -> None:
    """Wire and run until SIGTERM; raises what a restart must cure."""
    lake = Lake(settings.lake_root)
    metrics = LakeMetrics()
    metrics.restarts.set(settings.stream.restarts)
    health = Health(metrics)
    serve(settings.stream.lake_metrics_port, metrics.registry, health)
    known = incarnations(settings.kafka, TOPICS)
    sink = LakeSink(
        lake,
        fleet=Fleet(lake, load_classes(settings.classes_dir)),
        decoder=partial(avro.decode_many, writer_schema=SchemaRegistry(settings).schema),
        limits=limits(settings),
        incarnations=known,
        metrics=metrics,
        max_bad_share=settings.stream.max_bad_share,
        circuit_opened=partial(tell_alarm_engine, settings),
        check_topics=checker(settings.kafka, known),
    )
    StreamApplication(
        settings,
        name=names.LAKE_WRITER_APP,
        topics=TOPICS,
        sink=sink,
        commit_seconds=settings.stream.lake_commit_seconds,
        starts=partial(starts, lake, known, metrics),
        metrics=metrics,
        health=health,
    ).run()


def tell_alarm_engine(settings: Settings, detail: str) -> None:
    """The open circuit is an alarm; that Redis is away must not stop the data."""
    source = f"{names.LAKE_WRITER_APP}-{settings.stream.instance}"
    try:
        SignalBoard.from_settings(settings.redis).tell(
            Signal("dead_letter_breaker", source, True, detail, time.time())
        )
    except ServiceUnavailable as error:
        log.warning("the alarm engine was not told: %s", error)


def limits(settings: Settings) -> Limits:
    """How far a reading's time may be from its arrival."""
    return Limits.of(
        timedelta(seconds=settings.stream.max_future_seconds),
        timedelta(days=settings.stream.max_past_days),
    )


def starts(
    lake: Lake,
    known: Mapping[str, str],
    metrics: LakeMetrics,
    partitions: Sequence[TopicPartition],
    watermarks: Watermarks,
) -> dict[TopicPartition, int]:
    """Right behind what the lake has; alarms when that and the broker contradict each other."""
    settled = offsets.settled(lake, known, partitions)
    for partition, offset in settled.items():
        low, high = watermarks(partition)
        if offset >= high:
            metrics.alarms.labels("ahead_of_broker").inc()
            log.error(
                "%s: the lake has offset %s, the broker ends at %s: the topic was recreated or "
                "truncated under the same id; new messages up to there will be discarded",
                partition,
                offset,
                high,
            )
        if offset + 1 < low:
            metrics.alarms.labels("dropped_unread").inc()
            log.error(
                "%s: offsets %s to %s are gone from the broker and were never written",
                partition,
                offset + 1,
                low - 1,
            )
    return {partition: offset + 1 for partition, offset in settled.items()}


if __name__ == "__main__":
    sys.exit(run_main(names.LAKE_WRITER_APP, run))
