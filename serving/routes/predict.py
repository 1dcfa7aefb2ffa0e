"""POST /predict and /predict/batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from aegisops.errors import AegisError, UnknownMachine
from aegisops.online_store import Machine
from aegisops.tokens import Principal
from serving.auth import Operator
from serving.contract import (
    LARGE,
    PREDICTION_EXAMPLE,
    BatchRequest,
    Prediction,
    PredictRequest,
    Unanswered,
)
from serving.features import At
from serving.problem import Problem, of
from serving.routes.http import (
    JSON,
    NDJSON,
    as_json,
    body_of,
    documented_body,
    documented_errors,
    service_of,
)
from serving.service import Service

router = APIRouter(tags=["predictions"])

PATH = "/predict"
FIRST, CHUNK = 16, 128
"""Machines judged together; few at first, so that the first row comes soon."""
AHEAD = 3
"""Chunks under way: trees of two run on other cores while the words of a third are put together."""
_ROWS = [{"$ref": f"#/components/schemas/{m.__name__}"} for m in (Prediction, Unanswered)]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@router.post(
    PATH,
    summary="Failure risk of one machine, explained",
    responses={
        200: {"model": Prediction, "content": {JSON: {"example": PREDICTION_EXAMPLE}}},
        **documented_errors("unknown-machine", "invalid", "audit-unavailable"),
    },
    openapi_extra=documented_body(PredictRequest),
)
async def predict(request: Request, principal: Operator) -> Response:
    """Calibrated probability of a failure within the machine class's horizon, with exact reasons.

    The answer names the rung that gave it (`served_by`). When the data does not carry an answer it
    abstains with the cause; no number is ever invented.
    """
    return await answer(request, principal)


async def answer(request: Request, principal: Principal) -> Response:
    """The response to one question of an operator."""
    asked = await body_of(request, PredictRequest)
    service = service_of(request)
    found = await service.predictions.predict(
        asked.machine_id,
        principal.subject,
        at=_at(asked.at),
        features=asked.features,
        may_see=lambda machine: principal.sees(machine.site, machine.area),
    )
    return as_json(found)


@router.post(
    "/predict/batch",
    summary="Failure risk of many machines",
    responses={
        200: {
            "model": list[Prediction | Unanswered],
            "description": "Answers in the order asked. An unknown machine's place holds "
            "`{machine_id, problem}`. NDJSON, one answer a line, when the Accept header asks for "
            f"it or from {LARGE} machines on.",
            "content": {NDJSON: {"schema": {"anyOf": _ROWS}}},
        },
        **documented_errors("invalid", "too-large", "audit-unavailable"),
    },
    openapi_extra=documented_body(BatchRequest),
)
async def predict_batch(request: Request, principal: Operator) -> Response:
    """The same answer for a list of machines or all that the token may see, streamed when large."""
    asked = await body_of(request, BatchRequest)
    if asked.all == (asked.machine_ids is not None):
        raise Problem("invalid", "Give either machine_ids or all: true.")
    service = service_of(request)
    if asked.machine_ids is not None:
        ids: Sequence[str] = asked.machine_ids
        found = await service.reader.registered(ids)
    else:
        fleet = await service.reader.machines()
        found = {
            m.machine_id: m
            for m in fleet
            if asked.machine_class in {None, m.machine_class} and principal.sees(m.site, m.area)
        }
        ids = list(found)
    visible = {i: m for i, m in found.items() if principal.sees(m.site, m.area)}
    rows = _answers(service, ids, visible, principal, asked.at)
    accept = request.headers.get("accept", "")
    if NDJSON in accept or (len(ids) >= LARGE and JSON not in accept):
        return StreamingResponse(_lines(rows), media_type=NDJSON)
    return as_json([row async for chunk in rows for row in chunk])


async def _answers(
    service: Service,
    ids: Sequence[str],
    machines: dict[str, Machine],
    principal: Principal,
    at: At,
) -> AsyncGenerator[list[dict[str, Any]], None]:
    async def answered(chunk: Sequence[str]) -> list[dict[str, Any]]:
        known = [machines[i] for i in chunk if i in machines]
        answers = iter(await service.predictions.predict_all(known, principal.subject, at))
        return [next(answers) if i in machines else _unknown(i) for i in chunk]

    chunks = (ids[a:b] for a, b in pairwise([0, *range(FIRST, len(ids), CHUNK), len(ids)]))
    under_way: deque[asyncio.Task[list[dict[str, Any]]]] = deque()
    try:
        for chunk in chunks:
            under_way.append(asyncio.create_task(answered(chunk)))
            if len(under_way) == AHEAD:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:  # the client left, or a chunk failed
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _lines(rows: AsyncGenerator[list[dict[str, Any]], None]) -> AsyncIterator[bytes]:
    try:
        async with aclosing(rows):
            async for chunk in rows:
                yield b"\n".join(map(orjson.dumps, chunk)) + b"\n"
    except AegisError as error:
        # The status line has gone out; the last line says why the stream ends early.
        yield orjson.dumps({"problem": of(error).document("/api/v1/predict/batch")}) + b"\n"


def _unknown(machine_id: str) -> dict[str, Any]:
    return {"machine_id": machine_id, "problem": of(UnknownMachine(machine_id)).document()}


def _at(asked: str | datetime) -> At:
    if isinstance(asked, datetime):
        utc = asked if asked.tzinfo else asked.replace(tzinfo=UTC)
        return (utc - _EPOCH) // timedelta(microseconds=1)
    return "latest" if asked == "latest" else "now"
