"""The way of an audit record over a real broker and registry."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from aegisops import audit_chain
from aegisops.embedded.broker import InMemoryBroker
from aegisops.embedded.ports import free_port
from aegisops.names import PARTITIONS, PREDICTIONS_TOPIC
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.settings import KafkaSettings, RegistrySettings, Settings
from tests.serving.conftest import SOUND, WORN, Fleet, promote, running, write_bundle

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
def settings(settings: Settings, broker: InMemoryBroker, schema_registry: str) -> Settings:
    return settings.model_copy(
        update={
            "kafka": KafkaSettings(bootstrap=broker.bootstrap, cluster_id=broker.incarnation),
            "registry": RegistrySettings(url=schema_registry),
        }
    )


def consume(settings: Settings, instance: str, count: int) -> list[dict[str, Any]]:
    """The audit records of one instance, as a reader of the topic gets them."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap,
            "group.id": f"check-{instance}",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(PREDICTIONS_TOPIC, p, 0) for p in range(PARTITIONS)])
    found: list[dict[str, Any]] = []
    with SchemaRegistry(settings) as registry:
        for _ in range(100):
            payloads = [m.value() for m in consumer.consume(100, timeout=0.2) if not m.error()]
            records, failures = avro.decode_many(PREDICTIONS_TOPIC, payloads, registry.schema)
            assert failures == []
            found += [r for r in records.to_dicts() if r["instance"] == instance]
            if len(found) >= count:
                break
    consumer.close()
    return found


async def test_answers_reach_kafka_as_one_verifiable_chain_over_a_restart(
    settings: Settings, promoted: Path, fleet: Fleet
) -> None:
    for i in range(5):
        fleet.add(f"m{i}", WORN if i % 2 else SOUND)
    instances, ids = set(), []
    for _ in range(2):
        async with running(settings, kafka=True) as api:
            answers = await asyncio.gather(*(api.predict(f"m{i % 5}") for i in range(20)))
            ids += [a.json()["prediction_id"] for a in answers]
            await api.until(lambda: api.outbox.depth == 0)
            instances.add(api.service.audit.instance)
    (instance,) = instances
    records = await asyncio.to_thread(consume, settings, instance, 40)
    assert sorted(r["prediction_id"] for r in records) == sorted(ids)
    assert audit_chain.verify(records) == []
    assert audit_chain.verify(records[:10] + records[11:])


async def test_while_registry_or_broker_is_away_answers_wait_in_the_outbox(
    settings: Settings, fleet: Fleet
) -> None:
    fleet.add("m", SOUND)
    write_bundle(settings)
    promote(settings, "1")
    away = settings.model_copy(
        update={"registry": RegistrySettings(url=f"http://127.0.0.1:{free_port()}")}
    )
    async with running(away, kafka=True) as api:
        assert (await api.predict("m")).status_code == 200
        await api.until(lambda: api.outbox.failure is not None)
        assert api.outbox.depth == 1
        instance = api.service.audit.instance
    async with running(settings, kafka=True) as api:
        assert api.service.audit.instance == instance
        assert (await api.predict("m")).status_code == 200
        await api.until(lambda: api.outbox.depth == 0)
    records = await asyncio.to_thread(consume, settings, instance, 2)
    assert [r["chain_seq"] for r in sorted(records, key=lambda r: r["chain_seq"])] == [0, 1]
    assert audit_chain.verify(records) == []
