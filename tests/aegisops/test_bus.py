"""The Kafka edge on the in-memory broker and on Kafka: delivery, order, outages, positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from aegisops import bus, names
from aegisops.embedded import ports
from aegisops.embedded.broker import InMemoryBroker
from aegisops.errors import (
    BadInput,
    ConfigurationError,
    Permanent,
    Retryable,
    ServiceUnavailable,
)
from aegisops.schemas import avro
from aegisops.settings import KafkaSettings, Settings

pytestmark = pytest.mark.integration
OUT_OF_ORDER_SEQUENCE = 45
MESSAGE_TOO_LARGE = 10
PRODUCE = 0


@pytest.fixture
def own_broker() -> Iterator[InMemoryBroker]:
    """A broker that a test may hurt."""
    with InMemoryBroker() as broker:
        broker.create_topic("t", 1)
        yield broker


def kafka(broker: InMemoryBroker, **options: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=broker.bootstrap, options={"log_level": "0", **options})


def read(where: KafkaSettings, topic: str, count: int) -> list[Any]:
    client = bus.consumer(where, "reader")
    client.subscribe([topic])
    try:
        found = []
        while len(found) < count:
            message = client.poll(10)
            assert message is not None, f"{len(found)} of {count} messages came"
            assert message.error() is None
            found.append(message)
        assert client.poll(0.2) is None
        return found
    finally:
        client.close()


def event(machine: str, ts: int) -> dict[str, Any]:
    return {"machine_id": machine, "ts": ts, "type": "error", "code": "e1", "detail": ""}


def murmur2(key: bytes) -> int:
    """Kafka's partition hash as its Java client has it (Utils.murmur2), made positive."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if rest := key[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def test_records_arrive_decoded_in_order_per_machine_and_where_java_would_put_them(
    settings: Settings, any_kafka: KafkaSettings
):
    own = settings.model_copy(update={"kafka": any_kafka})
    machines = [f"machine-{i}" for i in range(7)]
    with bus.Publisher(own) as publisher:
        for ts in range(20):
            for machine in machines:
                publisher.publish(
                    names.EVENTS_TOPIC, machine, event(machine, ts), {"origin": "test"}
                )
    messages = read(own.kafka, names.EVENTS_TOPIC, 140)
    frame, failures = avro.decode_many(
        names.EVENTS_TOPIC,
        [m.value() for m in messages],
        lambda _: avro.contract(names.EVENTS_TOPIC).text,
    )
    assert failures == []
    for machine in machines:
        mine = [m for m in messages if m.key() == machine.encode()]
        assert {m.partition() for m in mine} == {murmur2(machine.encode()) % names.PARTITIONS}
    for (_,), rows in frame.group_by("machine_id"):
        assert rows["ts"].to_list() == list(range(20))
    assert messages[0].headers() == [("origin", b"test")]


def test_a_record_that_does_not_fit_is_refused_and_the_others_arrive(settings: Settings):
    topic = names.FEEDBACK_TOPIC
    before = sum(high for _, high in bus.watermarks(settings.kafka, topic).values())
    good = {
        "feedback_id": "f",
        "machine_id": "m",
        "ts": 1,
        "outcome": "confirmed",
        "subject": "s",
    }
    with bus.Publisher(settings) as publisher:
        publisher.publish(topic, "m", good)
        with pytest.raises(BadInput, match=topic):
            publisher.publish(topic, "m", good | {"ts": "yesterday"})
        publisher.publish(topic, "m", good)
    after = sum(high for _, high in bus.watermarks(settings.kafka, topic).values())
    assert after - before == 2


def test_an_outage_delays_and_neither_loses_nor_doubles(own_broker: InMemoryBroker):
    producer = bus.Producer(kafka(own_broker, **{"reconnect.backoff.max.ms": "100"}))
    told: list[Exception | None] = []
    producer.publish("t", "k", b"before", told.append)
    producer.flush()
    own_broker.set_down()
    producer.publish("t", "k", b"during", told.append)
    with pytest.raises(ServiceUnavailable, match=r"did not take 1 messages within 0\.2 s"):
        producer.flush(0.2)
    assert len(producer) == 1
    own_broker.set_up()
    producer.flush()
    assert told == [None, None]
    assert [m.value() for m in read(kafka(own_broker), "t", 2)] == [b"before", b"during"]


def test_a_full_queue_is_retryable_and_bounded(own_broker: InMemoryBroker):
    own_broker.set_down()
    producer = bus.Producer(kafka(own_broker, **{"queue.buffering.max.messages": "3"}))
    for _ in range(3):
        producer.publish("t", "k", b"v")
    with pytest.raises(Retryable, match="queue is full"):
        producer.publish("t", "k", b"v")
    own_broker.set_up()
    producer.flush()
    producer.publish("t", "k", b"v")
    producer.flush()
    assert len(read(kafka(own_broker), "t", 4)) == 4


def test_a_message_the_broker_refuses_for_good_is_reported_as_permanent(own_broker: InMemoryBroker):
    producer = bus.Producer(kafka(own_broker))
    told: list[Exception | None] = []
    own_broker.fail_requests(PRODUCE, [MESSAGE_TOO_LARGE])
    producer.publish("t", "k", b"v", told.append)
    producer.flush()
    assert isinstance(told[0], Permanent)


