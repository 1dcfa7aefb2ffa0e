"""Taken ports: the next free one, or a message that names the setting."""

import socket
from collections.abc import Iterator

import pytest

from aegisops.cli.ports import listeners, with_free_ports
from aegisops.embedded.ports import PortTaken, free_port
from aegisops.errors import ConfigurationError
from aegisops.settings import ApiSettings, DagsterSettings, RegistrySettings, Settings


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def settings() -> Settings:
    return Settings(dagster=DagsterSettings(port=free_port()))


def test_a_taken_default_port_moves_to_the_next_free_one(taken, settings):
    moved, lines = with_free_ports(settings.model_copy(update={"api": ApiSettings(port=taken)}))
    assert moved.api.port > taken
    assert any(f"port {taken}" in line and "AEGIS_API__PORT" in line for line in lines)


def test_a_taken_port_that_the_user_chose_is_refused_with_the_setting(taken, settings, monkeypatch):
    monkeypatch.setenv("AEGIS_API__PORT", str(taken))
    with pytest.raises(PortTaken, match="AEGIS_API__PORT"):
        with_free_ports(settings.model_copy(update={"api": ApiSettings(port=taken)}))


def test_two_services_never_get_the_same_port(settings):
    port = free_port()
    same = settings.model_copy(
        update={"api": ApiSettings(port=port), "dagster": DagsterSettings(port=port)}
    )
    moved, _ = with_free_ports(same)
    assert len({listener.port for listener in listeners(moved)}) == 4


def test_an_address_without_a_port_is_named(settings):
    wrong = settings.model_copy(update={"registry": RegistrySettings(url="http://registry")})
    with pytest.raises(ConfigurationError, match="AEGIS_REGISTRY__URL"):
        with_free_ports(wrong)
