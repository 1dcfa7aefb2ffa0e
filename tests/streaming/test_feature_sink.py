from __future__ import annotations

import json
import math
import random

import numpy as np
import polars as pl
import pytest
from quixstreams.sinks.base import SinkBackpressureError

from aegisops import names
from aegisops.errors import Conflict, ServiceUnavailable
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.schemas.tables import READINGS
from aegisops.worker_store import WorkerStore

NOW = 1_790_000_000_000_000
SECOND = 1_000_000

MINUTE = 60 * SECOND
MACHINES = ("m-1", "m-2", "m-3")


def block(channel, *values, start=NOW, period=None, quality=0):
    return {
        "channel": channel,
        "start_us": start,
        "period_us": period,
        "quality": quality,
        "values": list(values),
    }


def run_machines(world, begin, end, seed=1):
    """Minutes of every machine: captures, scalars, a counter; out of order, some of bad quality."""
    rng = random.Random(seed + begin)
    for minute in range(begin, end):
        for machine in MACHINES:
            ts = NOW - 7_200 * SECOND + minute * MINUTE + rng.randrange(MINUTE)
            late = ts - rng.choice((0, 0, 0, 600 * SECOND))
            bad = rng.choice((0, 0, 0, 0, 1, 2))
            world.read(
                machine,
                block("vibration", *(rng.gauss(0, 2) for _ in range(32)), start=ts),
                block("temperature", 10_000.0 if bad == 1 else rng.gauss(45, 3), start=late),
                block("power", math.nan if bad else rng.gauss(9, 1), start=ts, quality=bad),
                block("cycles", float((minute * 7) % 200), start=ts),
            )
            if rng.random() < 0.05:
                world.happen(machine, ts)


def assert_served_equals_batch(world):
    expected, served = world.oracle(), world.served()
    assert served.keys() == expected.keys()
    for machine, (ts, vector) in expected.items():
        assert served[machine][0] == ts
        np.testing.assert_allclose(served[machine][1], vector, rtol=1e-9, equal_nan=True)


@pytest.fixture
def running(world):
    """Two hours of three machines in the log."""
    run_machines(world, 0, 100)
    return world


def test_the_vectors_in_redis_are_those_of_the_batch_definition(running):
    running.run_features(flushes=(7, 8, 40, None))
    running.write_lake()
    assert_served_equals_batch(running)
    vector = running.store.features("m-1")
    assert vector.feature_set == "cnc_spindle@1"
    assert 0 < vector.coverage <= 1
    fields = running.client.hgetall(names.features_key("m-1"))
    readable = float(fields[b"temperature_mean_1h"])
    assert readable == vector.vector[3]
    assert 0 < running.client.ttl(names.features_key("m-1")) <= 7_200


def test_a_worker_that_dies_between_redis_and_kafka_applies_nothing_twice(running):
    running.run_features(flushes=(30,))
    sink = running.feature_sink()
    running.assign(sink)
    running.deliver(sink, dict.fromkeys(running.log, 0), 60)  # Kafka repeats from the beginning
    sink.flush()
    assert sink._metrics.skipped._value.get() > 0
    running.run_features()
    running.write_lake()
    assert_served_equals_batch(running)


def test_an_emptied_redis_is_rebuilt_from_the_lake_and_the_rest_comes_from_kafka(running):
    running.write_lake(upto=45)
    sink = running.run_features(flushes=(60,))
    running.client.flushdb()
    running.deliver(sink, {p: q.offset + 1 for p, q in sink._positions.items()}, 65)
    with pytest.raises(Conflict):
        sink.flush()
    reborn = running.run_features()  # the lake ends at 45, Kafka had been read up to 60
    assert reborn._metrics.warm_ups._value.get() == 3
    running.write_lake()
    assert_served_equals_batch(running)


def test_a_first_start_serves_the_history_in_the_lake_before_any_message(running):
    running.write_lake()
    running.run_features(flushes=())
    assert_served_equals_batch(running)


