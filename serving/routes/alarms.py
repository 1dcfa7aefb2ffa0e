"""/alarms: list, acknowledge, shelve, out of service, master database, journal and figures."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from aegisops.alarms.lifecycle import Alarm, IllegalTransition
from aegisops.tokens import Principal
from serving import alarm_journal
from serving.alarm_contract import (
    AcknowledgeRequest,
    AlarmDefinitionRow,
    AlarmKpi,
    AlarmList,
    AlarmQuery,
    AlarmRow,
    JournalPage,
    JournalQuery,
    OutOfServiceRequest,
    ShelveRequest,
    SpanQuery,
    VersionRequest,
)
from serving.alarms import Filters, StaleVersion, UnknownAlarm
from serving.auth import Operator, Viewer
from serving.problem import Problem
from serving.routes.http import as_json, body_of, documented_body, documented_errors, service_of
from serving.service import Service

LONGEST_SPAN = timedelta(days=92)

router = APIRouter(prefix="/alarms", tags=["alarms"])

_CHANGED = {
    200: {"model": AlarmRow},
    **documented_errors(
        "unknown-alarm", "stale-version", "invalid", "unavailable", "audit-unavailable"
    ),
}


@router.get(
    "",
    summary="Alarms that are not normal",
    responses={200: {"model": AlarmList}, **documented_errors("invalid", "unavailable")},
)
async def alarms(
    request: Request, principal: Viewer, asked: Annotated[AlarmQuery, Query()]
) -> Response:
    """Most urgent first, with the flood that may be on and the alarms grouped by cause.

    503 while the states are not known; an empty list means that there is no alarm.
    """
    filters = Filters(asked.kind, asked.state, asked.priority, asked.machine_id, asked.area)
    return as_json(await service_of(request).alarms.listing(principal.sees, filters))


@router.get(
    "/definitions",
    summary="The master alarm database",
    responses={200: {"model": list[AlarmDefinitionRow]}, **documented_errors()},
)
async def definitions(request: Request, _: Viewer) -> Response:
    """Every entry: what an alarm means, what to do about it, its setpoint, deadband and delays."""
    return as_json(service_of(request).alarms.definitions())


@router.get(
    "/journal",
    summary="Transitions, newest first",
    responses={200: {"model": JournalPage}, **documented_errors("invalid", "unavailable")},
)
async def journal(
    request: Request, principal: Viewer, asked: Annotated[JournalQuery, Query()]
) -> Response:
    """From the lake: a transition arrives there with the lake writer's next flush.

    `cursor` of a page gives the one after it.
    """
    service = service_of(request)
    begin, end, now = _span(service, asked)
    records, cursor = await service.lake_reads.run(
        lambda lake: alarm_journal.page(
            lake,
            begin=begin,
            end=end,
            machine_id=asked.machine_id,
            alarm_id=asked.alarm_id,
            cursor=asked.cursor,
            limit=asked.limit,
            places=_places(principal),
        )
    )
    rows = [alarm_journal.row(record) for record in records]
    return as_json({"records": rows, "cursor": cursor, "as_of": now})


@router.get(
    "/kpi",
    summary="Figures of the alarm system",
    responses={200: {"model": AlarmKpi}, **documented_errors("invalid", "unavailable")},
)
async def kpi(
    request: Request, principal: Viewer, asked: Annotated[SpanQuery, Query()]
) -> Response:
    """From the journal alone (ISA-18.2): rate, floods, most frequent, stale, chattering."""
    service = service_of(request)
    begin, end, _ = _span(service, asked)
    figures = await service.lake_reads.run(
        lambda lake: alarm_journal.figures(lake, begin, end, _places(principal))
    )
    return as_json({"begin": begin, "end": end, **figures})


def _span(service: Service, asked: SpanQuery) -> tuple[datetime, datetime, datetime]:
    """Begin, end and now; a day up to now when absent."""
    now = datetime.fromtimestamp(service.clock(), UTC)
    end = _aware(asked.end) or now
    begin = _aware(asked.begin) or end - timedelta(days=1)
    if begin >= end:
        raise Problem("invalid", "`from` must be before `to`.")
    if end - begin > LONGEST_SPAN:
        raise Problem("invalid", f"A span is {LONGEST_SPAN.days} days at most.")
    return begin, end, now


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _places(principal: Principal) -> alarm_journal.Places:
    sites, areas = principal.sites, principal.areas
    return (
        None if sites is None else sorted(sites),
        None if areas is None else sorted(areas),
    )


@router.post(
    "/{alarm_id}/acknowledge",
    summary="Acknowledge one alarm",
    responses=_CHANGED,
    openapi_extra=documented_body(AcknowledgeRequest),
)
async def acknowledge(alarm_id: str, request: Request, principal: Operator) -> Response:
    """One alarm at a time; the token's subject and the time are recorded."""
    asked = await body_of(request, AcknowledgeRequest)
    service = service_of(request)
    return await _answer(
        service,
        service.alarms.acknowledge(
            alarm_id, asked.version, principal.subject, principal.sees, asked.comment
        ),
    )


