"""The decision: vector → rung → explained answer → audit record. No HTTP, no client, no clock here.

Single questions that are in flight together are judged together: their vectors go to the model in
one call and their audit records to disk in one commit, at the end of the event loop's round. One
connection alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from aegisops import prediction_ids
from aegisops.errors import BadInput, UnknownMachine
from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import Rung
from aegisops.online_store import Machine
from serving.audit import Audit
from serving.features import At, FeatureReader
from serving.ladder import Judgement, Ladder
from serving.shadow import Scored, ShadowScorer
from serving.vectors import Unusable, Vector

Answer = dict[str, Any]
"""JSON members of an answer; the contract is serving.contract.Prediction."""

IN_LOOP = 64
"""Vectors judged on the event loop in one go; larger sets go to a worker thread."""


@dataclass(slots=True)
class Case:
    """One question on its way to an answer."""

    machine: Machine
    machine_class: MachineClass
    vector: Vector | Unusable
    subject: str
    asked_at: int
    """µs since 1970 UTC."""
    started: float
    """perf_counter seconds."""
    is_current: bool = False
    """Whether it asks for the machine's state now, by its own readings."""


class PredictionService:
    """Answers questions about machines. All methods run on one event loop."""

    def __init__(
        self,
        reader: FeatureReader,
        ladder: Ladder,
        audit: Audit,
        *,
        clock: Callable[[], float],
        answered: Callable[[Judgement, str, float], None] = lambda *_: None,
        shadow: ShadowScorer | None = None,
        announce: Callable[[Sequence[Answer]], None] = lambda _: None,
        note: Callable[[Case, Judgement, Answer], None] = lambda *_: None,
    ) -> None:
        """`clock`: Unix seconds. `answered` is told judgement, class and seconds per answer.

        `shadow` is offered the vectors of answers that are already audited; `announce` gets those
        answers, it must not wait; `note` gets each of them with its case and judgement.
        """
        self._reader = reader
        self._ladder = ladder
        self._audit = audit
        self._clock = clock
        self._answered = answered
        self._shadow = shadow
        self._announce = announce
        self._note = note
        self._round: list[tuple[Case, asyncio.Future[Answer]]] = []

    async def predict(
        self,
        machine_id: str,
        subject: str,
        *,
        at: At = "now",
        features: Mapping[str, float | str | None] | None = None,
        may_see: Callable[[Machine], bool] = lambda _: True,
    ) -> Answer:
        """The answer for one machine.

        `features`, when given, are used instead of what is known of the machine. Raises
        `UnknownMachine`, `BadInput` for features the class does not have, and `OutboxFull`.
        """
        started, asked_at = perf_counter(), self._now()
        machine = await self._reader.machine(machine_id)
        if not may_see(machine):
            raise UnknownMachine(machine_id)
        machine_class = self._reader.machine_class(machine)
        vector: Vector | Unusable
        if features is not None:
            vector = given_vector(machine_class, features)
        else:
            vector = await self._reader.vector(machine, at)
        is_current = features is None and at == "now"
        case = Case(machine, machine_class, vector, subject, asked_at, started, is_current)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._round:
            loop.call_soon(self._finish_round)
        self._round.append((case, future))
        return await future

    async def predict_all(
        self, machines: Sequence[Machine], subject: str, at: At = "now"
    ) -> list[Answer]:
        """Answers in the order of `machines`, audited in one commit; `OutboxFull` if it fails."""
        started, asked_at = perf_counter(), self._now()
        vectors = await self._reader.vectors(machines, at)
        cases = [
            Case(m, self._reader.machine_class(m), v, subject, asked_at, started, at == "now")
            for m, v in zip(machines, vectors, strict=True)
        ]
        if len(cases) <= IN_LOOP:
            judgements = self._ladder.judge(cases)
        else:
            judgements = await asyncio.to_thread(self._ladder.judge, cases)
        return self._answer(cases, judgements)

    def judge(self, machine: Machine, vector: Vector | Unusable) -> Judgement:
        """A judgement that is no answer: for views of a machine's state, not audited."""
        machine_class = self._reader.machine_class(machine)
        return self._ladder.judge([Case(machine, machine_class, vector, "", self._now(), 0.0)])[0]

    def _finish_round(self) -> None:
        batch, self._round = self._round, []
        waiting = [(case, future) for case, future in batch if not future.done()]
        cases = [case for case, _ in waiting]
        try:
            answers = self._answer(cases, self._ladder.judge(cases))
        except Exception as error:  # noqa: BLE001 - every question of the round must hear of it
            for _, future in waiting:
                future.set_exception(error)
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            future.set_result(answer)

    def _answer(self, cases: Sequence[Case], judgements: Sequence[Judgement]) -> list[Answer]:
        now = perf_counter()
        answers, records = [], []
        for case, judgement in zip(cases, judgements, strict=True):
            identity = prediction_ids.new(case.asked_at)
            seconds = now - case.started
            answers.append(_render(case, judgement, identity, seconds))
            records.append(_record(case, judgement, identity, seconds))
            self._answered(judgement, case.machine_class.name, seconds)
        self._audit.record(records)
        if self._shadow is not None:
            self._offer(self._shadow, cases, judgements, answers)
        self._announce(answers)
        for case, judgement, answer in zip(cases, judgements, answers, strict=True):
            self._note(case, judgement, answer)
        return answers

    def _offer(
        self,
        shadow: ShadowScorer,
        cases: Sequence[Case],
        judgements: Sequence[Judgement],
        answers: Sequence[Answer],
    ) -> None:
        """The vectors that were fit for an answer, to the shadow model of their class."""
        offered = [
            Scored(
                answer["prediction_id"],
                case.machine.machine_id,
                case.machine_class.name,
                case.vector.feature_set,
                case.vector.values,
            )
            for case, judgement, answer in zip(cases, judgements, answers, strict=True)
            if isinstance(case.vector, Vector)
            and judgement.rung is not Rung.ABSTAINED
            and shadow.wants(case.machine_class.name)
        ]
        if offered:
            shadow.offer(offered)

    def _now(self) -> int:
        return round(self._clock() * US_PER_SECOND)


