from __future__ import annotations

import socket
from pathlib import Path

import pytest
import redis

from aegisops.embedded import ports, redis_server
from aegisops.embedded.redis_server import RedisServer
from aegisops.errors import ConfigurationError

pytestmark = pytest.mark.integration


def test_it_answers_keeps_nothing_on_disk_and_never_evicts(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RedisServer(log=tmp_path / "redis.log") as server:
        with redis.Redis.from_url(server.url, protocol=2) as client:
            client.set("a", "1")
            assert client.get("a") == b"1"
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert redis_server.answers(server.port)
    assert not redis_server.answers(server.port)
    assert [path.name for path in tmp_path.iterdir()] == ["redis.log"]


def test_a_taken_port_is_named_with_its_holder():
    with socket.socket() as other:
        other.bind((ports.LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ports.PortTaken, match=rf"port {port} for redis-server is taken"):
            RedisServer(port).start()
        assert not redis_server.answers(port, 0.1), "a listener that is no Redis is not ready"


def test_without_a_binary_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="apt install redis-server"):
        redis_server.find_binary()
