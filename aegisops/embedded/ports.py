"""Loopback ports: find a free one, say who holds a taken one."""

from __future__ import annotations

import socket

from aegisops.errors import Permanent

LOOPBACK = "127.0.0.1"


class PortTaken(Permanent):
    """Another program listens there."""


def free_port() -> int:
    """A TCP port that nobody listens on at this moment; another program may take it later."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int, host: str = LOOPBACK, timeout: float = 0.5) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False


def require_free(port: int, purpose: str, setting: str = "") -> None:
    """Raise `PortTaken`, naming the holder if it can be seen, unless the port can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is not taken
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            choice = f", or choose another with {setting}" if setting else ""
            raise PortTaken(
                f"port {port} for {purpose} is taken{_holder(port)}; stop that program{choice}"
            ) from error


def _holder(port: int) -> str:
    """` by NAME (pid N)`, or nothing: other users' processes are hidden from us."""
    try:
        import psutil
    except ImportError:
        return ""
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return ""
    return ""