def given_vector(machine_class: MachineClass, features: Mapping[str, float | str | None]) -> Vector:
    """A vector from named values; coverage is the share of measured inputs that were given.

    Raises `BadInput` naming inputs the class does not have or values that are no finite number.
    """
    unknown = sorted(set(features) - set(machine_class.vector))
    if unknown:
        raise BadInput(
            "unknown_feature",
            f"{machine_class.name} has no {', '.join(unknown)}; "
            f"its inputs are {', '.join(machine_class.vector)}",
        )
    measured = [spec.name for spec in machine_class.features]
    values = [_number(name, features.get(name)) for name in measured]
    values += machine_class.encode_attributes(
        {name: features.get(name) for name in machine_class.attributes}
    )
    vector = np.array(values, dtype=np.float64)
    share = float(np.isfinite(vector[: len(measured)]).mean()) if measured else 1.0
    return Vector(vector, machine_class.feature_set, None, share, "request")


def _number(name: str, value: float | str | None) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, str) or not np.isfinite(value):
        raise BadInput("not_finite", f"{name} must be a finite number or null")
    return float(value)


def _render(case: Case, judgement: Judgement, identity: str, seconds: float) -> Answer:
    vector, machine_class = case.vector, case.machine_class
    at = vector.at
    age = None if at is None else max(0.0, (case.asked_at - at) / US_PER_SECOND)
    model = judgement.model
    return {
        "prediction_id": identity,
        "machine_id": case.machine.machine_id,
        "machine_class": machine_class.name,
        "asked_at": iso(case.asked_at),
        "horizon_hours": machine_class.horizon / machine_class.hour,
        "probability": judgement.probability,
        "risk": judgement.risk.value,
        "failure_mode": judgement.failure_mode,
        "remaining_life": judgement.remaining_life,
        "explanation": judgement.explanation,
        "contributions": judgement.contributions,
        "limit_violations": judgement.violations,
        "recommended_action": judgement.action,
        "data_quality": data_quality(machine_class, vector, judgement),
        "features_at": None if at is None else iso(at),
        "feature_age_seconds": age,
        "source": "none" if isinstance(vector, Unusable) else vector.source,
        "served_by": judgement.rung.value,
        "cause": None if judgement.cause is None else judgement.cause.value,
        "detail": judgement.detail,
        "model": None
        if model is None
        else {
            "name": model.bundle.manifest["name"],
            "version": model.version,
            "digest": model.digest,
        },
        "latency_ms": round(seconds * 1_000, 3),
    }


def data_quality(
    machine_class: MachineClass, vector: Vector | Unusable, judgement: Judgement
) -> dict[str, Any]:
    """The members of contract.DataQuality."""
    return {
        "coverage": None if isinstance(vector, Unusable) else round(vector.coverage, 4),
        "minimum_coverage": machine_class.min_coverage,
        "status": judgement.signal,
    }


def _record(case: Case, judgement: Judgement, identity: str, seconds: float) -> dict[str, Any]:
    vector, model = case.vector, judgement.model
    return {
        "prediction_id": identity,
        "machine_id": case.machine.machine_id,
        "asked_at": case.asked_at,
        "subject": case.subject,
        "served_by": judgement.rung.value,
        "probability": judgement.probability,
        "risk": judgement.risk.value,
        "failure_mode": None if judgement.failure_mode is None else judgement.failure_mode["code"],
        "model_version": None if model is None else model.version,
        "model_digest": None if model is None else model.digest,
        "feature_set": case.machine_class.feature_set,
        "features_at": vector.at,
        "vector": [] if isinstance(vector, Unusable) else vector.values.tolist(),
        "source": "none" if isinstance(vector, Unusable) else vector.source,
        "latency_us": round(seconds * US_PER_SECOND),
    }


def iso(us: int) -> str:
    """ISO-8601 UTC text, in milliseconds, of µs since 1970."""
    whole = np.datetime64(us // 1_000, "ms")
    return f"{whole}Z"
