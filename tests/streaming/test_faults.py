"""What breaks on real Kafka, and what must hold afterwards: rows = distinct positions = sent, and
the features in Redis equal the batch definition.

Each test has a short form in the normal suite. `make test-faults` asks for 50 kills, an outage
longer than the clients' patience, and more of everything.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from aegisops import bus, names
from aegisops.embedded.processes import Processes
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.schemas.tables import READINGS
from streaming.offsets import settled
from tests.conftest import delete_topics, wait_for_leaders
from tests.streaming.small_disk import small_disk

log = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.parametrize("any_kafka", ["real"], indirect=True),
]
SESSION_SECONDS = 30.0
"""A member that is not static is missed only after this long."""


def delta_commits(stack):
    return sum(
        1 for _ in (stack.settings.data_dir / "lake" / READINGS.name).glob("_delta_log/*.json")
    )


def wait_for_a_commit(stack, before):
    """Return within about a millisecond: what follows must find Kafka's commit still to come."""
    deadline = time.monotonic() + 2 * SESSION_SECONDS
    while delta_commits(stack) == before:
        assert time.monotonic() < deadline, stack.processes.tail("lake_writer")
        time.sleep(0.001)


def lag(stack, topic):
    """Partition → messages Kafka has no commit for."""
    while True:
        try:
            return bus.lag(stack.settings.kafka, names.LAKE_WRITER_APP, topic)
        except bus.ServiceUnavailable:
            time.sleep(0.1)


def in_delta(stack):
    partitions = [(READINGS_TOPIC, p) for p in range(names.PARTITIONS)]
    return settled(stack.lake, stack.incarnations, partitions)


def is_only_in_delta(stack, before):
    """Whether Delta has offsets that are newer than `before` and that Kafka has no commit for."""
    behind = lag(stack, READINGS_TOPIC)
    return any(
        offset > before[topic, p] and stack.sent[topic, p] - behind[p] <= offset
        for (topic, p), offset in in_delta(stack).items()
    )


def metric(url, name):
    """Sum of a metric's samples; 0 while nobody answers."""
    with contextlib.suppress(httpx.HTTPError):
        lines = httpx.get(url).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
    return 0.0


# --- the lake writer ------------------------------------------------------------------------------


def test_a_lake_writer_killed_again_and_again_writes_each_offset_once(stack, tmp_path, request):
    kills, between = request.config.getoption("--kills"), 0
    dice = random.Random(2)
    for n in range(kills):
        stack.send_good(range(6 * n, 6 * n + 6))
        # Supervised anew each time: the pause before a restart grows with each crash.
        with Processes(tmp_path / "logs" / str(n)) as stack.processes:
            before, commits = in_delta(stack), delta_commits(stack)
            stack.start("lake_writer")
            if n % 5 == 4:
                time.sleep(dice.uniform(1.0, 6.0))
            else:
                wait_for_a_commit(stack, commits)
            stack.kill("lake_writer")
        between += is_only_in_delta(stack, before)
    log.info("%s of %s kills fell between the Delta commit and Kafka's", between, kills)
    assert between >= kills // 5, "too few kills fell between the Delta commit and Kafka's"

    with Processes(tmp_path / "logs" / "last") as stack.processes:
        stack.start("lake_writer")
        # Something new for every partition in use: the group's offsets follow only what is read.
        stack.send_good(range(6 * kills, 6 * kills + 6))
        stack.wait("all that was sent in the lake", stack.is_written)
        stack.assert_each_once()
        stack.wait("Kafka's commit", lambda: not any(lag(stack, READINGS_TOPIC).values()))
        admin = AdminClient(bus.client_options(stack.settings.kafka))
        groups = admin.describe_consumer_groups([names.LAKE_WRITER_APP], request_timeout=10)
        members = groups[names.LAKE_WRITER_APP].result().members
        assert [m.group_instance_id for m in members] == [f"{names.LAKE_WRITER_APP}-0"]