def test_a_quiet_machines_features_survive_an_emptied_redis(running):
    running.write_lake()
    running.run_features()
    running.client.flushdb()
    run_machines(running, 100, 101, seed=9)
    running.read("m-4", block("power", 1.0))
    running.run_features()
    running.write_lake()
    assert_served_equals_batch(running)


def test_a_worker_that_lost_its_partitions_cannot_write_any_more(running):
    stale = running.run_features(flushes=(20,))
    running.run_features(flushes=(50,))
    running.deliver(stale, dict.fromkeys(running.log, 20), 55)
    with pytest.raises(Conflict):
        stale.flush()
    running.run_features()
    running.write_lake()
    assert_served_equals_batch(running)


class Failing(WorkerStore):
    """Answers the n-th write with an outage, before or after doing it."""

    def __init__(self, client, at, after):
        super().__init__(client)
        self.left, self.after = at, after

    def write(self, update):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise ServiceUnavailable("gone")
        super().write(update)
        if self.left == 0:
            raise ServiceUnavailable("gone before the answer")


def test_a_write_that_failed_is_repeated_with_the_same_result(running):
    running.run_features(flushes=(30,))
    sink = running.feature_sink(Failing(running.client, 2, after=False))
    starts = running.assign(sink)
    running.deliver(sink, starts, 60)
    with pytest.raises(SinkBackpressureError):
        sink.flush()
    running.deliver(sink, starts)  # Quix seeks back to where the checkpoint began
    sink.flush()
    running.write_lake()
    assert_served_equals_batch(running)


def test_a_write_that_succeeded_without_an_answer_is_not_repeated(running):
    running.run_features(flushes=(30,))
    sink = running.feature_sink(Failing(running.client, 2, after=True))
    starts = running.assign(sink)
    running.deliver(sink, starts, 60)
    with pytest.raises(SinkBackpressureError):
        sink.flush()
    running.deliver(sink, starts)
    with pytest.raises(Conflict):
        sink.flush()
    running.run_features()
    running.write_lake()
    assert_served_equals_batch(running)


def test_a_machine_whose_state_redis_dropped_makes_its_partition_be_rebuilt(running):
    running.run_features(flushes=(30,))
    running.write_lake(upto=40)
    running.client.delete(names.tiles_key("m-2"))
    with pytest.raises(Conflict):
        running.run_features()
    running.run_features()
    running.write_lake()
    assert_served_equals_batch(running)


def test_a_machine_imported_with_its_history_starts_with_it(running):
    """Bulk history is in the lake and never on Kafka."""
    running.run_features(flushes=(50,))
    running.write_lake()
    history = running.lake.scan(READINGS).filter(pl.col("machine_id") == "m-1").collect()
    bulk = history.with_columns(machine_id=pl.lit("m-9"), _topic=pl.lit("import/x"))
    running.lake.append(READINGS, bulk)
    running.register("m-9")
    running.read("m-9", block("power", 12.0, start=NOW))
    running.run_features()
    running.write_lake()
    assert_served_equals_batch(running)


def test_a_machine_first_seen_when_the_lake_is_already_ahead_is_not_counted_twice(running):
    sink = running.run_features(flushes=(50,))
    running.register("m-9")
    running.read("m-9", *(block("temperature", 20.0 + i, start=NOW + i) for i in range(3)))
    running.write_lake()
    running.read("m-9", block("temperature", 60.0, start=NOW + MINUTE))
    running.deliver(sink, dict.fromkeys(running.log, 0))
    sink.flush()
    running.write_lake()
    assert_served_equals_batch(running)


def test_a_recreated_topic_continues_from_the_lake(running):
    running.run_features()
    running.write_lake()
    running.incarnation = "c2"
    running.log = {p: [] for p in running.log}
    run_machines(running, 100, 110)
    running.run_features()
    running.write_lake()
    assert_served_equals_batch(running)


