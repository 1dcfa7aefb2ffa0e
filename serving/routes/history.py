"""GET /machines/{machine_id}/history and /events: what charts are drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from aegisops.machines.model import US_PER_SECOND
from serving import history
from serving.auth import Viewer
from serving.console_contract import History, MachineEvents
from serving.contract import Moment
from serving.prediction import iso
from serving.routes.http import as_json, documented_errors, service_of, visible_machine

if TYPE_CHECKING:
    import polars as pl

    from aegisops.lake import Lake

router = APIRouter(tags=["machines"])

MOST_POINTS = 4_000
MOST_EVENTS = 2_000
HOUR, DAYS_90 = 3_600.0, 90 * 86_400.0
REVALIDATE = {"Cache-Control": "private, no-cache", "Vary": "Authorization"}
"""A cache may keep the answer but must ask, with the asker's own token, whether it still holds."""

Name = Annotated[str | None, Query(max_length=200)]
From = Annotated[Moment | None, Query(alias="from", description="Without offset: UTC.")]
To = Annotated[Moment | None, Query(alias="to", description="Now when absent.")]


@router.get(
    "/machines/{machine_id}/history",
    summary="One channel, feature or risk over time, in buckets",
    responses={
        200: {"model": History},
        304: {"description": "What `If-None-Match` names still holds."},
        **documented_errors("unknown-machine", "invalid", "unavailable"),
    },
)
async def series(
    machine_id: str,
    request: Request,
    principal: Viewer,
    *,
    channel: Name = None,
    feature: Name = None,
    risk: bool = False,
    begin: From = None,
    end: To = None,
    points: Annotated[int, Query(ge=10, le=MOST_POINTS)] = 600,
) -> Response:
    """The last hour by default; a year costs about as much as an hour.

    Buckets have round widths and lie on round times, so that panning asks for the same ones again.
    """
    from aegisops import history as lake_history

    service = service_of(request)
    machine = await visible_machine(service, principal, machine_id)
    machine_class = service.reader.machine_class(machine)
    wanted = history.series_of(
        machine_class, machine.machine_id, channel=channel, feature=feature, risk=risk
    )
    now = service.clock()
    over = lake_history.span(*history.micros(begin, end, now, HOUR), points, wanted.period)
    known = request.headers.get("if-none-match")

    def read(lake: Lake) -> tuple[str, pl.DataFrame | None]:
        versions = {t.name: lake.version(t) for t in lake_history.sources(wanted)}
        tag = history.etag(wanted, over, versions)
        return tag, None if tag == known else lake_history.read(lake, wanted, over)

    tag, found = await service.lake_reads.run(read)
    headers = {**REVALIDATE, "ETag": tag}
    if found is None:
        return Response(status_code=304, headers=headers)
    loaded = service.slots.get(machine_class.name)
    normals = {} if loaded is None else loaded.bundle.normals
    response = as_json(history.answer(wanted, over, found, normals, now))
    response.headers.update(headers)
    return response


@router.get(
    "/machines/{machine_id}/events",
    summary="Maintenance, failures, errors and feedback of a machine",
    responses={
        200: {"model": MachineEvents},
        **documented_errors("unknown-machine", "invalid", "unavailable"),
    },
)
async def events(
    machine_id: str,
    request: Request,
    principal: Viewer,
    *,
    begin: From = None,
    end: To = None,
) -> Response:
    """The last 90 days by default; for the same time axis as the charts."""
    from aegisops import history as lake_history

    service = service_of(request)
    machine = await visible_machine(service, principal, machine_id)
    now = service.clock()
    since, until = history.micros(begin, end, now, DAYS_90)
    found = await service.lake_reads.run(
        lambda lake: lake_history.events(lake, machine.machine_id, since, until)
    )
    rows = found.tail(MOST_EVENTS).iter_rows(named=True)
    return as_json(
        {
            "machine_id": machine.machine_id,
            "from": iso(since),
            "to": iso(until),
            "events": [{"at": iso(row.pop("ts")), **row} for row in rows],
            "is_truncated": found.height > MOST_EVENTS,
            "as_of": iso(round(now * US_PER_SECOND)),
        }
    )
