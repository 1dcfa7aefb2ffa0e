"""A small stream to test sinks on without a broker: a log of messages, a lake, a real Redis."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from functools import partial

import polars as pl
import pytest
import redis

from aegisops import names
from aegisops.embedded.processes import Processes
from aegisops.errors import BadInput
from aegisops.features.batch import features_at, values_from_bronze
from aegisops.lake import Lake
from aegisops.machines import shipped_classes
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC, Reason
from aegisops.quality import Limits
from aegisops.schemas import avro
from aegisops.schemas.tables import EVENTS, MACHINES, READINGS, WAVEFORMS
from aegisops.settings import Settings
from aegisops.worker_store import WorkerStore
from streaming.feature_metrics import FeatureMetrics
from streaming.feature_sink import FeatureSink
from streaming.fleet import Fleet
from streaming.lake_metrics import LakeMetrics
from streaming.lake_sink import LakeSink
from streaming.warm_up import LakeHistory
from tests.streaming.stack import Stack

NOW_MS = 1_790_000_000_000
SECOND = 1_000_000
PARTITIONS = 3
LIMITS = Limits(max_future_us=300 * SECOND, max_past_us=3_650 * 86_400 * SECOND)
TOPICS = (READINGS_TOPIC, EVENTS_TOPIC)


@pytest.fixture(scope="session")
def wire():
    """(encode, decoder) with schema ids made up here; the registry has its own tests."""
    ids = {topic: i + 1 for i, topic in enumerate(names.TOPICS)}
    texts = {i: avro.contract(topic).text for topic, i in ids.items()}

    def writer_schema(schema_id):
        if schema_id not in texts:
            raise BadInput(Reason.UNKNOWN_SCHEMA, f"no schema {schema_id}")
        return texts[schema_id]

    def encode(topic, record):
        return avro.encode(topic, record, ids[topic])

    return encode, partial(avro.decode_many, writer_schema=writer_schema)


class World:
    """A log of messages by partition, and what the applications keep outside themselves."""

    def __init__(self, root, wire, url):
        self.lake = Lake(root)
        self.encode, self.decoder = wire
        self.client = redis.Redis.from_url(url, protocol=2)
        self.store = WorkerStore(self.client)
        self.log = {(topic, p): [] for topic in TOPICS for p in range(PARTITIONS)}
        self.low = dict.fromkeys(self.log, 0)
        self.incarnation = "c1"

    # --- what the world outside does

    def register(self, *machines, machine_class="cnc_spindle"):
        rows = {
            "machine_id": machines,
            "machine_class": machine_class,
            "site": "north",
            "area": "",
            "attributes": "{}",
            "registered_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        self.lake.append(MACHINES, pl.DataFrame(rows))

    def partition_of(self, machine):
        return zlib.crc32(machine.encode()) % PARTITIONS

    def produce(self, topic, machine, payload):
        self.log[topic, self.partition_of(machine)].append(payload)

    def read(self, machine, *blocks):
        record = {"machine_id": machine, "seq": 0, "sent_at": 0, "blocks": list(blocks)}
        self.produce(READINGS_TOPIC, machine, self.encode(READINGS_TOPIC, record))

    def happen(self, machine, ts, kind="maintenance"):
        record = {"machine_id": machine, "ts": ts, "type": kind, "code": "", "detail": ""}
        self.produce(EVENTS_TOPIC, machine, self.encode(EVENTS_TOPIC, record))

    # --- the applications

    @property
    def incarnations(self):
        return dict.fromkeys(TOPICS, self.incarnation)

    def fleet(self):
        return Fleet(self.lake, shipped_classes(), recheck_seconds=0.0)

    def lake_sink(self):
        return LakeSink(
            self.lake,
            fleet=self.fleet(),
            decoder=self.decoder,
            limits=LIMITS,
            incarnations=self.incarnations,
            metrics=LakeMetrics(),
            clock=lambda: NOW_MS / 1_000,
        )

    def feature_sink(self, store=None):
        fleet = self.fleet()
        return FeatureSink(
            store or self.store,
            fleet=fleet,
            decoder=self.decoder,
            limits=LIMITS,
            incarnations=self.incarnations,
            history=LakeHistory(self.lake, fleet, self.incarnations),
            partition_of=self.partition_of,
            metrics=FeatureMetrics(),
            clock=lambda: NOW_MS / 1_000,
        )

    def write_lake(self, upto=None):
        """A lake writer that starts, writes all messages (or `upto` of each partition) and ends."""
        sink = self.lake_sink()
        self.deliver(sink, dict.fromkeys(self.log, 0), upto)
        sink.flush()

    def assign(self, sink):
        """Offsets a feature worker reads from."""
        marks = lambda p: (self.low[p], len(self.log[p]))  # noqa: E731
        return sink.assign(list(self.log), marks)

    def deliver(self, sink, starts, upto=None):
        for (topic, partition), messages in self.log.items():
            end = len(messages) if upto is None else min(upto, len(messages))
            begin = max(starts[topic, partition], self.low[topic, partition])
            for offset in range(begin, end):
                sink.add(messages[offset], b"", NOW_MS, [], topic, partition, offset)

    def run_features(self, flushes=(None,), store=None):
        """A feature worker that starts, flushes at these offsets and ends."""
        sink = self.feature_sink(store)
        starts = self.assign(sink)
        for upto in flushes:
            self.deliver(sink, starts, upto)
            sink.flush()
            starts = {p: position.offset + 1 for p, position in sink._positions.items()}
        return sink

    # --- what must come out

    def oracle(self):
        """machine → (ts, vector) by the batch definition over all that is in the lake."""
        machine_class = shipped_classes()["cnc_spindle"]
        tables = [self.lake.scan(t).collect() for t in (READINGS, WAVEFORMS, EVENTS)]
        values = values_from_bronze(*tables, machine_class).with_columns(
            pl.col("machine_id").cast(pl.String), pl.col("channel").cast(pl.String)
        )
        used = values.filter(pl.col("quality") == 0, pl.col("value").is_finite())
        heads = used.group_by("machine_id").agg(pl.col("ts").max())
        rows = features_at(values, machine_class, {}, heads)
        rows = rows.select("machine_id", pl.col("ts").cast(pl.Int64), "vector")
        return {machine: (ts, vector) for machine, ts, vector in rows.iter_rows()}

    def served(self):
        """machine → (ts, vector) as in Redis."""
        found = self.store.features_of(self.store.machine_ids())
        return {m: (f.ts, f.vector.tolist()) for m, f in found.items()}


@pytest.fixture
def world(tmp_path, wire, redis_server):
    # A database of its own: these tests empty it.
    world = World(tmp_path / "lake", wire, redis_server.url.removesuffix("/0") + "/9")
    world.client.flushdb()
    world.register("m-1", "m-2", "m-3", "m-4", "m-5")
    yield world
    world.client.close()


@pytest.fixture
def stack(tmp_path, any_kafka, redis_server, schema_registry):
    """Empty topics and stores; the applications are started by the test."""
    settings = Settings(
        data_dir=tmp_path,
        kafka=any_kafka,
        redis={"url": redis_server.url.removesuffix("/0") + "/10"},
        registry={"url": schema_registry},
        stream={"lake_commit_seconds": 0.3, "feature_commit_seconds": 0.1},
    )
    with Processes(tmp_path / "logs") as processes:
        stack = Stack(settings, processes, redis_server)
        yield stack
        stack.client.close()
