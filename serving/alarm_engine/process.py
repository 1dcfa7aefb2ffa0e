"""The alarm engine's process: parts from settings, probes and metrics, until a signal. Wiring only.

`/livez`: the loop turns. `/readyz`: this engine has judged within the last seconds, or another one
is active and this one waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aegisops.errors import AegisError, ServiceUnavailable
from aegisops.settings import Settings
from serving.alarm_engine.engine import AlarmEngine
from serving.alarm_engine.metrics import EngineMetrics
from serving.alarm_engine.notifier import Notifier, Pager, routing_key
from serving.alarm_journal import JournalReader
from serving.ending import end
from serving.service import Service, build, lake_of

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

LATE_SECONDS = 15.0
"""An active engine that has not judged for this long is not ready."""


def assemble(service: Service) -> AlarmEngine:
    """The engine over a service's parts."""
    settings = service.settings
    metrics = EngineMetrics(service.metrics.registry)
    engine = AlarmEngine(
        service,
        JournalReader(lambda: lake_of(settings), settings),
        metrics,
        settings=settings.alarms,
        clock=service.clock,
    )
    if settings.alarms.webhook_url:
        import httpx

        engine.notifier = Notifier(
            Pager(settings.alarms.webhook_url, routing_key(settings.alarms), httpx.AsyncClient()),
            service.alarms.store,
            service.alarms,
            metrics,
            settings.alarms.webhook_priority,
            engine.instance,
            service.clock,
        )
    return engine


def probes(engine: AlarmEngine, service: Service) -> Starlette:
    """The HTTP side of the engine."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        try:
            is_ready = await is_well(engine, service)
        except ServiceUnavailable:
            is_ready = False
        status = "ready" if is_ready else "not ready"
        is_active = engine.token is not None
        return JSONResponse({"status": status, "is_active": is_active}, 200 if is_ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    )


async def is_well(engine: AlarmEngine, service: Service) -> bool:
    """Whether alarms are judged: by this engine lately, or by another one."""
    if engine.token is not None:
        return service.clock() - engine.evaluated_at < LATE_SECONDS
    return await service.alarms.store.active_engine() is not None


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    service = build(settings)
    engine = assemble(service)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await service.start()
    tasks = [asyncio.create_task(engine.run(), name="alarm engine")]
    server, port = _server(engine, service), _listen(settings)
    if port is not None:
        tasks.append(asyncio.create_task(server.serve([port]), name="probes"))
    waiting = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({waiting, tasks[0]}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        await end([tasks[0], waiting])
        await asyncio.gather(*tasks[1:], return_exceptions=True)
        with contextlib.suppress(AegisError):
            await engine.stop()
        if engine.notifier is not None:
            await engine.notifier.pager.aclose()
        await service.stop()


def _listen(settings: Settings) -> socket.socket | None:
    """The probes' port; a taken one must not stop the alarms."""
    if not settings.alarms.port:
        return None
    try:
        return socket.create_server((settings.api.host, settings.alarms.port))
    except OSError as error:
        log.warning(
            "no probes and metrics on port %d: %s; set AEGIS_ALARMS__PORT",
            settings.alarms.port,
            error,
        )
        return None


def _server(engine: AlarmEngine, service: Service) -> uvicorn.Server:
    import uvicorn

    class Quiet(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # the process' own handlers stay

    return Quiet(
        uvicorn.Config(probes(engine, service), access_log=False, log_config=None, lifespan="off")
    )


def serve() -> int:
    """Exit code: 0 after a signal, 2 when the configuration does not allow a start."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(run(Settings()))
    except AegisError as error:
        log.critical("cannot start: %s", error)
        return 2
    return 0
