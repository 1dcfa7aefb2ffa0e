"""/models: which models answer, what was decided about them, how the data drifted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_SECOND
from aegisops.tickets import SECONDS
from serving import models
from serving.auth import Viewer
from serving.console_contract import Drift, Models, ReportTicket
from serving.evidence import iso_of
from serving.prediction import iso
from serving.problem import Problem
from serving.routes.http import as_json, documented_errors, service_of
from serving.service import Service

if TYPE_CHECKING:
    from aegisops.lake import Lake

router = APIRouter(prefix="/models", tags=["models"])

REPORT = "/api/v1/models/{machine_class}/drift/report"
REPORT_POLICY = (
    # Evidently's page is one file with its script and style inside. It gets an origin of its own,
    # where there is nothing to read, and nowhere to send it.
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)


@router.get(
    "",
    summary="Models of each class: production, shadow, candidate, decisions",
    responses={200: {"model": Models}, **documented_errors("unavailable")},
)
async def every_model(request: Request, _: Viewer) -> Response:
    """What the API has loaded, what waits, and how the shadow compares over two weeks."""
    service = service_of(request)
    found = await service.lake_reads.run(
        lambda lake: [_model(service, lake, c) for c in service.classes.values()]
    )
    now = iso(round(service.clock() * US_PER_SECOND))
    return as_json({"models": found, "as_of": now})


def _model(service: Service, lake: Lake, machine_class: MachineClass) -> dict[str, Any]:
    name, bundles = machine_class.name, service.settings.bundles_dir
    history = models.decisions(lake, name)
    loaded, refusal = service.slots.status().get(name, (None, None))
    shadow, _ = service.shadow_slots.status().get(name, (None, None))
    in_use = {m.version for m in (loaded, shadow) if m is not None}
    waiting = models.candidate(bundles, name, in_use)

    def told(version: str, digest: str | None) -> dict[str, Any]:
        return models.about(bundles, name, version, history) | {"digest": digest}

    return {
        "machine_class": name,
        "title": machine_class.title,
        "rung": service.ladder.rung(machine_class).value,
        "production": None if loaded is None else told(loaded.version, loaded.digest),
        "refused": None
        if refusal is None
        else {"version": refusal.version, "reason": refusal.reason},
        "shadow": None if shadow is None else told(shadow.version, shadow.digest),
        "candidate": None if waiting is None else told(waiting, None),
        "shadow_comparison": None
        if shadow is None
        else models.shadow_comparison(lake, machine_class, shadow.digest, shadow.bundle.risk),
        "history": history,
    }


@router.get(
    "/{machine_class}/drift",
    summary="The class's newest drift report",
    responses={200: {"model": Drift}, **documented_errors("unknown-class", "unavailable")},
)
async def drift(machine_class: str, request: Request, principal: Viewer) -> Response:
    """Index, threshold and verdict of each input; machines outside the token's scope left out."""
    service = service_of(request)
    _check(service, machine_class)
    fleet = await service.reader.machines()
    mine = {m.machine_id for m in fleet if principal.sees(m.site, m.area)}
    rows = await service.lake_reads.run(
        lambda lake: models.drift(lake, machine_class, mine.__contains__)
    )
    first = rows[0] if rows else {}
    page = rows and models.report_page(
        service.settings.drift_reports_dir, machine_class, first["report"]
    )
    return as_json(
        {
            "machine_class": machine_class,
            **{n: first.get(n) for n in ("checked_at", "current_from", "current_until")},
            "is_drifting": any(row["drifted"] for row in rows),
            "features": rows,
            "has_report": bool(page),
            "as_of": iso(round(service.clock() * US_PER_SECOND)),
        }
    )


@router.post(
    "/{machine_class}/drift/report-ticket",
    summary="An address of the drift report's page for a frame",
    responses={
        200: {"model": ReportTicket},
        **documented_errors("unknown-class", "not-found", "unavailable"),
    },
)
async def report_ticket(machine_class: str, request: Request, principal: Viewer) -> Response:
    """Good for a minute. Put it into `<iframe sandbox="allow-scripts">`.

    The page shows the whole fleet of the class, so a token with a scope does not get it.
    """
    service = service_of(request)
    _check(service, machine_class)
    if principal.sites is not None or principal.areas is not None:
        raise Problem("forbidden", "The page shows every site; your token sees only some of them.")
    rows = await service.lake_reads.run(
        lambda lake: models.drift(lake, machine_class, lambda _: True)
    )
    report = rows[0]["report"] if rows else ""
    if not rows or not models.report_page(
        service.settings.drift_reports_dir, machine_class, report
    ):
        raise Problem("not-found", f"There is no drift report of {machine_class} with a page.")
    ticket = await service.tickets.issue(f"{machine_class}/{report}")
    until = datetime.fromtimestamp(service.clock() + SECONDS, UTC)
    address = REPORT.format(machine_class=quote(machine_class))
    return as_json({"url": f"{address}?ticket={ticket}", "expires_at": iso_of(until)})


@router.get("/{machine_class}/drift/report", include_in_schema=False)
async def report(
    machine_class: str, request: Request, ticket: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """The page, for who brings a ticket."""
    service = service_of(request)
    content = await service.tickets.content(ticket)
    found, _, name = (content or "").partition("/")
    path = models.report_page(service.settings.drift_reports_dir, machine_class, name)
    if content is None or found != machine_class or path is None:
        raise Problem("not-found", "The ticket is unknown or too old; ask for a new one.")
    return FileResponse(
        path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY}
    )


def _check(service: Service, machine_class: str) -> None:
    if machine_class not in service.classes:
        raise Problem("unknown-class", f"There is no machine class {machine_class[:100]!r}.")
