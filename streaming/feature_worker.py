"""The feature worker: readings and events from Kafka into current feature vectors in Redis.

Run with `python -m streaming.feature_worker`; configured by AEGIS_* variables. Ends with 1 after an
error that a restart may cure, so run it under a supervisor.
"""

from __future__ import annotations

import sys
from functools import partial

from aegisops import names
from aegisops.lake import Lake
from aegisops.machines import load_classes
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.settings import Settings
from aegisops.worker_store import WorkerStore
from streaming.application import StreamApplication, run_main
from streaming.feature_metrics import FeatureMetrics
from streaming.feature_sink import TOPICS, FeatureSink
from streaming.fleet import Fleet
from streaming.health import Health, serve
from streaming.identity import checker, incarnations
from streaming.lake_writer import limits
from streaming.partitioner import partition_of
from streaming.warm_up import LakeHistory


def run(settings: Settings) -> None:
    """Wire and run until SIGTERM; raises what a restart must cure."""
    lake = Lake(settings.lake_root)
    metrics = FeatureMetrics()
    metrics.restarts.set(settings.stream.restarts)
    health = Health(metrics)
    serve(settings.stream.feature_metrics_port, metrics.registry, health)
    known = incarnations(settings.kafka, TOPICS)
    fleet = Fleet(lake, load_classes(settings.classes_dir))
    sink = FeatureSink(
        WorkerStore.from_settings(settings.redis),
        fleet=fleet,
        decoder=partial(avro.decode_many, writer_schema=SchemaRegistry(settings).schema),
        limits=limits(settings),
        incarnations=known,
        history=LakeHistory(lake, fleet, known),
        partition_of=partial(partition_of, partitions=names.PARTITIONS),
        metrics=metrics,
        check_topics=checker(settings.kafka, known),
    )
    StreamApplication(
        settings,
        name=names.FEATURE_WORKER_APP,
        topics=TOPICS,
        sink=sink,
        commit_seconds=settings.stream.feature_commit_seconds,
        starts=sink.assign,
        metrics=metrics,
        health=health,
    ).run()


if __name__ == "__main__":
    sys.exit(run_main(names.FEATURE_WORKER_APP, run))
