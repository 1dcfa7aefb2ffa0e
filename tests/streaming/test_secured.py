"""Both applications on a Kafka that lets nobody in without TLS 1.3 and a login."""

from __future__ import annotations

import pytest

from aegisops import bus, names
from aegisops.embedded.kafka_server import KafkaServer
from aegisops.embedded.processes import Processes
from aegisops.settings import Settings
from tests.conftest import wait_for_leaders
from tests.kafka_login import make_login
from tests.streaming.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def guarded(kafka_jars, tmp_path_factory):
    login = make_login(tmp_path_factory.mktemp("certificates"))
    folder = tmp_path_factory.mktemp("guarded")
    with KafkaServer(folder, login=login, cache_dir=kafka_jars) as running:
        bus.ensure_topics(running.settings)
        wait_for_leaders(running.settings, names.TOPICS)
        yield running.settings


def test_behind_tls_and_a_login_everything_is_written_once_and_served(
    guarded, tmp_path, redis_server, schema_registry
):
    settings = Settings(
        data_dir=tmp_path,
        kafka=guarded,
        redis={"url": redis_server.url.removesuffix("/0") + "/11"},
        registry={"url": schema_registry},
        stream={"lake_commit_seconds": 0.3, "feature_commit_seconds": 0.1},
    )
    with Processes(tmp_path / "logs") as processes:
        stack = Stack(settings, processes, redis_server)
        stack.start("lake_writer")
        stack.start("feature_worker")
        stack.send_good(range(20))
        stack.wait("all that was sent in the lake", stack.is_written)
        stack.kill("lake_writer")
        stack.send_good(range(20, 30))
        stack.wait("the rest in the lake", stack.is_written)
        stack.wait("all that was sent in Redis", stack.is_applied)
        stack.assert_each_once()
        stack.assert_served_as_the_lake_says()
        stack.client.close()