def test_messages_that_kafka_dropped_before_they_were_read_come_from_the_lake(running):
    running.run_features(flushes=(20,))
    running.write_lake(upto=60)
    running.low = {p: min(50, len(messages)) for p, messages in running.log.items()}
    running.run_features()
    # The lake writer has read them all in time.
    running.low = dict.fromkeys(running.log, 0)
    running.write_lake()
    assert_served_equals_batch(running)


def test_maintenance_counts_from_its_event_whatever_arrives_first(world):
    world.read("m-1", block("power", 9.0, start=NOW - 60 * MINUTE))
    world.happen("m-1", NOW - 120 * MINUTE)
    world.run_features()
    position = 6
    assert world.store.features("m-1").vector[position] == pytest.approx(1.0)
    world.happen("m-1", NOW - 90 * MINUTE)
    world.run_features()
    assert world.store.features("m-1").vector[position] == pytest.approx(0.5)


def test_what_is_wrong_is_counted_and_does_not_reach_the_features(world):
    world.read("m-1", block("power", 9.0), block("power", 500.0), block("colour", 1.0))
    world.read("ghost", block("power", 9.0))
    world.produce(READINGS_TOPIC, "m-1", b"garbage")
    world.happen("m-1", NOW, kind="party")
    sink = world.run_features()
    counted = {
        sample.labels["reason"]: sample.value
        for metric in sink._metrics.rejected.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert counted == {
        "out_of_range": 1,
        "unknown_channel": 1,
        "unknown_machine": 1,
        "malformed": 1,
        "unknown_vocabulary": 1,
    }
    assert world.served().keys() == {"m-1"}
    world.write_lake()
    assert_served_equals_batch(world)


def test_a_jump_is_rejected_across_a_restart(world):
    world.read("m-1", block("cycles", 100.0, start=NOW - MINUTE))
    world.run_features()
    world.read("m-1", block("cycles", 90_000.0))
    sink = world.run_features()
    assert sink._metrics.rejected.labels("counter_jump")._value.get() == 1
    world.client.flushdb()
    world.write_lake(upto=1)
    sink = world.run_features()
    assert sink._metrics.rejected.labels("counter_jump")._value.get() == 1


def test_live_telemetry_is_one_message_per_flush_and_the_raw_buffer_keeps_the_readings(world):
    listener = world.client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(names.TELEMETRY_CHANNEL)
    for machine in MACHINES:
        world.read(machine, block("power", 9.0), block("vibration", 1.0, -1.0))
    world.run_features()
    messages = []
    while (message := listener.get_message(timeout=0.2)) or not messages:
        if message:
            messages.append(json.loads(message["data"]))
    listener.close()
    assert len(messages) == 1
    assert {m["machine_id"] for m in messages[0]["machines"]} == set(MACHINES)
    ((_, blob),) = world.store.raw("m-1")
    assert json.loads(blob) == {
        "readings": [["power", NOW, 9.0, 0]],
        "waveforms": [["vibration", NOW, 1_000, [1.0, -1.0], 0]],
    }


def test_the_fleet_is_mirrored_for_readers_without_a_lake(world):
    world.run_features(flushes=())
    assert world.store.machine_ids() == ["m-1", "m-2", "m-3", "m-4", "m-5"]
    assert world.store.machine("m-3").site == "north"
    world.register("m-6")
    world.read("m-6", block("power", 1.0))
    world.run_features()
    assert world.store.machine("m-6").machine_class == "cnc_spindle"
    assert world.store.machine("ghost") is None
    assert world.store.features("ghost") is None


def test_a_topic_without_messages_starts_at_its_beginning(world):
    sink = world.feature_sink()
    assert world.assign(sink) == dict.fromkeys(world.log, 0)
    assert (EVENTS_TOPIC, 0) in world.log
