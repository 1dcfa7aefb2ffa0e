"""Both stream applications as processes on some broker, and what was sent to them."""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from datetime import UTC, datetime

import duckdb
import numpy as np
import orjson
import polars as pl
import pytest
import redis

from aegisops import names
from aegisops.bus import Producer
from aegisops.embedded import ports
from aegisops.embedded.processes import Child
from aegisops.features.batch import features_at, values_from_bronze
from aegisops.lake import Lake
from aegisops.machines import load_class
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC, Reason
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.schemas.tables import DEAD_LETTERS, EVENTS, MACHINES, READINGS, WAVEFORMS
from aegisops.worker_store import WorkerStore
from streaming.identity import incarnations
from streaming.offsets import settled
from streaming.partitioner import partition_of

SECOND = 1_000_000
MACHINES_SENDING = [f"m-{i}" for i in range(8)]
PATIENCE = 90.0


def block(channel, *values, ts, quality=0):
    return {
        "channel": channel,
        "start_us": ts,
        "period_us": None,
        "quality": quality,
        "values": list(values),
    }


class Stack:
    """Broker, stores and both applications, and what was sent to them."""

    def __init__(self, settings, processes, redis_server):
        self.settings = settings
        self.processes = self.workers = processes
        """Of the lake writers, and of the feature workers."""
        self.redis_server = redis_server
        self.lake = Lake(settings.lake_root)
        self.client = redis.Redis.from_url(settings.redis.url, protocol=2)
        self.client.flushdb()
        self.store = WorkerStore(self.client)
        self.producer = Producer(settings.kafka)
        registry = SchemaRegistry(settings)
        self.ids = {
            topic: registry.register(names.subject(topic), avro.contract(topic).text)
            for topic in names.TOPICS
        }
        registry.close()
        self.meet_topics()
        self.readings = self.captures = self.events = 0
        self.letters = []
        self.register()
        self.begin = round(time.time() * SECOND) - 3_600 * SECOND
        self.random = random.Random(1)

    def meet_topics(self):
        """The topics are new and empty."""
        self.incarnations = incarnations(self.settings.kafka, names.TOPICS)
        self.sent = {(t, p): 0 for t in names.TOPICS for p in range(names.PARTITIONS)}

    def register(self):
        rows = {
            "machine_id": MACHINES_SENDING,
            "machine_class": "cnc_spindle",
            "site": "",
            "area": "",
            "attributes": "{}",
            "registered_at": datetime.now(UTC),
        }
        self.lake.append(MACHINES, pl.DataFrame(rows))

    def start(self, app, instance="0", **changes):
        """Start a member of an application; returns the URL of its metrics."""
        port = ports.free_port()
        stream = self.settings.stream.model_copy(update=changes)
        env = {
            "AEGIS_DATA_DIR": str(self.settings.data_dir),
            "AEGIS_KAFKA__BOOTSTRAP": self.settings.kafka.bootstrap,
            "AEGIS_KAFKA__IN_MEMORY": str(self.settings.kafka.in_memory),
            "AEGIS_KAFKA__CLUSTER_ID": self.settings.kafka.cluster_id,
            "AEGIS_KAFKA__OPTIONS": orjson.dumps(self.settings.kafka.options).decode(),
            "AEGIS_REDIS__URL": self.settings.redis.url,
            "AEGIS_REGISTRY__URL": self.settings.registry.url,
            "AEGIS_STREAM__LAKE_COMMIT_SECONDS": str(stream.lake_commit_seconds),
            "AEGIS_STREAM__FEATURE_COMMIT_SECONDS": str(stream.feature_commit_seconds),
            "AEGIS_LAKE_URL": self.settings.lake_url,
            "AEGIS_STREAM__INSTANCE": instance,
            "AEGIS_STREAM__LAKE_METRICS_PORT": str(port),
            "AEGIS_STREAM__FEATURE_METRICS_PORT": str(port),
        }
        group = self.workers if app == "feature_worker" else self.processes
        group.start(
            Child(
                app if instance == "0" else f"{app}-{instance}",
                [sys.executable, "-m", f"streaming.{app}"],
                env,
                restarts_as="AEGIS_STREAM__RESTARTS",
            )
        )
        return f"http://{ports.LOOPBACK}:{port}/metrics"

    def send(self, topic, key, payload):
        self.producer.publish(topic, key, payload)
        self.sent[topic, partition_of(key, names.PARTITIONS)] += 1

    def read(self, machine, *blocks, schema_id=None):
        record = {"machine_id": machine, "seq": 0, "sent_at": 0, "blocks": list(blocks)}
        payload = avro.encode(READINGS_TOPIC, record, schema_id or self.ids[READINGS_TOPIC])
        self.send(READINGS_TOPIC, machine, payload)

    def happen(self, machine, ts, kind):
        event = {"machine_id": machine, "ts": ts, "type": kind, "code": "", "detail": ""}
        payload = avro.encode(EVENTS_TOPIC, event, self.ids[EVENTS_TOPIC])
        self.send(EVENTS_TOPIC, machine, payload)

    def send_good(self, steps, *, flush=True):
        for step in steps:
            for machine in MACHINES_SENDING:
                ts = self.begin + step * 10 * SECOND + self.random.randrange(SECOND)
                bad = self.random.random() < 0.1
                celsius = math.nan if bad else 45.0 + step % 9
                self.read(
                    machine,
                    block("power", self.random.gauss(9, 1), ts=ts),
                    block("temperature", celsius, ts=ts, quality=2 * bad),
                    block("vibration", *(self.random.gauss(0, 2) for _ in range(8)), ts=ts),
                    block("cycles", float(step), ts=ts),
                )
                self.readings += 3
                self.captures += 1
            if step % 20 == 0:
                self.happen(MACHINES_SENDING[0], self.begin + step * 10 * SECOND, "maintenance")
                self.events += 1
        if flush:
            self.producer.flush()

    def send_bad(self):
        """One of each kind; each of these messages has one good reading where it can be read."""
        now = round(time.time() * SECOND)
        wrong = {
            Reason.UNKNOWN_CHANNEL: block("colour", 1.0, ts=now),
            Reason.NOT_FINITE: block("power", math.inf, ts=now),
            Reason.OUT_OF_RANGE: block("temperature", 999.0, ts=now),
            Reason.NEGATIVE_COUNTER: block("cycles", -5.0, ts=now),
            Reason.COUNTER_JUMP: block("cycles", 9e8, ts=now),
            Reason.FUTURE_TIMESTAMP: block("power", 9.0, ts=now + 86_400 * SECOND),
            Reason.ANCIENT_TIMESTAMP: block("power", 9.0, ts=1),
        }
        for reason, bad in wrong.items():
            self.read("m-1", bad, block("power", 9.0, ts=now))
            self.readings += 1
            self.letters.append(reason)
        self.read("ghost", block("power", 9.0, ts=now), block("power", 9.0, ts=now))
        self.read("m-1", block("power", 9.0, ts=now), schema_id=999_999)
        self.send(READINGS_TOPIC, "m-2", b"garbage")
        self.send(
            READINGS_TOPIC, "m-2", b"\x00" + self.ids[READINGS_TOPIC].to_bytes(4, "big") + b"\xff"
        )
        self.happen("m-3", now, "party")
        self.letters += [
            Reason.UNKNOWN_MACHINE,
            Reason.UNKNOWN_SCHEMA,
            Reason.MALFORMED,
            Reason.MALFORMED,
            Reason.UNKNOWN_VOCABULARY,
        ]
        self.producer.flush()

    def kill(self, app):
        self.signal(app, signal.SIGKILL)

    def freeze(self, app):
        """Let it stand still, as a machine that is out of breath does."""
        self.signal(app, signal.SIGSTOP)

    def thaw(self, app):
        self.signal(app, signal.SIGCONT)

    def signal(self, app, number):
        """A killed member may be waiting for its restart: then there is nothing to signal."""
        self.wait(f"{app} to be there", lambda: app in self.pids())
        os.kill(self.pids()[app], number)

    def pids(self):
        return self.processes.pids() | self.workers.pids()

    def restart_redis(self):
        """Redis, which keeps nothing on disk, dies and comes back empty."""
        self.redis_server.stop()
        self.redis_server.start()

    def move_lake(self, folder):
        """The lake is in another folder from now on; nothing is in it but the fleet."""
        self.settings = self.settings.model_copy(update={"lake_url": str(folder / "lake")})
        self.lake = Lake(self.settings.lake_root)
        self.register()

    def wait(self, what, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                logs = self.processes.tail("lake_writer") + self.workers.tail("feature_worker")
                pytest.fail(f"not within {PATIENCE} s: {what}\n{logs}")
            time.sleep(0.05)

    def written(self):
        stored = settled(self.lake, self.incarnations, self.sent)
        return sum(offset + 1 for offset in stored.values())

    def is_written(self):
        return self.written() == sum(self.sent.values())

    def for_features(self):
        return {p: n for p, n in self.sent.items() if p[0] in (READINGS_TOPIC, EVENTS_TOPIC)}

    def applied(self):
        """Messages of this topic incarnation that are inside Redis."""
        stored = self.store.positions(list(self.for_features()))
        return sum(position.offset + 1 for position in stored.values())

    def is_applied(self):
        wanted = self.for_features()
        stored = self.store.positions(list(wanted))
        return all(p in stored and stored[p].offset == n - 1 for p, n in wanted.items())

    def assert_each_once(self):
        """One query answers "exactly once?": rows = distinct positions = sent."""
        for table, sent in (
            (READINGS, self.readings),
            (WAVEFORMS, self.captures),
            (EVENTS, self.events),
        ):
            rows = self.lake.scan(table).collect()  # noqa: F841 - DuckDB reads it by name
            key = "_topic, _partition, _offset, _index"
            query = f"select count(*), count(distinct row({key})) from rows"
            assert duckdb.sql(query).fetchall() == [(sent, sent)], table.name
        letters = self.lake.scan(DEAD_LETTERS).collect()
        assert sorted(letters["reason"]) == sorted(self.letters)
        key = letters.select("_topic", "_partition", "_offset", "_index")
        assert key.is_duplicated().sum() == 0

    def assert_served_as_the_lake_says(self):
        """Every vector in Redis equals the batch definition over all that is in the lake."""
        oracle = self.oracle()
        served = self.store.features_of(MACHINES_SENDING)
        assert {m for m, _, _ in oracle} == served.keys() == set(MACHINES_SENDING)
        for machine, ts, vector in oracle:
            assert served[machine].ts == ts
            np.testing.assert_allclose(served[machine].vector, vector, rtol=1e-9)

    def oracle(self):
        machine_class = load_class("cnc_spindle")
        tables = [self.lake.scan(t).collect() for t in (READINGS, WAVEFORMS, EVENTS)]
        values = values_from_bronze(*tables, machine_class).with_columns(
            pl.col("machine_id").cast(pl.String), pl.col("channel").cast(pl.String)
        )
        used = values.filter(pl.col("quality") == 0, pl.col("value").is_finite())
        heads = used.group_by("machine_id").agg(pl.col("ts").max())
        rows = features_at(values, machine_class, {}, heads)
        return rows.select("machine_id", pl.col("ts").cast(pl.Int64), "vector").rows()
