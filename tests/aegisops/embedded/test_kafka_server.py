"""Apache Kafka as a child process: starts, keeps its data, and lets nobody in without a login."""

from __future__ import annotations

import re
import socket
import ssl

import pytest

from aegisops import bus, project_files
from aegisops.embedded import kafka_server, ports
from aegisops.embedded.kafka_server import KafkaServer
from aegisops.errors import ConfigurationError, Permanent, ServiceUnavailable
from tests.conftest import wait_for_leaders
from tests.kafka_login import make_login

TOPIC = "kept.v1"


@pytest.fixture(scope="module")
def login(tmp_path_factory):
    """A login whose certificates are signed by an authority made here."""
    return make_login(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(login, kafka_jars, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    with KafkaServer(folder, login=login, cache_dir=kafka_jars) as running:
        bus.ensure_topics(running.settings, [TOPIC], partitions=1)
        wait_for_leaders(running.settings, [TOPIC])
        yield running


@pytest.mark.integration
@pytest.mark.slow
class TestNode:
    """One node for all; each start costs seconds."""

    def test_with_tls_and_the_password_messages_go_in_and_out(self, guarded):
        producer = bus.Producer(guarded.settings)
        producer.publish(TOPIC, "k", b"secret")
        producer.flush()
        client = bus.consumer(guarded.settings, "g")
        client.subscribe([TOPIC])
        assert client.poll(20).value() == b"secret"
        client.close()
        assert bus.lag(guarded.settings, "other", TOPIC) == {0: 1}

    def test_a_killed_node_comes_back_as_the_same_cluster_with_its_data(self, guarded):
        cluster = bus.cluster_id(guarded.settings)
        producer = bus.Producer(guarded.settings)
        producer.publish(TOPIC, "k", b"v")
        producer.flush()
        del producer
        marks = bus.watermarks(guarded.settings, TOPIC)
        guarded.kill()
        assert not ports.is_listening(guarded._port)
        guarded.start()
        wait_for_leaders(guarded.settings, [TOPIC])
        assert bus.watermarks(guarded.settings, TOPIC) == marks
        assert bus.cluster_id(guarded.settings) == cluster

    def test_a_taken_port_is_named(self, guarded, tmp_path):
        with pytest.raises(ports.PortTaken, match="Kafka"):
            KafkaServer(tmp_path, guarded._port).start()

    @pytest.mark.parametrize(
        "wrong",
        [{"sasl.password": "guessed"}, {"security.protocol": "PLAINTEXT"}],
        ids=["password", "no TLS"],
    )
    def test_anyone_else_stays_outside(self, guarded, wrong, monkeypatch):
        monkeypatch.setattr(bus, "_TIMEOUT", 2.0)
        options = guarded.settings.options | wrong | {"log_level": "0"}
        with pytest.raises((ServiceUnavailable, Permanent)):
            bus.cluster_id(guarded.settings.model_copy(update={"options": options}))

    def test_nothing_older_than_tls_1_3_is_spoken(self, guarded, login):
        address = (ports.LOOPBACK, guarded._port)
        context = ssl.create_default_context(cafile=str(login.authority))
        with (
            socket.create_connection(address, 5) as raw,
            context.wrap_socket(raw, server_hostname=ports.LOOPBACK) as spoken,
        ):
            assert spoken.version() == "TLSv1.3"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(address, 5) as raw, pytest.raises(ssl.SSLError):
            context.wrap_socket(raw, server_hostname=ports.LOOPBACK)

    def test_only_the_owner_reads_the_file_with_the_password(self, guarded):
        assert (guarded._folder / "server.properties").stat().st_mode & 0o077 == 0


def test_the_configuration_names_no_repository_and_pins_every_version():
    pom = (project_files.KAFKA / "pom.xml").read_text()
    assert "<repositor" not in pom
    assert re.search(r"<kafka.version>4\.\d+\.\d+</", pom)
    assert re.search(r"<log4j.version>\d+\.\d+\.\d+</", pom)


def test_without_java_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    kafka_server.find_java.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match="openjdk-17"):
            KafkaServer(tmp_path, cache_dir=tmp_path).start()
    finally:
        kafka_server.find_java.cache_clear()


def test_an_older_java_is_named_and_refused(tmp_path, monkeypatch):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    kafka_server.find_java.cache_clear()
    try:
        assert re.search(rf"{java} is 11; Kafka needs Java 17", kafka_server.why_not(tmp_path))
    finally:
        kafka_server.find_java.cache_clear()


def test_jars_that_are_there_are_not_fetched_again(kafka_jars, monkeypatch):
    kafka_server.find_java()
    monkeypatch.setattr(kafka_server.subprocess, "run", None)
    assert any(kafka_server.fetch_jars(kafka_jars).glob("kafka_2.13-4.*.jar"))
