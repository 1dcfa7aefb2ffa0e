"""RFC 9457 problem+json: the one shape of every error answer, and the list of all of them.

Errors of the product are translated here and nowhere else. A problem's `type` is a stable path
that the API itself answers with the meaning and the way out; a stack trace never leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from aegisops.alarms.lifecycle import IllegalTransition
from aegisops.errors import AegisError, Permanent, Retryable, UnknownMachine
from serving.outbox import OutboxFull

MEDIA_TYPE = "application/problem+json"
BASE = "/api/problems/"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: HTTP status, title, and what the caller should do."""

    status: int
    title: str
    remedy: str


KINDS: dict[str, Kind] = {
    "malformed-request": Kind(400, "Malformed request", "Send well-formed HTTP and JSON."),
    "unauthenticated": Kind(
        401, "Authentication needed", "Send `Authorization: Bearer <token>` with a valid token."
    ),
    "forbidden": Kind(403, "Role not sufficient", "Ask for a token with the role named in detail."),
    "not-found": Kind(404, "No such resource", "Check the path against /openapi.json."),
    "unknown-machine": Kind(
        404, "Unknown machine", "Check the id; GET /api/v1/machines lists those you may see."
    ),
    "unknown-alarm": Kind(404, "Unknown alarm", "GET /api/v1/alarms lists the alarms you may see."),
    "unknown-prediction": Kind(
        404, "Unknown prediction", "Check the id; a machine's are at /machines/{id}/predictions."
    ),
    "unknown-class": Kind(
        404, "Unknown machine class", "Check the name; GET /api/v1/machine-classes lists them."
    ),
    "unknown-work-order": Kind(
        404, "Unknown work order", "Check the id; GET /api/v1/work-orders lists them."
    ),
    "method-not-allowed": Kind(405, "Method not allowed", "Check the path against /openapi.json."),
    "idempotency-conflict": Kind(
        409, "Idempotency key used before", "Use a new key for a different report."
    ),
    "stale-version": Kind(
        409, "Changed by somebody else", "Look at `current`, decide anew, send its version."
    ),
    "illegal-transition": Kind(
        409, "Not possible in this state", "Look at `current`: its state does not allow that."
    ),
    "too-large": Kind(413, "Body too large", "Send fewer machines in one request."),
    "invalid": Kind(422, "Request does not fit the contract", "Correct the fields in `errors`."),
    "overloaded": Kind(
        429, "Too many requests at once", "Wait for Retry-After seconds, then retry."
    ),
    "rate-limited": Kind(
        429, "Too many requests of one subject", "Wait for Retry-After seconds, then send fewer."
    ),
    "request-timeout": Kind(408, "Body too slow", "Send the whole body without a pause."),
    "internal": Kind(500, "Internal error", "Report the time and path; the cause is in the log."),
    "unavailable": Kind(503, "A dependency is away", "Retry after a pause."),
    "audit-unavailable": Kind(
        503, "Predictions cannot be logged", "Retry later; nothing is predicted unlogged."
    ),
}


class Problem(Exception):
    """An error answer. `name` is a key of KINDS; `extra` are further members of the document."""

    def __init__(
        self,
        name: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **extra: Any,  # noqa: ANN401 - JSON members
    ) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra

    def document(self, instance: str = "") -> dict[str, Any]:
        """The JSON members."""
        kind = KINDS[self.name]
        body: dict[str, Any] = {
            "type": BASE + self.name,
            "title": kind.title,
            "status": kind.status,
            "detail": self.detail,
        }
        if instance:
            body["instance"] = instance
        return body | self.extra

    def response(self, instance: str = "") -> Response:
        """The HTTP answer."""
        return Response(
            orjson.dumps(self.document(instance)),
            status_code=KINDS[self.name].status,
            media_type=MEDIA_TYPE,
            headers=self.headers,
        )


def of(error: Exception) -> Problem:  # noqa: PLR0911 - a table of error kinds
    """The problem that tells the caller about `error`; unknown errors say nothing of themselves."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, UnknownMachine):
        return Problem("unknown-machine", str(error), machine_id=error.machine_id)
    if isinstance(error, RequestValidationError | ValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _http(error)
    if isinstance(error, IllegalTransition):
        return Problem("illegal-transition", str(error))
    if isinstance(error, OutboxFull):
        return Problem("audit-unavailable", str(error), {"Retry-After": "5"})
    if isinstance(error, Retryable):
        return Problem("unavailable", str(error), {"Retry-After": "2"})
    if isinstance(error, Permanent):
        return Problem("invalid", str(error))
    return Problem("internal", "The request could not be answered.")


def _invalid(error: RequestValidationError | ValidationError) -> Problem:
    found = [
        {
            "field": ".".join(str(part) for part in e["loc"] if part != "body") or "body",
            "problem": str(e["msg"]).removeprefix("Value error, "),
        }
        for e in error.errors()[:20]
    ]
    detail = "; ".join(f"{e['field']}: {e['problem']}" for e in found[:3])
    return Problem("invalid", detail, errors=found)


def _http(error: HTTPException) -> Problem:
    name = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(
        error.status_code,
        "malformed-request" if error.status_code < 500 else "unavailable",  # noqa: PLR2004
    )
    return Problem(name, str(error.detail), error.headers)


def response(request: Request, error: Exception) -> Response:
    """The HTTP answer to a request that failed; what nobody expected is logged with its trace."""
    problem = of(error)
    if problem.name == "internal":
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem.response(request.url.path)


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""

    async def answer(request: Request, error: Exception) -> Response:
        return response(request, error)

    for kind in (
        Problem,
        AegisError,
        RequestValidationError,
        ValidationError,
        HTTPException,
        Exception,
    ):
        app.add_exception_handler(kind, answer)
