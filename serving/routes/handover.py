"""GET /handover: what the next shift must know."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from aegisops.errors import ServiceUnavailable
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import AlarmKind
from serving import fleet, history, models
from serving.alarms import Filters
from serving.auth import Viewer
from serving.console_contract import Handover
from serving.contract import Moment
from serving.prediction import iso
from serving.routes.http import as_json, documented_errors, service_of

router = APIRouter(tags=["handover"])

SHIFT_SECONDS = 8 * 3_600.0


@router.get(
    "/handover",
    summary="Shift handover: new, standing, shelved, out of service, open, changed",
    responses={200: {"model": Handover}, **documented_errors("invalid")},
)
async def handover(
    request: Request,
    principal: Viewer,
    *,
    since: Annotated[Moment | None, Query(description="Eight hours ago when absent.")] = None,
) -> Response:
    """Of the machines the token may see. A part that cannot be told is empty and in `notices`."""
    service = service_of(request)
    now = service.clock()
    begin, end = history.micros(since, None, now, SHIFT_SECONDS)
    notices: list[str] = []
    alarms: list[dict[str, Any]] = []
    orders: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    rows: dict[str, fleet.Row] = {}
    try:
        alarms = (await service.alarms.listing(principal.sees, Filters(kind=None)))["alarms"]
    except ServiceUnavailable as error:
        notices.append(f"alarms: {error}")
    try:
        orders = [
            {name: value for name, value in order.items() if name != "mark"}
            for order in await service.work_orders.listing(principal.sees)
            if order["state"] != "closed"
        ]
    except ServiceUnavailable as error:
        notices.append(f"work orders: {error}")
    try:
        moment = datetime.fromtimestamp(begin / US_PER_SECOND, UTC)
        changes = await service.lake_reads.run(lambda lake: models.decisions(lake, since=moment))
    except ServiceUnavailable as error:
        notices.append(f"models: {error}")
    try:
        rows = dict(await service.latest.rows())
    except ServiceUnavailable as error:
        notices.append(f"machines: {error}")
    mine = [m for m in await service.reader.machines() if principal.sees(m.site, m.area)]
    abnormal = fleet.chosen(mine, rows, fleet.Wanted(abnormal=True))
    start = iso(begin)
    by_state = {s: [a for a in alarms if a["state"] == s] for s in ("shelved", "out_of_service")}
    open_alarms = [a for a in alarms if a["state"] not in by_state]
    real = [a for a in open_alarms if a["kind"] == AlarmKind.ALARM]
    return as_json(
        {
            "since": start,
            "until": iso(end),
            "new_alarms": [a for a in real if (a["raised_at"] or "") >= start],
            "standing_alarms": [a for a in real if (a["raised_at"] or "") < start],
            "advisories": [a for a in open_alarms if a["kind"] != AlarmKind.ALARM],
            **by_state,
            "work_orders": orders,
            "model_changes": changes,
            "abnormal_machines": [
                {
                    "machine_id": m.machine_id,
                    "site": m.site,
                    "area": m.area,
                    "owner": fleet.owner_of(m),
                    "risk": rows[m.machine_id]["risk"],
                    "since": iso(rows[m.machine_id]["abnormal_since"]),
                    "explanation": rows[m.machine_id]["explanation"],
                }
                for m in abnormal
            ],
            "notices": notices,
            "as_of": iso(round(now * US_PER_SECOND)),
        }
    )
