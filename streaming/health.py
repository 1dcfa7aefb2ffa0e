"""What an orchestrator and Prometheus ask an application over HTTP: /livez, /readyz, /metrics.

Alive: the main loop turns. Ready: it has partitions, and its last flush reached the stores.
"""
"""/metrics, /livez and /readyz of an application that serves nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import make_wsgi_app

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


def serve(port: int, metrics: StreamMetrics, health: Health) -> WSGIServer | None:
    """Answer on a port, from a thread; 0 = nowhere. A taken port must not stop the data."""
    if not port:
        return None
    exposition = make_wsgi_app(metrics.registry)
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
        log.warning("no metrics on port %s: %s; set AEGIS_STREAM__*_METRICS_PORT", port, error)
        return None
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:  # a probe a second is no news
        pass
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

log = logging.getLogger(__name__)

Check = Callable[[], str]
"""What is wrong; empty when nothing is."""
_OK, _NOT_FOUND, _UNAVAILABLE = 200, 404, 503


def serve(port: int, registry: CollectorRegistry, is_alive: Check, is_ready: Check) -> int:
    """Answer on a port, in a thread; returns the port. A taken port must not stop the data.

    0 = do not serve; returns 0.
    """
    if not port:
        return 0

    class Handler(_Handler):
        """The handler of this registry and these checks."""

        pages: ClassVar[dict[str, Check]] = {"/livez": is_alive, "/readyz": is_ready}

        def metrics(self) -> bytes:
            """Everything in the registry, as text."""
            return generate_latest(registry)

    try:
        server = ThreadingHTTPServer(("", port), Handler)
    except OSError as error:
        log.warning("no metrics on port %s: %s; set AEGIS_GATEWAY__METRICS_PORT", port, error)
        return 0
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return port


class _Handler(BaseHTTPRequestHandler):
    pages: ClassVar[dict[str, Check]] = {}

    def metrics(self) -> bytes:
        raise NotImplementedError

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._answer(_OK, self.metrics(), CONTENT_TYPE_LATEST)
        elif self.path in self.pages:
            wrong = self.pages[self.path]()
            self._answer(_UNAVAILABLE if wrong else _OK, (wrong or "ok").encode(), "text/plain")
        else:
            self._answer(_NOT_FOUND, b"/metrics, /livez, /readyz", "text/plain")

    def log_message(self, *_: object) -> None:
        """A probe a second is no news."""

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