@pytest.mark.parametrize("noticed_by", ["flush", "poll"])
def test_a_session_the_broker_ended_is_followed_by_a_new_one(
    own_broker: InMemoryBroker, noticed_by: str
):
    producer = bus.Producer(kafka(own_broker))
    told: list[Exception | None] = []
    producer.publish("t", "k", b"first", told.append)
    producer.flush()
    own_broker.fail_requests(PRODUCE, [OUT_OF_ORDER_SEQUENCE])
    producer.publish("t", "k", b"lost", told.append)
    if noticed_by == "flush":
        with pytest.raises(ServiceUnavailable, match=r"sequence"):
            producer.flush()
    else:
        while len(told) < 2:
            producer.poll(0.1)
    assert told[0] is None
    assert isinstance(told[1], ServiceUnavailable), "the sender may send it again"
    producer.publish("t", "k", b"again", told.append)
    producer.flush()
    assert told[2] is None
    assert [m.value() for m in read(kafka(own_broker), "t", 2)] == [b"first", b"again"]


def test_a_publisher_raises_what_became_of_earlier_records(settings: Settings):
    with InMemoryBroker() as broker:
        broker.create_topic(names.EVENTS_TOPIC, 1)
        own = settings.model_copy(update={"kafka": kafka(broker)})
        publisher = bus.Publisher(own)
        broker.fail_requests(PRODUCE, [MESSAGE_TOO_LARGE])
        publisher.publish(names.EVENTS_TOPIC, "m", event("m", 1))
        with pytest.raises(Permanent, match=r"(?i)too large|message size"):
            publisher.flush()
        with publisher:
            publisher.publish(names.EVENTS_TOPIC, "m", event("m", 2))


def test_lag_is_what_a_group_has_not_committed(any_kafka: KafkaSettings):
    topic, group = names.FEEDBACK_TOPIC, "lag-test"
    producer = bus.Producer(any_kafka)
    for i in range(10):
        producer.publish(topic, f"machine-{i}", b"v")
    producer.flush()
    marks = bus.watermarks(any_kafka, topic)
    assert sorted(marks) == list(range(names.PARTITIONS))
    assert all(low == 0 for low, _ in marks.values())
    assert sum(high for _, high in marks.values()) == 10
    assert sum(bus.lag(any_kafka, group, topic).values()) == 10
    client = bus.consumer(any_kafka, group, session_timeout_ms=6_000)
    client.subscribe([topic])
    for _ in range(4):
        client.commit(client.poll(10), asynchronous=False)
    assert sum(bus.lag(any_kafka, group, topic).values()) == 6
    assert sum(bus.lag(any_kafka, "other", topic).values()) == 10
    client.close()


def test_asking_about_a_topic_that_is_not_there_does_not_make_it(any_kafka: KafkaSettings):
    assert bus.watermarks(any_kafka, "absent") == {}
    assert bus.lag(any_kafka, "g", "absent") == {}
    client = bus.consumer(any_kafka, "g")
    assert "absent" not in client.list_topics(timeout=10).topics
    client.close()


def test_missing_topics_are_made_once_and_present_ones_are_left_alone(real_kafka: KafkaSettings):
    before = bus.cluster_id(real_kafka)
    bus.ensure_topics(real_kafka, partitions=names.PARTITIONS + 1)
    assert len(bus.watermarks(real_kafka, names.EVENTS_TOPIC)) == names.PARTITIONS
    with pytest.raises(Permanent, match=r"create aegis\.too-safe.*[Rr]eplication"):
        bus.ensure_topics(real_kafka, ["aegis.too-safe"], replication=3)
    assert bus.watermarks(real_kafka, "aegis.too-safe") == {}
    assert bus.cluster_id(real_kafka) == before != ""


def test_nobody_at_the_address_is_retryable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bus, "_TIMEOUT", 0.3)
    address = f"{ports.LOOPBACK}:{ports.free_port()}"
    nobody = KafkaSettings(bootstrap=address, in_memory=False, options={"log_level": "0"})
    with pytest.raises(ServiceUnavailable):
        bus.watermarks(nobody, "t")
    with pytest.raises(ServiceUnavailable):
        bus.ensure_topics(nobody, ["t"])


def test_a_wrong_option_names_the_setting(own_broker: InMemoryBroker):
    with pytest.raises(ConfigurationError, match=r"AEGIS_KAFKA__OPTIONS.*colour"):
        bus.Producer(kafka(own_broker, colour="red"))
    with pytest.raises(ConfigurationError, match="colour"):
        bus.consumer(kafka(own_broker, colour="red"), "g")


def test_options_tune_the_producer_but_cannot_weaken_what_is_promised(own_broker: InMemoryBroker):
    options = {"acks": "0", "partitioner": "random", "linger.ms": "1"}
    producer = bus.Producer(kafka(own_broker, **options))
    assert producer._options["acks"] == "all"
    assert producer._options["partitioner"] == "murmur2_random"
    assert producer._options["linger.ms"] == "1"
