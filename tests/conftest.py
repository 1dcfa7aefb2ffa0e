"""The embedded services, once per test process, and settings that point at them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from aegisops import names
from aegisops.embedded import ports
from aegisops.embedded.broker import InMemoryBroker
from aegisops.embedded.redis_server import RedisServer
from aegisops.embedded.schema_registry import create_app
from aegisops.embedded.schema_store import SchemaStore
from aegisops.settings import KafkaSettings, RedisSettings, RegistrySettings, Settings


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
