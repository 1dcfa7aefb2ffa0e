"""GET /machines, /sites and /health/{machine_id}: what there is and how it does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from aegisops.errors import ServiceUnavailable
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import RiskLevel
from aegisops.online_store import FeatureVector, Machine
from aegisops.tokens import Principal
from serving import fleet, health
from serving.auth import Viewer
from serving.console_contract import FleetPage, MachineDetail, Sites
from serving.contract import Health
from serving.prediction import data_quality, iso
from serving.routes.http import as_json, documented_errors, service_of, visible_machine
from serving.service import Service

router = APIRouter(tags=["machines"])

MOST = 1_000
"""Machines in one page."""

Word = Annotated[str | None, Query(max_length=200)]


@router.get(
    "/machines",
    summary="The fleet: risk, health, data and owner of each machine",
    responses={200: {"model": FleetPage}, **documented_errors("invalid")},
)
async def machines(
    request: Request,
    principal: Viewer,
    *,
    site: Word = None,
    area: Word = None,
    machine_class: Word = None,
    owner: Word = None,
    risk: RiskLevel | None = None,
    q: Annotated[str | None, Query(max_length=200, description="Part of the id.")] = None,
    abnormal: Annotated[bool | None, Query(description="Only (or no) abnormal ones.")] = None,
    sort: Literal["risk", "machine_id"] = "risk",
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 200,
) -> Response:
    """One call draws the page. Rows are the last answers anyone got, with their age.

    Nothing is predicted by looking: the alarm engine asks at an interval, and people ask.
    """
    service = service_of(request)
    mine = await _visible(service, principal)
    rows, notice = await _rows(service)
    wanted = fleet.Wanted(site, area, machine_class, owner, risk, q, abnormal)
    found = fleet.chosen(mine, rows, wanted, sort)
    page = found[offset : offset + limit]
    now = service.clock()
    entries, missing = await _entries(service, page, rows, now)
    return as_json(
        {
            "machines": entries,
            "total": len(found),
            "offset": offset,
            "counts": fleet.counts(found, rows),
            "notice": missing or notice,
            "as_of": iso(round(now * US_PER_SECOND)),
        }
    )


@router.get(
    "/machines/{machine_id}",
    summary="One machine: its row of the fleet page and its sensors",
    responses={200: {"model": MachineDetail}, **documented_errors("unknown-machine", "invalid")},
)
async def machine(machine_id: str, request: Request, principal: Viewer) -> Response:
    """What the fleet page shows of it, its attributes, sensors and last maintenance."""
    service = service_of(request)
    found = await visible_machine(service, principal, machine_id)
    machine_class = service.reader.machine_class(found)
    now = service.clock()
    rows, _ = await _rows(service)
    entries, _ = await _entries(service, [found], rows, now)
    vector = await service.reader.vector(found, "latest")
    maintained = health.last_maintenance(machine_class, vector)
    return as_json(
        entries[0]
        | {
            "attributes": dict(found.attributes),
            "sensors": health.sensors(machine_class, vector),
            "last_maintenance_at": None if maintained is None else iso(maintained),
            "as_of": iso(round(now * US_PER_SECOND)),
        }
    )


@router.get(
    "/sites",
    summary="Sites and areas the token may see",
    responses={200: {"model": Sites}, **documented_errors()},
)
async def sites(request: Request, principal: Viewer) -> Response:
    """With the number of machines, their risk levels and owners."""
    service = service_of(request)
    mine = await _visible(service, principal)
    rows, _ = await _rows(service)

    def area_of(name: str, members: list[Machine]) -> dict[str, Any]:
        return {
            "area": name,
            "machines": len(members),
            "counts": fleet.counts(members, rows),
            "owners": _owners(members),
        }

    mine.sort(key=lambda m: (m.site, m.area))
    found = []
    for site, in_site in groupby(mine, key=lambda m: m.site):
        areas = [
            area_of(name, list(members)) for name, members in groupby(in_site, lambda m: m.area)
        ]
        total = sum(a["machines"] for a in areas)
        found.append({"site": site, "machines": total, "areas": areas})
    return as_json(
        {
            "sites": found,
            "machine_classes": sorted({m.machine_class for m in mine}),
            "owners": _owners(mine),
            "as_of": iso(round(service.clock() * US_PER_SECOND)),
        }
    )


async def _visible(service: Service, principal: Principal) -> list[Machine]:
    return [m for m in await service.reader.machines() if principal.sees(m.site, m.area)]


async def _rows(service: Service) -> tuple[dict[str, fleet.Row], str | None]:
    """Last answers, or none and why."""
    try:
        return dict(await service.latest.rows()), None
    except ServiceUnavailable as error:
        return {}, str(error)


async def _entries(
    service: Service, page: Sequence[Machine], rows: dict[str, fleet.Row], now: float
) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of the page, and why something of them is missing."""
    features: dict[str, FeatureVector] = {}
    missing = None
    try:
        features = await service.store.features_of([m.machine_id for m in page])
    except ServiceUnavailable as error:
        missing = str(error)
    drawn = {name: _bars(service, name) for name in {m.machine_class for m in page}}
    entries = []
    for m in page:
        machine_class, found = service.reader.machine_class(m), features.get(m.machine_id)
        if found is not None and found.feature_set != machine_class.feature_set:
            found = None
        entries.append(
            fleet.entry(
                m,
                machine_class=machine_class,
                row=rows.get(m.machine_id),
                features=found,
                drawn=drawn[m.machine_class],
                now=now,
            )
        )
    return entries, missing


def _bars(service: Service, name: str) -> list[fleet.Bar]:
    machine_class, loaded = service.classes[name], service.slots.get(name)
    usable = loaded is not None and loaded.bundle.feature_set == machine_class.feature_set
    return fleet.bars(machine_class, loaded.bundle.normals if loaded and usable else {})


def _owners(members: list[Machine]) -> list[str]:
    return sorted({owner for m in members if (owner := fleet.owner_of(m)) is not None})


@router.get(
    "/health/{machine_id}",
    summary="Health score of one machine and its parts",
    responses={200: {"model": Health}, **documented_errors("unknown-machine", "invalid")},
)
async def machine_health(machine_id: str, request: Request, principal: Viewer) -> Response:
    """0 (failing) to 100 (sound): the worst of its parts. Null when nothing is known, with why."""
    service = service_of(request)
    machine = await visible_machine(service, principal, machine_id)
    machine_class = service.reader.machine_class(machine)
    vector = await service.reader.vector(machine)
    judgement = service.predictions.judge(machine, vector)
    parts = health.parts(machine_class, vector, judgement)
    maintained = health.last_maintenance(machine_class, vector)
    return as_json(
        {
            "machine_id": machine.machine_id,
            "machine_class": machine_class.name,
            "site": machine.site,
            "area": machine.area,
            "score": health.score_of(parts),
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
