"""What real Kafka adds: kills between two commits, a broker that dies, a topic made again, TLS.

`make test-faults` runs this with 50 kills and an outage longer than the clients' patience.
"""

from __future__ import annotations

import logging
import random
import time

import pytest
from confluent_kafka.admin import AdminClient

from aegisops import bus, names
from aegisops.embedded.processes import Processes
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.schemas.tables import READINGS
from streaming.offsets import settled
from tests.conftest import delete_topics, wait_for_leaders

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
    deadline = time.monotonic() + SESSION_SECONDS - 5
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
    kafka = stack.settings.kafka
    delete_topics(kafka, [READINGS_TOPIC, EVENTS_TOPIC])
    bus.ensure_topics(kafka)
    wait_for_leaders(kafka, names.TOPICS)
    old = stack.incarnations
    stack.meet_topics()
    assert stack.incarnations[READINGS_TOPIC] != old[READINGS_TOPIC]
    assert stack.incarnations[names.FEEDBACK_TOPIC] == old[names.FEEDBACK_TOPIC]
    with Processes(tmp_path / "logs" / "after") as stack.processes:
        stack.start("lake_writer")
        stack.send_good(range(20, 30))  # fewer than before: every offset was seen already
        stack.wait("the second topic in the lake", stack.is_written)
    stack.assert_each_once()
    labels = stack.lake.scan(READINGS).select("_topic").unique().collect()["_topic"].to_list()
    assert sorted(labels) == sorted(
        f"{READINGS_TOPIC}@{i[READINGS_TOPIC]}" for i in (old, stack.incarnations)
    )
