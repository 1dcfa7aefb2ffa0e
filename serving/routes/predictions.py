"""/predictions/{id}, its replay, and /machines/{id}/predictions: what was answered, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from aegisops.errors import Permanent, UnknownMachine
from aegisops.machines.model import US_PER_SECOND
from aegisops.tokens import Principal
from serving import history
from serving.auth import Viewer
from serving.console_contract import Evidence, MachinePredictions, Replay
from serving.evidence import Records, predictions_of
from serving.prediction import Answer, iso
from serving.problem import Problem
from serving.routes.history import HOUR, From, To
from serving.routes.http import as_json, documented_errors, service_of, visible_machine
from serving.service import Service

if TYPE_CHECKING:
    from aegisops.lake import Lake

router = APIRouter(tags=["predictions"])

MOST = 1_000
_ERRORS = documented_errors("unknown-prediction", "unavailable")


@router.get(
    "/predictions/{prediction_id}",
    summary="The evidence of one prediction",
    responses={200: {"model": Evidence}, **_ERRORS},
)
async def evidence(prediction_id: str, request: Request, principal: Viewer) -> Response:
    """What was answered and to whom, on which data and model, and what each input contributed.

    A prediction of the last seconds is told from the answer; its record is on the way to the log.
    """
    service = service_of(request)
    records = Records.of(service.settings, service.classes)
    found = await _record(service, principal, prediction_id)
    if found is None:
        answer = await _recent(service, principal, prediction_id)
        return as_json(_from_answer(answer))
    told = await service.lake_reads.run(lambda lake: records.evidence(lake, found))
    return as_json({**told, "is_logged": True})


@router.post(
    "/predictions/{prediction_id}/replay",
    summary="Compute a logged prediction again",
    responses={200: {"model": Replay}, **_ERRORS},
)
async def replay(prediction_id: str, request: Request, principal: Viewer) -> Response:
    """From the logged vector and the signed bundle it names; the probability bit for bit.

    `detail` says why it cannot be computed again; that is no error of the question.
    """
    service = service_of(request)
    records = Records.of(service.settings, service.classes)
    found = await _record(service, principal, prediction_id)
    if found is None:
        await _recent(service, principal, prediction_id)
        raise Problem("unavailable", "The record is not in the log yet.", {"Retry-After": "5"})

    def run(_: Lake) -> dict[str, Any]:
        head = {
            "prediction_id": prediction_id,
            "served_by": found["served_by"],
            "model_version": found["model_version"],
            "model_digest": found["model_digest"],
        }
        try:
            again = records.replay(found)
        except Permanent as error:
            nothing = {"is_equal": None, "is_record_intact": None, "logged": None}
            more: dict[str, Any] = {"computed": None, "differences": [], "explanation": None}
            return head | nothing | more | {"detail": str(error)}
        told = asdict(again)
        names = ("is_record_intact", "logged", "computed", "differences", "explanation")
        return head | {n: told[n] for n in names} | {"is_equal": again.is_equal, "detail": None}

    return as_json(await service.lake_reads.run(run))


@router.get(
    "/machines/{machine_id}/predictions",
    summary="A machine's last predictions",
    responses={
        200: {"model": MachinePredictions},
        **documented_errors("unknown-machine", "invalid", "unavailable"),
    },
)
async def of_machine(
    machine_id: str,
    request: Request,
    principal: Viewer,
    *,
    begin: From = None,
    end: To = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> Response:
    """Newest first, with what became of them; the last day by default."""
    service = service_of(request)
    machine = await visible_machine(service, principal, machine_id)
    now = service.clock()
    since, until = history.micros(begin, end, now, 24 * HOUR)
    found = await service.lake_reads.run(
        lambda lake: predictions_of(lake, machine.machine_id, since, until, limit)
    )
    return as_json(
        {
            "machine_id": machine.machine_id,
            "from": iso(since),
            "to": iso(until),
            "predictions": found,
            "as_of": iso(round(now * US_PER_SECOND)),
        }
    )


async def _record(
    service: Service, principal: Principal, prediction_id: str
) -> dict[str, Any] | None:
    """The record, if it is in the log and of a machine that the token may see."""
    from aegisops import audit_log

    def read(lake: Lake) -> dict[str, Any] | None:
        try:
            return audit_log.record(lake, prediction_id)
        except audit_log.UnknownPrediction:
            return None

    found = await service.lake_reads.run(read)
    if found is not None:
        await _check(service, principal, found["machine_id"], prediction_id)
    return found


async def _recent(service: Service, principal: Principal, prediction_id: str) -> Answer:
    answer = await service.latest.answer(prediction_id)
    if answer is None:
        raise _unknown(prediction_id)
    await _check(service, principal, answer["machine_id"], prediction_id)
    return answer


async def _check(
    service: Service, principal: Principal, machine_id: str, prediction_id: str
) -> None:
    try:
        await visible_machine(service, principal, machine_id)
    except UnknownMachine:
        raise _unknown(prediction_id) from None


def _unknown(prediction_id: str) -> Problem:
    return Problem("unknown-prediction", f"There is no prediction {prediction_id[:100]!r}.")


def _from_answer(answer: Answer) -> dict[str, Any]:
    """An answer as evidence; what only the log and the lake know is null."""
    same = (
        "prediction_id", "machine_id", "machine_class", "asked_at", "served_by", "probability",
        "risk", "explanation", "recommended_action", "source", "features_at", "latency_ms",
    )  # fmt: skip
    mode, model = answer["failure_mode"], answer["model"]
    return {
        **{name: answer[name] for name in same},
        "subject": None,
        "failure_mode": None if mode is None else {"code": mode["code"], "title": mode["title"]},
        "feature_set": None,
        "model": None if model is None else {n: model[n] for n in ("version", "digest")},
        "inputs": [
            {
                **{n: c[n] for n in ("feature", "title", "value", "unit", "text", "contribution")},
                "own_range": None,
                "class_range": None
                if c["normal_range"] is None
                else [c["normal_range"]["low"], c["normal_range"]["high"]],
            }
            for c in answer["contributions"]
        ],
        "signals": [],
        "is_logged": False,
        "is_replayable": False,
        "is_record_intact": None,
        "detail": "The record is on its way to the audit log; ask again in a few seconds.",
        "chain": None,
        "feedback": [],
    }