def test_members_that_come_and_go_share_the_partitions_and_write_each_offset_once(stack, request):
    stack.send_good(range(10))
    stack.start("lake_writer")
    stack.wait("one member writes", lambda: stack.written() > 0)
    stack.start("lake_writer", instance="1")
    stack.send_good(range(10, 30))
    stack.start("lake_writer", instance="2")
    stack.wait("three members have it all", stack.is_written)
    for turn in range(max(1, request.config.getoption("--kills") // 10)):
        # A static member that is killed comes back as itself; one that stops for good leaves.
        stack.kill("lake_writer-1")
        stack.send_good(range(30 + 20 * turn, 40 + 20 * turn))
        stack.kill("lake_writer-2")
        stack.send_good(range(40 + 20 * turn, 50 + 20 * turn))
        stack.wait("what was sent between the kills", stack.is_written)
    stack.assert_each_once()


def test_a_zombie_that_wakes_after_its_partitions_moved_writes_nothing_twice(stack):
    """Its session times out while it stands still; the other member goes on with its partitions."""
    kafka = stack.settings.kafka
    brief = kafka.model_copy(update={"options": {**kafka.options, "session.timeout.ms": "6000"}})
    stack.settings = stack.settings.model_copy(update={"kafka": brief})
    stack.start("lake_writer", lake_commit_seconds=2.0)
    stack.send_good(range(5))
    stack.wait("the zombie to be", stack.is_written)
    stack.send_good(range(5, 15))
    time.sleep(1.0)  # it has read some of it and not written it yet
    stack.freeze("lake_writer")
    stack.start("lake_writer", instance="1")
    stack.send_good(range(15, 25))
    stack.wait("the other member to have it all", stack.is_written)
    stack.thaw("lake_writer")
    stack.send_good(range(25, 35))
    stack.wait("both at work", stack.is_written)
    stack.assert_each_once()


def test_a_full_disk_pauses_the_writer_and_costs_nothing(stack):
    with small_disk(stack.settings.data_dir / "small", megabytes=24) as disk:
        stack.move_lake(disk)
        metrics = stack.start("lake_writer")
        stack.send_good(range(10))
        stack.wait("the first messages in the lake", stack.is_written)
        filler = disk / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(65_536))
                file.flush()
        stack.send_good(range(10, 60))
        stack.wait(
            "a postponed flush", lambda: metric(metrics, "aegis_lake_writer_backpressure_total") > 0
        )
        ready = httpx.get(metrics.replace("/metrics", "/readyz"))
        assert ready.status_code == 503
        assert "space" in ready.json()["why"].lower()
        before = stack.written()
        assert before < sum(stack.sent.values())
        filler.unlink()
        stack.wait("all that was sent in the lake", stack.is_written)
        stack.assert_each_once()
        assert httpx.get(metrics.replace("/metrics", "/readyz")).status_code == 200


def test_a_slow_store_delays_and_neither_loses_nor_doubles(stack, request):
    """Standing still for seconds at a time, in the middle of a flush as well."""
    stack.start("lake_writer")
    dice = random.Random(3)
    for turn in range(max(2, request.config.getoption("--kills") // 5)):
        stack.send_good(range(10 * turn, 10 * turn + 10))
        time.sleep(dice.uniform(0.1, 0.5))
        stack.freeze("lake_writer")
        time.sleep(dice.uniform(0.5, 2.0))
        stack.thaw("lake_writer")
    stack.wait("all that was sent in the lake", stack.is_written)
    stack.assert_each_once()


def test_sigterm_ends_the_writer_in_order_within_thirty_seconds(stack):
    stack.start("lake_writer", lake_commit_seconds=5.0)
    stack.send_good(range(5))
    stack.wait("the first flush", stack.is_written)
    stack.send_good(range(5, 10))
    time.sleep(1.0)
    started = time.monotonic()
    stack.processes.stop(30)
    assert time.monotonic() - started < 30
    # What it had read is written, and Kafka knows.
    assert stack.is_written()
    assert not any(lag(stack, READINGS_TOPIC).values())
    stack.assert_each_once()


# --- the broker -----------------------------------------------------------------------------------


def test_a_broker_that_dies_and_comes_back_costs_nothing(stack, kafka_server, request):
    stack.start("lake_writer")
    stack.start("feature_worker")
    stack.send_good(range(30))
    stack.wait("the first messages in the lake", lambda: stack.written() > 0)
    kafka_server.kill()
    try:
        stack.send_good(range(30, 60), flush=False)
        time.sleep(request.config.getoption("--outage"))
    finally:
        kafka_server.start()
    stack.producer.flush(60)
    stack.send_good(range(60, 80))
    stack.wait("all that was sent in the lake", stack.is_written)
    stack.wait("all that was sent in Redis", stack.is_applied)
    stack.assert_each_once()
    stack.assert_served_as_the_lake_says()


def test_a_topic_deleted_and_made_again_is_written_from_its_first_offset(stack, tmp_path):
    with Processes(tmp_path / "logs" / "before") as stack.processes:
        stack.start("lake_writer")
        stack.send_good(range(20))
        stack.wait("the first topic in the lake", stack.is_written)
    old = recreate(stack)
    with Processes(tmp_path / "logs" / "after") as stack.processes:
        stack.start("lake_writer")
        stack.send_good(range(20, 30))  # fewer than before: every offset was seen already
        stack.wait("the second topic in the lake", stack.is_written)
    assert_both_topics(stack, old)


def test_a_topic_made_again_under_a_running_writer_loses_none_of_the_new_one(stack):
    """The consumer would go on at its old offset; the writer asks for the topic's id and ends."""
    stack.start("lake_writer")
    stack.send_good(range(20))
    stack.wait("the first topic in the lake", stack.is_written)
    old = recreate(stack)
    stack.send_good(range(20, 60))  # more than before: the old offset is in the middle of it
    stack.wait("the second topic in the lake", stack.is_written)
    assert_both_topics(stack, old)


def recreate(stack):
    """Delete and make the topics; returns what they were."""
    kafka = stack.settings.kafka
    delete_topics(kafka, [READINGS_TOPIC, EVENTS_TOPIC])
    bus.ensure_topics(kafka)
    wait_for_leaders(kafka, names.TOPICS)
    old = stack.incarnations
    stack.meet_topics()
    assert stack.incarnations[READINGS_TOPIC] != old[READINGS_TOPIC]
    assert stack.incarnations[names.FEEDBACK_TOPIC] == old[names.FEEDBACK_TOPIC]
    return old


def assert_both_topics(stack, old):
    stack.assert_each_once()
    labels = stack.lake.scan(READINGS).select("_topic").unique().collect()["_topic"].to_list()
    assert sorted(labels) == sorted(
        f"{READINGS_TOPIC}@{i[READINGS_TOPIC]}" for i in (old, stack.incarnations)
    )


# --- the feature worker ---------------------------------------------------------------------------


def test_a_feature_worker_killed_wiped_and_restarted_serves_what_the_lake_says(
    stack, tmp_path, request
):
    stack.start("lake_writer")
    dice = random.Random(4)
    kills = request.config.getoption("--kills")
    step = 0
    for n in range(kills):
        with Processes(tmp_path / "workers" / str(n)) as stack.workers:
            stack.start("feature_worker")
            before = stack.applied()
            stack.send_good(range(step, step + 5))
            step += 5
            if n % 3 == 1:
                stack.wait("some of it in Redis", lambda b=before: stack.applied() > b)
                stack.client.flushdb()  # Redis wiped under the worker
            elif n % 3 == 2:
                stack.restart_redis()
            else:
                time.sleep(dice.uniform(0.5, 4.0))
            stack.kill("feature_worker")
    with Processes(tmp_path / "workers" / "last") as stack.workers:
        stack.start("feature_worker")
        stack.send_good(range(step, step + 5))
        stack.wait("all that was sent in the lake", stack.is_written)
        stack.wait("all that was sent in Redis", stack.is_applied)
        stack.assert_each_once()
        stack.assert_served_as_the_lake_says()
