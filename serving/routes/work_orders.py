"""/work-orders: drafts from an alarm or a prediction, their export, and their outcome."""

from __future__ import annotations

import logging
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from aegisops.alarms.lifecycle import IllegalTransition
from aegisops.errors import ServiceUnavailable
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import Outcome
from aegisops.tokens import Principal
from aegisops.work_orders import Order
from serving.alarms import StaleVersion, UnknownAlarm
from serving.auth import Operator, Viewer
from serving.console_contract import (
    WorkOrder,
    WorkOrderOutcome,
    WorkOrderRequest,
    WorkOrders,
)
from serving.feedback import KeyReused as FeedbackKeyReused
from serving.prediction import iso
from serving.problem import Problem
from serving.routes.http import (
    as_json,
    body_of,
    documented_body,
    documented_errors,
    service_of,
    visible_machine,
)
from serving.service import Service
from serving.work_orders import KeyReused, UnknownWorkOrder, as_csv, shown

log = logging.getLogger(__name__)

router = APIRouter(prefix="/work-orders", tags=["work orders"])

_CHANGING = ("invalid", "idempotency-conflict", "unavailable", "audit-unavailable")


@router.post(
    "",
    summary="Draft a work order",
    status_code=201,
    responses={
        200: {"model": WorkOrder, "description": "It was drafted before with this key."},
        201: {"model": WorkOrder},
        **documented_errors("unknown-machine", "unknown-alarm", *_CHANGING),
    },
    openapi_extra=documented_body(WorkOrderRequest),
)
async def draft(request: Request, principal: Operator) -> Response:
    """Kept before this answers. The same key with the same draft gives the same order.

    With an alarm, its prediction is taken along, so that the outcome reaches the labels.
    """
    asked = await body_of(request, WorkOrderRequest)
    service = service_of(request)
    machine = await visible_machine(service, principal, asked.machine_id)
    prediction_id = asked.prediction_id
    if asked.alarm_id is not None:
        try:
            alarm = await service.alarms.find(asked.alarm_id, principal.sees)
        except UnknownAlarm as error:
            raise Problem("unknown-alarm", str(error)) from None
        if alarm.machine_id != machine.machine_id:
            raise Problem("invalid", "The alarm is of another machine.")
        prediction_id = prediction_id or alarm.prediction_id
    drafted: dict[str, Any] = {
        "machine_id": machine.machine_id,
        "site": machine.site,
        "area": machine.area,
        "alarm_id": asked.alarm_id,
        "prediction_id": prediction_id,
        "title": asked.title,
        "description": asked.description,
        "priority": asked.priority,
        "procedure": asked.procedure,
    }
    try:
        order, is_repeat = await service.work_orders.draft(
            drafted, asked.idempotency_key, principal.subject
        )
    except KeyReused as error:
        raise Problem("idempotency-conflict", str(error)) from None
    return as_json(shown(order), 200 if is_repeat else 201)


@router.get(
    "",
    summary="Work orders, newest first",
    responses={
        200: {"model": WorkOrders, "content": {"text/csv": {}}},
        **documented_errors("invalid", "unavailable"),
    },
)
async def work_orders(
    request: Request,
    principal: Viewer,
    *,
    state: Literal["draft", "closed"] | None = None,
    machine_id: Annotated[str | None, Query(max_length=200)] = None,
    format: Literal["json", "csv"] = "json",  # noqa: A002 - the parameter's name
) -> Response:
    """All of those, as JSON or as a CSV file."""
    service = service_of(request)
    found = [
        order
        for order in await service.work_orders.listing(principal.sees)
        if state in {None, order["state"]} and machine_id in {None, order["machine_id"]}
    ]
    if format == "csv":
        return _file(found, "work-orders")
    now = iso(round(service.clock() * US_PER_SECOND))
    return as_json({"work_orders": [shown(order) for order in found], "as_of": now})


@router.get(
    "/{work_order_id}",
    summary="One work order",
    responses={
        200: {"model": WorkOrder, "content": {"text/csv": {}}},
        **documented_errors("unknown-work-order", "invalid", "unavailable"),
    },
)
async def work_order(
    work_order_id: str,
    request: Request,
    principal: Viewer,
    *,
    format: Literal["json", "csv"] = "json",  # noqa: A002 - the parameter's name
) -> Response:
    """As JSON or as a CSV file."""
    order = await _found(service_of(request), principal, work_order_id)
    if format == "csv":
        return _file([order], order["work_order_id"])
    return as_json(shown(order))


@router.post(
    "/{work_order_id}/outcome",
    summary="Close a work order with what was found",
    responses={
        200: {"model": WorkOrder},
        **documented_errors("unknown-work-order", *_CHANGING),
    },
    openapi_extra=documented_body(WorkOrderOutcome),
)
async def outcome(work_order_id: str, request: Request, principal: Operator) -> Response:
    """The outcome becomes feedback about the prediction, and with it a label."""
    told = await body_of(request, WorkOrderOutcome)
    service = service_of(request)
    order = await _found(service, principal, work_order_id)
    machine = await visible_machine(service, principal, order["machine_id"])
    modes = service.reader.machine_class(machine).failure_modes
    if told.failure_mode is not None and told.failure_mode not in modes:
        raise Problem("invalid", f"failure_mode must be one of: {', '.join(modes) or 'none'}.")
    members = {
        "outcome": told.outcome.value,
        "failure_mode": told.failure_mode,
        "comment": told.comment,
    }
    try:
        closed = await service.work_orders.close(order, members, principal.subject)
        # After the order, under a key of its own: should this fail, asking again does it.
        await service.feedback.report(
            {
                "feedback_id": f"{order['work_order_id']}-outcome",
                "prediction_id": order["prediction_id"] or "",
                "machine_id": order["machine_id"],
                "ts": round(service.clock() * US_PER_SECOND),
                "outcome": told.outcome.value,
                "failure_mode": told.failure_mode,
                "subject": closed["closed_by"],
            },
            {"work_order_id": order["work_order_id"], **members},
            partial(_tell_alarm, service, principal, closed),
        )
    except (KeyReused, FeedbackKeyReused) as error:
        raise Problem("idempotency-conflict", str(error)) from None
    return as_json(shown(closed))


async def _found(service: Service, principal: Principal, work_order_id: str) -> Order:
    try:
        return await service.work_orders.find(work_order_id, principal.sees)
    except UnknownWorkOrder as error:
        raise Problem("unknown-work-order", str(error)) from None


async def _tell_alarm(service: Service, principal: Principal, order: Order) -> None:
    """Put the outcome beside the alarm too; that it moved on meanwhile does not stop the report."""
    if order["alarm_id"] is None:
        return
    try:
        alarm = await service.alarms.find(order["alarm_id"], principal.sees)
        await service.alarms.report_outcome(
            alarm.alarm_id,
            alarm.version,
            principal.subject,
            principal.sees,
            outcome=Outcome(order["outcome"]),
            feedback_id=f"{order['work_order_id']}-outcome",
        )
    except (UnknownAlarm, StaleVersion, IllegalTransition, ServiceUnavailable) as error:
        log.warning("%s: the alarm was not told: %s", order["work_order_id"], error)


def _file(orders: list[Order], name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    return Response(as_csv(orders), headers=headers, media_type="text/csv; charset=utf-8")
