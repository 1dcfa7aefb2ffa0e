"""The embedded services and real Kafka, once per test process, and settings that point at them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import uvicorn
from confluent_kafka.admin import AdminClient

from aegisops import bus, names
from aegisops.embedded import kafka_server as kafka
from aegisops.embedded import ports
from aegisops.embedded.broker import InMemoryBroker
from aegisops.embedded.kafka_server import KafkaServer
from aegisops.embedded.redis_server import RedisServer
from aegisops.embedded.schema_registry import create_app
from aegisops.embedded.schema_store import SchemaStore
from aegisops.errors import AegisError, ServiceUnavailable
from aegisops.settings import KafkaSettings, RedisSettings, RegistrySettings, Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    """How hard the fault tests try; `make test-faults` asks for more."""
    parser.addoption("--kills", type=int, default=3, help="kill -9 of the lake writer, times")
    parser.addoption("--outage", type=float, default=3.0, help="seconds the broker is away")


KAFKA_CACHE = Path(__file__).resolve().parents[1] / ".aegis" / "kafka"


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """The cache with Kafka's jars.

    Where Kafka cannot run, a test that needs it skips; with AEGIS_REQUIRE_KAFKA=1, as in CI, it
    fails. AEGIS_REQUIRE_KAFKA=0 skips in any case: a node and its tests take minutes.
    """
    required = os.environ.get("AEGIS_REQUIRE_KAFKA", "")
    if required == "0":
        pytest.skip("not tested on real Kafka: AEGIS_REQUIRE_KAFKA=0")
    try:
        kafka.fetch_jars(KAFKA_CACHE)
    except AegisError as error:
        if required:
            pytest.fail(f"not tested on real Kafka: {error}")
        pytest.skip(f"not tested on real Kafka: {error}")
    return KAFKA_CACHE


@pytest.fixture(scope="session")
def kafka_server(
    kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaServer]:
    """A real Kafka node; shared, so leave it running as you found it."""
    with KafkaServer(tmp_path_factory.mktemp("kafka"), cache_dir=kafka_jars) as running:
        yield running


@pytest.fixture
def real_kafka(kafka_server: KafkaServer) -> KafkaSettings:
    """Real Kafka with the product's topics, made anew and empty."""
    settings = kafka_server.settings
    delete_topics(settings, names.TOPICS)
    bus.ensure_topics(settings)
    wait_for_leaders(settings, names.TOPICS)
    return settings


@pytest.fixture(params=["in_memory", "real"])
def any_kafka(request: pytest.FixtureRequest) -> Iterator[KafkaSettings]:
    """The product's topics, empty, on the in-memory broker and then on real Kafka."""
    if request.param == "real":
        yield request.getfixturevalue("real_kafka")
        return
    with InMemoryBroker() as broker:
        for topic in names.TOPICS:
            broker.create_topic(topic, names.PARTITIONS)
        yield KafkaSettings(bootstrap=broker.bootstrap, cluster_id=broker.incarnation)


def delete_topics(settings: KafkaSettings, topics: Iterable[str]) -> None:
    """Remove topics and all that is in them; those that are not there are no error."""
    admin = AdminClient(bus.client_options(settings))
    there = admin.list_topics(timeout=10).topics.keys() & set(topics)
    if there:
        for future in admin.delete_topics(sorted(there), request_timeout=10).values():
            future.result()


def wait_for_leaders(settings: KafkaSettings, topics: Iterable[str]) -> None:
    """Return when every partition answers; a new one has no leader for a moment."""
    deadline = time.monotonic() + 20
    for topic in topics:
        while True:
            try:
                if bus.watermarks(settings, topic):
                    break
            except ServiceUnavailable:
                pass
            assert time.monotonic() < deadline, f"{topic} has no leader"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def broker() -> Iterator[InMemoryBroker]:
    """In-memory Kafka with the product's topics; make topics of your own to count messages."""
    with InMemoryBroker() as running:
        for topic in names.TOPICS:
            running.create_topic(topic, names.PARTITIONS)
        yield running


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real redis-server; shared, so use keys or databases of your own."""
    with RedisServer(log=tmp_path_factory.mktemp("redis") / "redis.log") as running:
        yield running


@pytest.fixture(scope="session")
def schema_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the embedded schema registry, served from a thread."""
    store = SchemaStore(tmp_path_factory.mktemp("registry") / "schemas.sqlite")
    port = ports.free_port()
    config = uvicorn.Config(
        create_app(store), host=ports.LOOPBACK, port=port, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the schema registry did not start"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield f"http://{ports.LOOPBACK}:{port}"
    server.should_exit = True
    thread.join(10)
    store.close()


@pytest.fixture
def settings(
    tmp_path: Path, broker: InMemoryBroker, redis_server: RedisServer, schema_registry: str
) -> Settings:
    """Settings of a stack on the embedded services with a data folder of its own."""
    return Settings(
        data_dir=tmp_path / "data",
        kafka=KafkaSettings(bootstrap=broker.bootstrap, cluster_id=broker.incarnation),
        redis=RedisSettings(url=redis_server.url),
        registry=RegistrySettings(url=schema_registry),
    )
