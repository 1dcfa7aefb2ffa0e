"""POST /feedback: what became of an alert."""

from __future__ import annotations

from datetime import UTC

from fastapi import APIRouter, Request
from starlette.responses import Response

from aegisops.machines.model import US_PER_SECOND
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

router = APIRouter(tags=["feedback"])


@router.post(
    "/feedback",
    summary="Report the outcome of an alert",
    status_code=202,
    responses={
        202: {"model": FeedbackReceipt},
        **documented_errors(
            "unknown-machine", "invalid", "idempotency-conflict", "audit-unavailable"
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
    at = told.at.replace(tzinfo=told.at.tzinfo or UTC) if told.at else None
    seconds = at.timestamp() if at else service.clock()
    try:
        is_repeat = service.feedback.report(
            {
                "feedback_id": told.idempotency_key,
                "prediction_id": told.prediction_id,
                "machine_id": told.machine_id,
                "ts": round(seconds * US_PER_SECOND),
                "outcome": told.outcome.value,
                "failure_mode": told.failure_mode,
                "subject": principal.subject,
            }
        )
    except KeyReused as error:
        raise Problem("idempotency-conflict", str(error)) from None
    return as_json({"feedback_id": told.idempotency_key, "is_repeat": is_repeat}, 202)
