"""What an orchestrator and Prometheus ask an application over HTTP: /livez, /readyz, /metrics.

Alive: the main loop turns. Ready: it has partitions, and its last flush reached the stores.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app

from streaming.metrics import StreamMetrics

log = logging.getLogger(__name__)

SILENT_SECONDS = 120.0
"""A loop that has not turned for this long hangs: a flush is far shorter."""


class Health:
    """How the application feels; told by its main thread, asked by others."""

    def __init__(self, metrics: StreamMetrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._beat_at = clock()
        self._is_assigned = False

    def beat(self) -> None:
        """The main loop turned."""
        self._beat_at = self._clock()

    def assigned(self) -> None:
        """The group gave this member its partitions (perhaps none: then it stands by)."""
        self._is_assigned = True

    def live(self) -> dict[str, object]:
        """`ok`, and for how many seconds the loop has been silent."""
        silent = self._clock() - self._beat_at
        return {"ok": silent < SILENT_SECONDS, "silent_seconds": round(silent, 1)}

    def ready(self) -> dict[str, object]:
        """`ok`, and if not, why."""
        why = "" if self._is_assigned else "waiting for partitions; is Kafka there?"
        why = self._metrics.trouble or why
        return {"ok": bool(self.live()["ok"]) and not why, "why": why}


class Probes(Protocol):
    """Answers with `ok`, and what else explains it."""

    def live(self) -> dict[str, object]:
        """Whether a restart would help."""

    def ready(self) -> dict[str, object]:
        """Whether it does its work."""


def serve(port: int, registry: CollectorRegistry, health: Probes) -> WSGIServer | None:
    """Answer on a port, from a thread; 0 = nowhere. A taken port must not stop the data."""
    if not port:
        return None
    exposition = make_wsgi_app(registry)
    answers = {"/livez": health.live, "/readyz": health.ready}

    def app(environ: dict[str, str], start: Callable[..., object]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return cast("Iterable[bytes]", exposition(environ, start))
        if path not in answers:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/livez, /readyz or /metrics\n"]
        answer = answers[path]()
        status = "200 OK" if answer["ok"] else "503 Service Unavailable"
        start(status, [("Content-Type", "application/json")])
        return [orjson.dumps(answer)]

    try:
        server = make_server("", port, app, handler_class=_Quiet)
    except OSError as error:
        log.warning("no metrics on port %s: %s; set its AEGIS_…__…METRICS_PORT", port, error)
        return None
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:  # a probe a second is no news
        pass
