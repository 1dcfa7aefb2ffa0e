"""GET /system/status for people and consoles; /livez, /readyz and /metrics for machines."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from aegisops import __version__
from aegisops.errors import ServiceUnavailable
from aegisops.machines.model import US_PER_SECOND
from aegisops.tokens import Role
from serving.auth import authorise
from serving.console_contract import SystemStatus
from serving.model_slot import Loaded, Refusal
from serving.prediction import iso
from serving.problem import Problem
from serving.routes.http import as_json, documented_errors, service_of
from serving.service import Service

if TYPE_CHECKING:
    from aegisops.lake import Lake

api = APIRouter(tags=["system"])
probes = APIRouter(tags=["probes"])


STATUS = "/system/status"


@api.get(
    STATUS,
    summary="State of every part",
    responses={200: {"model": SystemStatus}, **documented_errors()},
)
async def status(request: Request) -> Response:
    """Without a token only whether the API is alive; for a viewer every dependency and model."""
    if not request.headers.get("authorization"):
        return as_json({"status": "alive"})
    await authorise(request, Role.VIEWER)
    service = service_of(request)
    redis = await service.redis_problem()
    outbox, now = service.outbox, service.clock()
    freshness, lake_problem = await _freshness(service, now)
    dependencies = {
        "online_store": _dependency(redis),
        "audit_log": _dependency(outbox.failure)
        | {"waiting": outbox.depth, "capacity": service.settings.api.outbox_capacity},
        "lake": _dependency(lake_problem),
        "live_telemetry": _dependency(
            None if service.telemetry.is_connected else "Redis is not listened to just now"
        ),
    }
    if service.sign_in is not None:
        dependencies["sign_in"] = _dependency(service.sign_in.problem)
    lag = [] if service.lag is None else service.lag.look()
    is_well = all(d["status"] == "ok" for d in dependencies.values()) and service.healthy
    return as_json(
        {
            "status": "ok" if is_well else "degraded",
            "version": __version__,
            "uptime_seconds": round(service.clock() - service.started_at, 1),
            "audit_instance": service.audit.instance,
            "dependencies": dependencies,
            "models": _models(service),
            "freshness": freshness,
            "lag": lag,
            "lag_problem": None if service.lag is None else service.lag.problem,
            "heartbeat_seconds": service.settings.api.telemetry_heartbeat_seconds,
            "as_of": iso(round(now * US_PER_SECOND)),
        }
    )


async def _freshness(service: Service, now: float) -> tuple[list[dict[str, Any]], str | None]:
    """When each stage last had news, oldest stage of the data's way first; why not, if not."""
    problem, found = None, []
    try:
        committed = await service.lake_reads.run(_commits)
        found = [(f"lake: {name}", at) for name, at in committed]
    except (ServiceUnavailable, Problem) as error:
        problem = str(error)
    rows: dict[str, Any] = {}
    with suppress(ServiceUnavailable):
        rows = await service.latest.rows()
    for stage, member in (("features used", "features_at"), ("predictions", "at")):
        times = [row[member] for row in rows.values() if row[member] is not None]
        found.append((stage, max(times, default=None)))
    return [
        {
            "stage": stage,
            "newest_at": None if at is None else iso(at),
            "age_seconds": None if at is None else round(max(0.0, now - at / US_PER_SECOND), 1),
        }
        for stage, at in found
    ], problem


def _commits(lake: Lake) -> list[tuple[str, int | None]]:
    """Time of the last commit of the tables the console reads, in µs."""
    from aegisops.schemas.tables import FEATURES, HOURLY, PREDICTIONS, READINGS, TILES

    found: list[tuple[str, int | None]] = []
    for table in (READINGS, TILES, FEATURES, HOURLY, PREDICTIONS):
        commits = lake.open(table).history(1) if lake.exists(table) else []
        found.append((table.name, commits[0]["timestamp"] * 1_000 if commits else None))
    return found


def _dependency(problem: str | None) -> dict[str, Any]:
    return {"status": "ok" if problem is None else "away", "detail": problem}


def _models(service: Service) -> list[dict[str, Any]]:
    rows = []
    states, shadows = service.slots.status(), service.shadow_slots.status()
    for name, machine_class in service.classes.items():
        loaded, refusal = states.get(name, (None, None))
        rows.append(
            {
                "machine_class": name,
                "rung": service.ladder.rung(machine_class).value,
                "has_anomaly_model": loaded is not None and loaded.bundle.forest is not None,
                "version": loaded.version if loaded else None,
                "digest": loaded.digest if loaded else None,
                "loaded_at": loaded.loaded_at.isoformat() if loaded else None,
                "refused": _refusal(refusal),
                "shadow": None if name not in shadows else _shadow(*shadows[name]),
            }
        )
    return rows


def _shadow(loaded: Loaded | None, refusal: Refusal | None) -> dict[str, Any]:
    return {
        "version": loaded.version if loaded else None,
        "digest": loaded.digest if loaded else None,
        "refused": _refusal(refusal),
    }


def _refusal(refusal: Refusal | None) -> dict[str, Any] | None:
    if refusal is None:
        return None
    return {
        "version": refusal.version,
        "reason": refusal.reason,
        "refused_at": refusal.refused_at.isoformat(),
    }


@probes.get("/livez", summary="Is the process alive")
async def livez() -> Response:
    """200 as long as the event loop turns."""
    return as_json({"status": "alive"})


@probes.get("/readyz", summary="Can it answer", responses={503: {"description": "Not now; wait."}})
async def readyz(request: Request) -> Response:
    """200 when predictions can be answered and logged; Redis away is no reason to stop asking."""
    service = service_of(request)
    full = service.outbox.depth >= service.settings.api.outbox_capacity
    is_ready = service.healthy and not full
    return as_json({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)


@probes.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Exposition text."""
    return Response(service_of(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)
