"""GET /machines and /health/{machine_id}: what there is and how it does."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from aegisops.errors import UnknownMachine
from serving import health
from serving.auth import Viewer
from serving.contract import Health, MachineInfo
from serving.prediction import data_quality, iso
from serving.routes.http import as_json, documented_errors, service_of

router = APIRouter(tags=["machines"])


@router.get(
    "/machines",
    summary="Machines the token may see",
    responses={200: {"model": list[MachineInfo]}, **documented_errors()},
)
async def machines(request: Request, principal: Viewer) -> Response:
    """Ids with class, site and area, sorted by id."""
    fleet = await service_of(request).reader.machines()
    return as_json(
        [
            {
                "machine_id": m.machine_id,
                "machine_class": m.machine_class,
                "site": m.site,
                "area": m.area,
            }
            for m in fleet
            if principal.sees(m.site, m.area)
        ]
    )


@router.get(
    "/health/{machine_id}",
    summary="Health score of one machine and its parts",
    responses={200: {"model": Health}, **documented_errors("unknown-machine", "invalid")},
)
async def machine_health(machine_id: str, request: Request, principal: Viewer) -> Response:
    """0 (failing) to 100 (sound): the worst of its parts. Null when nothing is known, with why."""
    service = service_of(request)
    machine = await service.reader.machine(machine_id)
    if not principal.sees(machine.site, machine.area):
        raise UnknownMachine(machine_id)
    machine_class = service.reader.machine_class(machine)
    vector = await service.reader.vector(machine)
    judgement = service.predictions.judge(machine, vector)
    parts = health.parts(machine_class, vector, judgement)
    scores = [part["score"] for part in parts if part["score"] is not None]
    maintained = health.last_maintenance(machine_class, vector)
    return as_json(
        {
            "machine_id": machine.machine_id,
            "machine_class": machine_class.name,
            "site": machine.site,
            "area": machine.area,
            "score": round(min(scores), 1) if scores else None,
            "risk": judgement.risk.value,
            "served_by": judgement.rung.value,
            "parts": parts,
            "explanation": judgement.explanation,
            "last_maintenance_at": None if maintained is None else iso(maintained),
            "data_quality": data_quality(machine_class, vector, judgement),
            "sensors": health.sensors(machine_class, vector),
            "features_at": None if vector.at is None else iso(vector.at),
        }
    )
