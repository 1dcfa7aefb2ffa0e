"""The spool keeps what Kafka has not acknowledged; the forwarder loses and reorders nothing."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops.errors import ConfigurationError, Permanent, ServiceUnavailable
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC, REFUSALS_TOPIC, Quality, Reason
from aegisops.schemas import avro
from streaming import forwarder as forwarding
from streaming.forwarder import Forwarder
from streaming.gateway_metrics import GatewayMetrics
from streaming.messages import MOST_VALUES, Encoder
from streaming.samples import MOST_KEPT, Delivery, Happening, Mark, Refusal, Sample
from streaming.spool import Message, Spool, SpoolFull

IDS = {READINGS_TOPIC: 1, EVENTS_TOPIC: 2, REFUSALS_TOPIC: 3}
TOPIC_OF = {number: topic for topic, number in IDS.items()}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(forwarding, "BATCH_SECONDS", 0.0)
    monkeypatch.setattr(forwarding, "RETRY_SECONDS", 0.0)


class Kafka:
    """A producer that delivers, fails or keeps silent as told; `log` is what Kafka has."""

    def __init__(self):
        self.log, self.queued, self.mode = [], [], "deliver"

    def publish(self, topic, key, value, done):
        self.queued.append((topic, key, value, done))

    def poll(self, seconds=0.0):
        if self.mode == "silent":
            return
        queued, self.queued = self.queued, []
        for topic, key, value, done in queued:
            if self.mode == "deliver":
                self.log.append((topic, key, value))
            done(None if self.mode == "deliver" else ServiceUnavailable("away"))


class Gateway:
    def __init__(self, path, max_bytes=10**9):
        self.path, self.kafka = path, Kafka()
        self.open(max_bytes)

    def open(self, max_bytes=10**9):
        self.spool = Spool(self.path, max_bytes)
        self.metrics = GatewayMetrics()
        self.forwarder = Forwarder(
            self.spool, self.kafka, Encoder("g", IDS), self.metrics, waiting_items=50
        )

    def give(self, number, acked=None):
        sample = Sample("m-1", "power", number, Quality.GOOD, (float(number),))
        done = (lambda: acked.append(number)) if acked is not None else (lambda: None)
        self.forwarder.put(Delivery("s", (sample,), done=done))

    def turns(self, count=4):
        for _ in range(count):
            self.forwarder.turn()

    @property
    def values(self):
        return [v for t, _, raw in self.kafka.log if t == READINGS_TOPIC for v in numbers(raw)]


def record(topic, raw):
    frame, failures = avro.decode_many(topic, [raw], lambda i: avro.contract(TOPIC_OF[i]).text)
    assert failures == []
    return frame.row(0, named=True)


def numbers(raw):
    return [v for block in record(READINGS_TOPIC, raw)["blocks"] for v in block["values"]]


@pytest.fixture
def gateway(tmp_path):
    gateway = Gateway(tmp_path / "g.spool")
    yield gateway
    gateway.spool.close()


def test_a_delivery_is_acknowledged_after_the_commit_and_before_kafka_answers(gateway):
    acked = []
    gateway.kafka.mode = "silent"
    gateway.give(1, acked)
    gateway.turns()
    assert acked == [1]
    assert gateway.spool.depth == 1
    gateway.kafka.mode = "deliver"
    gateway.turns()
    assert gateway.values == [1.0]
    assert gateway.spool.depth == gateway.spool.bytes == 0


def test_an_outage_fills_the_spool_and_it_drains_in_order(gateway):
    gateway.kafka.mode = "fail"
    for i in range(20):
        gateway.give(i)
        gateway.turns(2)
    assert gateway.spool.depth == 20
    assert "away" in gateway.forwarder.complaint
    gateway.kafka.mode = "deliver"
    for i in range(20, 25):
        gateway.give(i)
    gateway.turns(8)
    assert gateway.values == [float(i) for i in range(25)]
    assert gateway.spool.depth == 0
    assert gateway.forwarder.complaint == ""


def test_a_killed_gateway_sends_what_the_spool_holds_and_numbers_go_on(gateway):
    gateway.kafka.mode = "silent"
    for i in range(5):
        gateway.give(i)
    gateway.turns()
    gateway.spool.close()
    gateway.kafka = Kafka()
    gateway.open()
    gateway.give(5)
    gateway.turns()
    assert gateway.values == [float(i) for i in range(6)]
    seqs = [record(READINGS_TOPIC, raw)["seq"] for _, _, raw in gateway.kafka.log]
    assert seqs == sorted(set(seqs))


def test_ids_are_never_used_again(tmp_path):
    for start in (1, 4):
        spool = Spool(tmp_path / "x.spool", 10**6)
        assert spool.last_id == start - 1
        spool.write([Message(start + i, "t", "k", b"v", 0.0) for i in range(3)])
        spool.write([], [start, start + 1, start + 2])
        spool.close()


def test_a_full_spool_acknowledges_nothing_and_goes_on_when_there_is_room(tmp_path):
    gateway = Gateway(tmp_path / "g.spool", max_bytes=400)
    gateway.kafka.mode = "silent"
    acked = []
    for i in range(10):
        gateway.give(i, acked)
        gateway.turns(1)
    assert 0 < len(acked) < 10
    assert "AEGIS_GATEWAY__SPOOL_MAX_BYTES" in gateway.forwarder.complaint
    gateway.kafka.mode = "deliver"
    gateway.turns(30)
    assert acked == list(range(10))
    assert gateway.values == [float(i) for i in range(10)]
    gateway.spool.close()


def test_a_source_that_floods_waits_and_is_let_go_at_the_end(gateway):
    taken = []

    def flood():
        for i in range(200):
            sample = Sample("m-1", "power", i, Quality.GOOD, (1.0,))
            gateway.forwarder.offer(Delivery("s", (sample,), done=partial(taken.append, i)))

    thread = threading.Thread(target=flood)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()  # 50 wait, the 51st is not taken
    gateway.forwarder.close()
    thread.join(5)
    assert not thread.is_alive()
    gateway.forwarder.run()
    assert gateway.spool.depth == 0
    assert taken == list(range(50))


def test_a_permanent_refusal_by_kafka_keeps_the_message(gateway):
    def refuse(*_):
        raise Permanent("not authorised")

    publish, gateway.kafka.publish = gateway.kafka.publish, refuse
    gateway.give(1)
    gateway.turns()
    assert gateway.forwarder.complaint == "not authorised"
    gateway.kafka.publish = publish
    gateway.turns()
    assert gateway.values == [1.0]


def test_a_file_that_is_no_spool_is_refused_with_advice(tmp_path):
    path = tmp_path / "g.spool"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigurationError, match="move it away"):
        Spool(path, 10**6)


def test_marks_are_kept_with_the_messages_they_speak_of(gateway):
    sample = Sample("m-1", "power", 5, Quality.GOOD, (1.0,))
    gateway.kafka.mode = "silent"
    for ts in (5, 6):
        gateway.forwarder.put(Delivery("s", (sample,), (Mark("node", ts, 0), Mark("x", ts, 1))))
    gateway.turns()
    gateway.spool.close()
    gateway.open()
    assert gateway.spool.marks("s") == {"node": (6, 0), "x": (6, 1)}
    assert gateway.spool.marks("other") == {}


def test_two_gateways_do_not_share_a_spool(gateway):
    with pytest.raises(ConfigurationError, match="another gateway"):
        Spool(gateway.path, 10**6)


def test_a_full_disk_keeps_the_old_and_refuses_the_new(tmp_path):
    spool = Spool(tmp_path / "g.spool", 10**9)
    spool.write([Message(1, "t", "k", b"v", 0.0)])
    spool._db.execute("PRAGMA max_page_count = 8")
    with pytest.raises(SpoolFull, match="full"):
        spool.write([Message(2, "t", "k", bytes(200_000), 0.0)])
    assert [m.id for m in spool.read(0, 10)] == [1]
    assert spool.depth == 1
    spool.write([], [1])
    assert spool.depth == 0
    spool.close()


def test_one_message_per_machine_and_another_when_it_grows_too_large():
    samples = [
        Sample("m-1", "vibration", i, Quality.GOOD, (0.0,) * (MOST_VALUES // 2 + 1), 1_000)
        for i in range(3)
    ]
    items = [samples[0], Sample("m-2", "power", 1, Quality.BAD, ()), *samples[1:]]
    messages = Encoder("g", IDS).encode(items, 7, 1.0, lambda _: None)
    assert [(m.id, m.key) for m in messages] == [(7, "m-1"), (8, "m-1"), (9, "m-1"), (10, "m-2")]
    assert all(len(m.value) < 1_000_000 for m in messages)
    read = record(READINGS_TOPIC, messages[3].value)
    assert read["blocks"][0] == {
        "channel": "power", "start_us": 1, "period_us": None, "quality": 2, "values": [],
    }  # fmt: skip


def test_what_does_not_fit_the_contract_becomes_a_refusal_and_spoils_no_neighbour():
    heard = []
    items = [
        Sample("m-1", "power", 2**70, Quality.GOOD, (1.0,)),
        Sample("m-2", "power", 1, Quality.GOOD, (2.0,)),
        Happening("m-1", 1, "failure", "x"),
        Refusal("s", "p", Reason.UNMAPPED, "d", bytes(MOST_KEPT + 9), 1),
    ]
    messages = Encoder("g", IDS).encode(items, 1, 1.0, heard.append)
    assert [m.topic for m in messages] == [
        REFUSALS_TOPIC, READINGS_TOPIC, EVENTS_TOPIC, REFUSALS_TOPIC,
    ]  # fmt: skip
    assert {r.reason for r in heard} == {Reason.MALFORMED, Reason.UNMAPPED}
    assert len(record(REFUSALS_TOPIC, messages[3].value)["payload"]) == MOST_KEPT


STEPS = st.sampled_from(["give", "turn", "fail", "deliver", "silent", "kill"])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["give", "turn", "fail", "deliver", "silent", "kill"]), max_size=40)
)
def test_whatever_happens_nothing_acknowledged_is_lost(tmp_path_factory, steps):
    gateway = Gateway(tmp_path_factory.mktemp("s") / "g.spool")
    acked, given_ = [], 0
    for step in steps:
        if step == "give":
            gateway.give(given_, acked)
            given_ += 1
        elif step == "turn":
            gateway.forwarder.turn()
        elif step == "kill":
            log = gateway.kafka.log
            gateway.spool.close()
            gateway.kafka = Kafka()
            gateway.kafka.log = log
            gateway.open()
        else:
            gateway.kafka.mode = step
    gateway.kafka.mode = "deliver"
    gateway.turns(12)
    gateway.spool.close()
    first = list(dict.fromkeys(gateway.values))  # a kill may repeat, never lose or reorder
    assert first == sorted(first)
    assert set(map(float, acked)) <= set(first)
    assert gateway.spool.depth == 0