@router.post(
    "/{alarm_id}/shelve",
    summary="Set one alarm aside for some minutes",
    responses=_CHANGED,
    openapi_extra=documented_body(ShelveRequest),
)
async def shelve(alarm_id: str, request: Request, principal: Operator) -> Response:
    """With a reason; it comes back by itself, unacknowledged if it is still active."""
    asked = await body_of(request, ShelveRequest)
    service = service_of(request)
    return await _answer(
        service,
        service.alarms.shelve(
            alarm_id,
            asked.version,
            principal.subject,
            principal.sees,
            reason=asked.reason,
            minutes=asked.minutes,
        ),
    )


@router.post(
    "/{alarm_id}/unshelve",
    summary="Take one alarm from the shelf",
    responses=_CHANGED,
    openapi_extra=documented_body(VersionRequest),
)
async def unshelve(alarm_id: str, request: Request, principal: Operator) -> Response:
    """Before its time is over."""
    asked = await body_of(request, VersionRequest)
    service = service_of(request)
    return await _answer(
        service,
        service.alarms.unshelve(alarm_id, asked.version, principal.subject, principal.sees),
    )


@router.post(
    "/{alarm_id}/out-of-service",
    summary="Take one alarm out of use",
    responses=_CHANGED,
    openapi_extra=documented_body(OutOfServiceRequest),
)
async def out_of_service(alarm_id: str, request: Request, principal: Operator) -> Response:
    """With a reason, until somebody returns it to service."""
    asked = await body_of(request, OutOfServiceRequest)
    service = service_of(request)
    return await _answer(
        service,
        service.alarms.take_out_of_service(
            alarm_id, asked.version, principal.subject, principal.sees, asked.reason
        ),
    )


@router.post(
    "/{alarm_id}/return-to-service",
    summary="Put one alarm back into use",
    responses=_CHANGED,
    openapi_extra=documented_body(VersionRequest),
)
async def return_to_service(alarm_id: str, request: Request, principal: Operator) -> Response:
    """It is unacknowledged if its condition holds."""
    asked = await body_of(request, VersionRequest)
    service = service_of(request)
    return await _answer(
        service,
        service.alarms.return_to_service(
            alarm_id, asked.version, principal.subject, principal.sees
        ),
    )


async def _answer(service: Service, change: Awaitable[Alarm]) -> Response:
    try:
        return as_json(service.alarms.row(await change))
    except UnknownAlarm as error:
        raise Problem("unknown-alarm", str(error)) from None
    except StaleVersion as error:
        raise Problem("stale-version", str(error), current=error.current) from None
    except IllegalTransition as error:
        raise Problem("illegal-transition", str(error)) from None
