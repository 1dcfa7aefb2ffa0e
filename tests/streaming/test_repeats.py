"""Records that reach Kafka twice are in the lake once, whoever writes and whenever they come."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegisops import audit_chain, audit_log, names
from aegisops.lake import Lake
from aegisops.machines import shipped_classes
from aegisops.names import ALARMS_TOPIC, FEEDBACK_TOPIC, PREDICTIONS_TOPIC
from aegisops.quality import Limits
from aegisops.schemas.tables import (
    ALARM_JOURNAL,
    FEEDBACK,
    MACHINES,
    PREDICTIONS,
    READINGS,
    SHADOW_SCORES,
    WORK_ORDERS,
)
from streaming.fleet import Fleet
from streaming.lake_metrics import LakeMetrics
from streaming.lake_sink import LakeSink
from streaming.offsets import settled

NOW = 1_790_000_000_000_000
SECOND = 1_000_000
HOUR = 3_600 * SECOND
PARTITIONS = 3


def predictions(count, instance="api-1"):
    """A chain of audit records, a minute apart; the one in the middle has no features."""
    records, previous = [], audit_chain.genesis(instance)
    for n in range(count):
        record = {
            "prediction_id": f"{instance}-{n}",
            "machine_id": f"m-{n % 5}",
            "asked_at": NOW - HOUR + n * 60 * SECOND,
            "subject": "u-1",
            "served_by": "production",
            "probability": 0.5 if n != count // 2 else None,
            "risk": "normal",
            "failure_mode": None,
            "model_version": "1",
            "model_digest": "d",
            "feature_set": "cnc_spindle@1",
            "features_at": NOW - HOUR,
            "vector": [1.0, float("nan")],
            "source": "cache",
            "latency_us": 9,
            "instance": instance,
            "chain_seq": n,
            "previous_digest": previous,
        }
        previous = record["digest"] = audit_chain.digest(record, previous)
        records.append(record)
    return records


class Log:
    """Kafka's partitions, and the lake that writers fill from them."""

    def __init__(self, root, encode, decoder):
        self.lake = Lake(root)
        self.encode, self.decoder = encode, decoder
        self.incarnation = "c1"
        self.partitions = {p: [] for p in range(PARTITIONS)}
        row = {"machine_class": "cnc_spindle", "site": "", "area": "", "attributes": "{}"}
        machines = pl.DataFrame([{"machine_id": f"m-{i}"} | row for i in range(5)])
        self.lake.append(MACHINES, machines.with_columns(registered_at=datetime.now(UTC)))

    def produce(self, record, topic=PREDICTIONS_TOPIC):
        partition = sum(record["machine_id"].encode()) % PARTITIONS
        self.partitions[partition].append(self.encode(topic, record))

    def writer(self):
        incarnations = dict.fromkeys(names.TOPICS, self.incarnation)
        sink = LakeSink(
            self.lake,
            fleet=Fleet(self.lake, shipped_classes(), recheck_seconds=0.0),
            decoder=self.decoder,
            limits=Limits(max_future_us=300 * SECOND, max_past_us=3_650 * 24 * HOUR),
            incarnations=incarnations,
            metrics=LakeMetrics(),
            clock=lambda: NOW / SECOND,
        )
        sink.setup()
        return sink

    def deliver(self, sink, partitions=range(PARTITIONS), topic=PREDICTIONS_TOPIC):
        """What a new owner of these partitions reads."""
        known = settled(
            self.lake,
            dict.fromkeys(names.TOPICS, self.incarnation),
            [(topic, p) for p in partitions],
        )
        for p in partitions:
            for offset in range(known[topic, p] + 1, len(self.partitions[p])):
                sink.add(self.partitions[p][offset], b"", NOW // 1_000, [], topic, p, offset)

    def write(self, sink, partitions=range(PARTITIONS), topic=PREDICTIONS_TOPIC):
        self.deliver(sink, partitions, topic)
        sink.flush()

    def ids(self, table=PREDICTIONS, column="prediction_id"):
        return sorted(self.lake.scan(table).collect()[column])

    def assert_each_once(self, records):
        assert self.ids() == sorted(r["prediction_id"] for r in records)
        heads, faults = audit_log.check(self.lake)
        assert faults == []
        assert sum(head.repeats for head in heads) == 0


def repeats(sink, table=PREDICTIONS):
    return sink._metrics.repeats.labels(table.name)._value.get()


@pytest.fixture
def log(tmp_path, wire):
    return Log(tmp_path / "lake", *wire)


def test_a_record_that_comes_twice_in_one_flush_is_written_once_and_counted(log):
    records = predictions(6)
    for record in [*records, *records[2:]]:
        log.produce(record)
    writer = log.writer()
    log.write(writer)
    log.assert_each_once(records)
    assert repeats(writer) == 4


def test_a_repeat_hours_later_after_a_restart_is_known_by_the_table(log):
    records = predictions(40)
    for record in records[:20]:
        log.produce(record)
    log.write(log.writer())
    for record in [records[3], *records[20:]]:
        log.produce(record)
    writer = log.writer()
    log.write(writer)
    log.produce(records[0])
    log.produce(records[39])
    log.write(writer)
    log.assert_each_once(records)
    assert repeats(writer) == 3


def test_a_repeat_in_a_topic_made_again_is_known(log):
    records = predictions(4)
    for record in records:
        log.produce(record)
    log.write(log.writer())
    log.incarnation = "c2"
    log.partitions = {p: [] for p in range(PARTITIONS)}
    for record in records:
        log.produce(record)
    writer = log.writer()
    log.write(writer)
    log.assert_each_once(records)
    assert repeats(writer) == 4


def test_a_zombie_with_the_first_copy_and_its_successor_with_both_write_one(log):
    records = predictions(3)
    for record in records:
        log.produce(record)
    zombie, successor = log.writer(), log.writer()
    log.deliver(zombie)
    for record in records:
        log.produce(record)
    log.write(successor)
    zombie.flush()
    log.assert_each_once(records)


def test_who_commits_between_the_look_and_the_commit_of_another_makes_it_look_again(
    log, monkeypatch
):
    """The first writer found nothing, then the second one writes the same partition."""
    records = predictions(3)
    for record in records:
        log.produce(record)
    slow, quick = log.writer(), log.writer()
    log.deliver(slow)
    for record in records:
        log.produce(record)
    log.deliver(slow)
    look = slow._without_repeats

    def looked(*told):
        found = look(*told)
        monkeypatch.undo()
        log.write(quick)
        return found

    monkeypatch.setattr(slow, "_without_repeats", looked)
    slow.flush()
    assert slow._metrics.conflicts._value.get() == 1
    log.assert_each_once(records)


def test_another_record_under_a_known_id_is_evidence_and_stays(log):
    first, second = predictions(2)
    forged = {**first, "risk": "high"}
    forged["digest"] = audit_chain.digest(forged, forged["previous_digest"])
    for record in (first, second, forged):
        log.produce(record)
    log.write(log.writer())
    assert len(log.ids()) == 3
    _, faults = audit_log.check(log.lake)
    assert [fault.problem for fault in faults if fault.chain_seq == 0] != []


def test_compaction_between_the_two_copies_changes_nothing(log):
    records = predictions(8)
    for record in records:
        log.produce(record)
        log.write(log.writer())
    log.lake.compact(PREDICTIONS)
    for record in records:
        log.produce(record)
    log.write(log.writer())
    log.assert_each_once(records)


OTHERS = {
    FEEDBACK: (
        FEEDBACK_TOPIC,
        {
            "feedback_id": "f-1",
            "prediction_id": "",
            "machine_id": "m-1",
            "ts": NOW - HOUR,
            "outcome": "confirmed",
            "failure_mode": None,
            "subject": "u-1",
        },
    ),
    SHADOW_SCORES: (
        names.SHADOW_SCORES_TOPIC,
        {
            "prediction_id": "p",
            "machine_id": "m-1",
            "scored_at": NOW - HOUR,
            "model_version": "2",
            "digest": "d",
            "probability": 0.5,
        },
    ),
    WORK_ORDERS: (
        names.WORK_ORDERS_TOPIC,
        {
            "work_order_id": "w-1",
            "version": 1,
            "changed_at": NOW - HOUR,
            "state": "draft",
            "machine_id": "m-1",
            "alarm_id": None,
            "prediction_id": None,
            "outcome": None,
            "subject": "u-1",
            "snapshot": "{}",
        },
    ),
    ALARM_JOURNAL: (
        ALARMS_TOPIC,
        {
            "journal_id": "a-1",
            "alarm_id": "a",
            "version": 1,
            "changed_at": NOW - HOUR,
            "transition": "raised",
            "state": "unacknowledged",
            "kind": "alarm",
            "priority": 1,
            "definition_id": "d",
            "revision": 0,
            "machine_id": "m-1",
            "machine_class": "cnc_spindle",
            "site": "",
            "area": "",
            "cause_group": "",
            "is_first_out": True,
            "is_active": True,
            "raised_at": None,
            "occurrence": 1,
            "subject": "alarm-engine",
            "comment": "",
            "value": None,
            "setpoint": None,
            "prediction_id": None,
            "snapshot": "{}",
        },
    ),
}


@pytest.mark.parametrize("table", OTHERS, ids=lambda table: table.name)
def test_every_other_record_of_the_api_is_written_once_too(log, table):
    topic, record = OTHERS[table]
    for _ in range(2):
        log.produce(record, topic)
        log.produce(record, topic)
        writer = log.writer()
        log.write(writer, topic=topic)
    assert log.lake.scan(table).collect().height == 1
    assert repeats(writer, table) == 2


def test_readings_are_known_by_their_place_alone_and_cost_no_look(log, monkeypatch):
    monkeypatch.setattr(LakeSink, "_without_repeats", None)
    reading = {
        "channel": "power",
        "start_us": NOW,
        "period_us": None,
        "quality": 0,
        "values": [1.0],
    }
    record = {"machine_id": "m-1", "seq": 0, "sent_at": NOW, "blocks": [reading]}
    log.produce(record, names.READINGS_TOPIC)
    log.produce(record, names.READINGS_TOPIC)
    log.write(log.writer(), topic=names.READINGS_TOPIC)
    assert log.lake.scan(READINGS).collect().height == 2


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 11)),
        st.tuples(st.sampled_from(["deliver", "flush", "restart", "write"]), st.integers(0, 1)),
    ),
    max_size=30,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_whatever_is_sent_again_and_whoever_writes_each_record_is_there_once(
    tmp_path_factory, wire, steps
):
    """Two writers on the same partitions: each may hold old messages, flush late, or start anew."""
    log = Log(tmp_path_factory.mktemp("lake"), *wire)
    records = predictions(12)
    writers = [log.writer(), log.writer()]
    sent = set()
    for what, which in steps:
        if what == "send":
            log.produce(records[which])
            sent.add(which)
        elif what == "restart":
            writers[which] = log.writer()
        elif what == "deliver":
            log.deliver(writers[which])
        elif what == "flush":
            writers[which].flush()
        else:
            log.write(writers[which])
    log.write(log.writer())
    assert log.ids() == sorted(records[n]["prediction_id"] for n in sent)
