"""Which ports a stack listens on: the configured ones, or the next free ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from aegisops.errors import ConfigurationError

if TYPE_CHECKING:
    from aegisops.settings import Settings

TRIES = 200


@dataclass(frozen=True)
class Listener:
    """Something that listens: what it is, the setting that moves it, and its port now."""

    what: str
    variable: str
    port: int


def listeners(settings: Settings) -> tuple[Listener, ...]:
    """Everything an embedded stack listens on; the in-memory broker's port is the system's choice.

    Raises `ConfigurationError` when a configured address has no port.
    """
    return (
        Listener("prediction API", "AEGIS_API__PORT", settings.api.port),
        Listener("Dagster UI", "AEGIS_DAGSTER__PORT", settings.dagster.port),
        Listener("redis-server", "AEGIS_REDIS__URL", _port(settings.redis.url, "AEGIS_REDIS__URL")),
        Listener(
            "schema registry",
            "AEGIS_REGISTRY__URL",
            _port(settings.registry.url, "AEGIS_REGISTRY__URL"),
        ),
    )


def with_free_ports(settings: Settings) -> tuple[Settings, list[str]]:
    """Settings whose ports can be listened on, and a line for each one that had to move.

    A port that the user set stays what it is: `PortTaken` then names the program and the setting.
    """
    from aegisops.embedded.ports import require_free

    taken: set[int] = set()
    chosen: dict[str, int] = {}
    moved: list[str] = []
    for listener in listeners(settings):
        if listener.variable in os.environ:
            require_free(listener.port, listener.what, listener.variable)
            chosen[listener.variable] = listener.port
        else:
            chosen[listener.variable] = port = _next_free(listener.port, taken)
            if port != listener.port:
                moved.append(
                    f"port {listener.port} is taken: {listener.what} is on {port} "
                    f"(choose another with {listener.variable})"
                )
        taken.add(chosen[listener.variable])
    return _moved(settings, chosen), moved


def is_free(port: int) -> bool:
    """Whether something could listen on this loopback port now."""
    from aegisops.embedded.ports import PortTaken, require_free

    try:
        require_free(port, "")
    except PortTaken:
        return False
    return True


def _next_free(wanted: int, taken: set[int]) -> int:
    for port in range(wanted, wanted + TRIES):
        if port not in taken and is_free(port):
            return port
    raise ConfigurationError(f"ports {wanted} to {wanted + TRIES - 1} are all taken")


def _moved(settings: Settings, chosen: dict[str, int]) -> Settings:
    return settings.model_copy(
        update={
            "api": settings.api.model_copy(update={"port": chosen["AEGIS_API__PORT"]}),
            "dagster": settings.dagster.model_copy(update={"port": chosen["AEGIS_DAGSTER__PORT"]}),
            "redis": settings.redis.model_copy(
                update={"url": _at(settings.redis.url, chosen["AEGIS_REDIS__URL"])}
            ),
            "registry": settings.registry.model_copy(
                update={"url": _at(settings.registry.url, chosen["AEGIS_REGISTRY__URL"])}
            ),
        }
    )


def _port(url: str, variable: str) -> int:
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    if port is None:
        raise ConfigurationError(f"{variable}={url} has no port; write it like host:16379")
    return port


def _at(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.hostname}:{port}"))
