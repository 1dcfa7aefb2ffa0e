"""POST /feedback: what became of an alert."""

from __future__ import annotations

from datetime import UTC
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from aegisops.machines.model import US_PER_SECOND
from aegisops.tokens import Principal
from serving.alarms import StaleVersion, UnknownAlarm
from serving.auth import Operator
from serving.contract import FeedbackReceipt, FeedbackRequest
from serving.feedback import KeyReused
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

router = APIRouter(tags=["feedback"])


@router.post(
    "/feedback",
    summary="Report the outcome of an alert",
    status_code=202,
    responses={
        202: {"model": FeedbackReceipt},
        **documented_errors(
            "unknown-machine",
            "unknown-alarm",
            "invalid",
            "idempotency-conflict",
            "stale-version",
            "unavailable",
            "audit-unavailable",
        ),
    },
    openapi_extra=documented_body(FeedbackRequest),
)
async def report(request: Request, principal: Operator) -> Response:
    """Kept durably before this answers. The same key with the same report changes nothing."""
    told = await body_of(request, FeedbackRequest)
    service = service_of(request)
    machine = await visible_machine(service, principal, told.machine_id)
    modes = service.reader.machine_class(machine).failure_modes
    if told.failure_mode is not None and told.failure_mode not in modes:
        raise Problem("invalid", f"failure_mode must be one of: {', '.join(modes) or 'none'}.")
    if (told.alarm_id is None) != (told.version is None):
        raise Problem("invalid", "alarm_id and version belong together.")
    at = told.at.replace(tzinfo=told.at.tzinfo or UTC) if told.at else None
    seconds = at.timestamp() if at else service.clock()
    record = {
        "feedback_id": told.idempotency_key,
        "prediction_id": told.prediction_id,
        "machine_id": told.machine_id,
        "ts": round(seconds * US_PER_SECOND),
        "outcome": told.outcome.value,
        "failure_mode": told.failure_mode,
        "subject": principal.subject,
    }
    first = None
    if told.alarm_id is not None and told.version is not None:
        record["prediction_id"] = await _prediction_of(service, told, principal)
        first = partial(
            service.alarms.report_outcome,
            told.alarm_id,
            told.version,
            principal.subject,
            principal.sees,
            outcome=told.outcome,
            feedback_id=told.idempotency_key,
        )
    asked = {"subject": principal.subject, **told.model_dump(mode="json")}
    try:
        is_repeat = await service.feedback.report(record, asked, first)
    except KeyReused as error:
        raise Problem("idempotency-conflict", str(error)) from None
    except StaleVersion as error:
        raise Problem("stale-version", str(error), current=error.current) from None
    return as_json({"feedback_id": told.idempotency_key, "is_repeat": is_repeat}, 202)


async def _prediction_of(service: Service, told: FeedbackRequest, principal: Principal) -> str:
    """The prediction of the alarm that is reported on, unless another one is named."""
    try:
        alarm = await service.alarms.find(told.alarm_id or "", principal.sees)
    except UnknownAlarm as error:
        raise Problem("unknown-alarm", str(error)) from None
    if alarm.machine_id != told.machine_id:
        raise Problem("invalid", f"alarm {alarm.alarm_id} is not one of {told.machine_id}.")
    return told.prediction_id or alarm.prediction_id or ""
