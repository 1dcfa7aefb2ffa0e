from __future__ import annotations

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from aegisops.embedded.broker import InMemoryBroker
from aegisops.errors import Permanent

pytestmark = pytest.mark.integration


def producer(broker: InMemoryBroker) -> Producer:
    return Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})


def consume(broker: InMemoryBroker, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    try:
        values: list[bytes] = []
        while len(values) < count:
            message = consumer.poll(10)
            assert message is not None
            assert message.error() is None
            values.append(message.value())
        return values
    finally:
        consumer.close()


def test_what_is_produced_is_consumed_and_the_topic_has_its_partitions():
    with InMemoryBroker() as broker:
        assert broker.create_topic("t", 5)
        assert not broker.create_topic("t", 5)
        client = producer(broker)
        client.produce("t", b"one", key=b"k")
        assert client.flush(10) == 0
        assert len(client.list_topics("t", timeout=10).topics["t"].partitions) == 5
        assert consume(broker, "t", 1) == [b"one"]


def test_data_survives_an_outage_but_not_a_restart():
    broker = InMemoryBroker().start()
    broker.create_topic("t", 1)
    client = producer(broker)
    client.produce("t", b"before")
    assert client.flush(10) == 0
    broker.set_down()
    with pytest.raises(KafkaException):
        client.list_topics("t", timeout=0.3)
    broker.set_up()
    client.produce("t", b"after")
    assert client.flush(10) == 0
    assert consume(broker, "t", 2) == [b"before", b"after"]
    first = broker.incarnation
    broker.close()
    broker.close()
    with broker.start():
        assert broker.incarnation != first
        assert "t" not in producer(broker).list_topics(timeout=10).topics


def test_a_stopped_broker_says_so_and_a_running_one_does_not_start_twice():
    broker = InMemoryBroker()
    with pytest.raises(Permanent, match="not running"):
        broker.create_topic("t", 1)
    with broker.start(), pytest.raises(Permanent, match="already running"):
        broker.start()


def test_a_topic_without_partitions_is_refused():
    with InMemoryBroker() as broker, pytest.raises(Permanent, match="'t' needs at least one"):
        broker.create_topic("t", 0)
