"""Who answers: the production model, else the anomaly model, else the limit rules, else nobody.

A rung that cannot answer leaves its cause in the answer. The anomaly model is part of the signed
bundle: it stands in when the boosters fail, give no number or are too slow. Without a bundle, or
with one for other features, there is no forest either. Limit rules are judged for every answer, so
neither a lost model nor a calm one hides a limit alarm.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from aegisops import anomaly, explain, scoring, thresholds
from aegisops.machines import MachineClass
from aegisops.names import RiskLevel, Rung
from serving.model_slot import Loaded
from serving.patience import Patience
from serving.vectors import Cause, Unusable, Vector

log = logging.getLogger(__name__)

Signal = Literal["good", "degraded", "instrument_fault", "no_data"]

DEGRADED = 0.9
"""Coverage below which an answer says that its data is degraded."""
_SEVERITY = [RiskLevel.UNKNOWN, RiskLevel.NORMAL, RiskLevel.ELEVATED, RiskLevel.HIGH]


class Question(Protocol):
    """What the ladder needs to know of a case."""

    @property
    def machine_class(self) -> MachineClass:
        """Class of the machine."""

    @property
    def vector(self) -> Vector | Unusable:
        """Its inputs, or why there are none."""


@dataclass(slots=True)
class Judgement:
    """What a rung says; the members are as in contract.Prediction."""

    rung: Rung
    risk: RiskLevel
    explanation: str
    signal: Signal
    probability: float | None = None
    failure_mode: dict[str, Any] | None = None
    remaining_life: dict[str, float] | None = None
    contributions: list[dict[str, Any]] = field(default_factory=list)
    violations: list[dict[str, Any]] = field(default_factory=list)
    action: dict[str, Any] | None = None
    model: Loaded | None = None
    cause: Cause | None = None
    detail: str | None = None


class Ladder:
    """Judges questions, best rung first."""

    def __init__(self, model_of: Callable[[str], Loaded | None], patience: Patience) -> None:
        """`model_of`: machine class name → the production model in use, if any."""
        self._model_of = model_of
        self._patience = patience

    def rung(self, machine_class: MachineClass) -> Rung:
        """Who would answer for the class now, given a good vector."""
        loaded = self._model_of(machine_class.name)
        if loaded is None or loaded.bundle.feature_set != machine_class.feature_set:
            return Rung.THRESHOLDS
        if not self._patience.rests(loaded.digest):
            return Rung.PRODUCTION
        return Rung.THRESHOLDS if loaded.bundle.forest is None else Rung.ANOMALY

    def judge(self, questions: Sequence[Question]) -> list[Judgement]:
        """One judgement per question, in order; one model call per class."""
        judgements: list[Judgement | None] = [None] * len(questions)
        by_class: dict[str, list[int]] = defaultdict(list)
        for i, question in enumerate(questions):
            judgements[i] = _unfit(question)
            if judgements[i] is None:
                by_class[question.machine_class.name].append(i)
        for name, rows in by_class.items():
            group = [questions[i] for i in rows]
            for i, judgement in zip(rows, self._judge_class(name, group), strict=True):
                judgements[i] = judgement
        return [judgement for judgement in judgements if judgement is not None]

    def _judge_class(self, name: str, group: Sequence[Question]) -> list[Judgement]:
        loaded = self._model_of(name)
        vectors = [_vector(question) for question in group]
        machine_class = group[0].machine_class
        judgements: list[Judgement | None] = [None] * len(vectors)
        cause, detail = Cause.NO_MODEL, "There is no production model for this class."
        if loaded is not None and loaded.bundle.feature_set != machine_class.feature_set:
            cause = Cause.FEATURE_SET
            detail = (
                f"The production model is for {loaded.bundle.feature_set}, "
                f"the features are {machine_class.feature_set}."
            )
        elif loaded is not None:
            cause, detail = self._by_model(loaded, machine_class, vectors, judgements)
            _by_anomaly(loaded, machine_class, vectors, judgements, (cause, detail))
        return [
            judgement or _by_limits(machine_class, vector, cause, detail)
            for vector, judgement in zip(vectors, judgements, strict=True)
        ]

    def _by_model(
        self,
        loaded: Loaded,
        machine_class: MachineClass,
        vectors: Sequence[Vector],
        judgements: list[Judgement | None],
    ) -> tuple[Cause, str]:
        """Fill in what the boosters say; returns why some places may have stayed empty."""
        patience = self._patience
        if patience.rests(loaded.digest):
            return Cause.MODEL_SLOW, "The production model was too slow several times and rests."
        started = patience.clock()
        try:
            scores = scoring.score(loaded.bundle, np.stack([v.values for v in vectors]))
            took = patience.clock() - started
            known = np.isfinite(scores.probability)
            for i in np.flatnonzero(known).tolist():
                judgements[i] = _explained(loaded, machine_class, vectors[i], scores, i)
        except Exception:
            # Whatever the model raises, the machine still gets the rungs below.
            log.exception("ALERT: the production model of %s failed", machine_class.name)
            judgements[:] = [None] * len(vectors)
            return Cause.MODEL_FAILED, "The production model failed."
        patience.took(loaded.digest, len(vectors), took)
        if not known.all():
            log.error("ALERT: the production model of %s gave no number", machine_class.name)
        return Cause.MODEL_FAILED, "The production model gave no number."


def _vector(question: Question) -> Vector:
    assert isinstance(question.vector, Vector)  # noqa: S101 - _unfit took the others out
    return question.vector


def _unfit(question: Question) -> Judgement | None:
    """An abstention where the data carries no answer."""
    vector, machine_class = question.vector, question.machine_class
    if isinstance(vector, Unusable):
        sentence = f"No answer: {vector.detail[:1].lower()}{vector.detail[1:]}"
        return abstain(vector.cause, vector.detail, sentence, "no_data")
    if vector.coverage < machine_class.min_coverage:
        detail = (
            f"Only {vector.coverage:.0%} of the expected readings arrived; "
            f"{machine_class.min_coverage:.0%} are needed."
        )
        sentence = f"Instrument fault: {detail[:1].lower()}{detail[1:]} Check the sensors."
        return abstain(Cause.LOW_COVERAGE, detail, sentence, "instrument_fault")
    return None


def abstain(cause: Cause, detail: str, sentence: str, signal: Signal) -> Judgement:
    """The answer that there is none."""
    return Judgement(
        Rung.ABSTAINED, RiskLevel.UNKNOWN, sentence, signal, cause=cause, detail=detail
    )


def _explained(
    loaded: Loaded, machine_class: MachineClass, vector: Vector, scores: scoring.Scores, i: int
) -> Judgement:
    bundle = loaded.bundle
    probability = float(scores.probability[i])
    found = explain.explain(
        bundle, vector.values, scores.contributions[i], scores.mode_probability[i], probability
    )
    limits = thresholds.judge(machine_class, vector.values)
    judgement = Judgement(
        Rung.PRODUCTION,
        RiskLevel(bundle.risk(probability)),
        f"{found.sentence} {limits.sentence}" if limits.violations else found.sentence,
        _signal(vector),
        probability=probability,
        contributions=[_contribution(reason, bundle.normals) for reason in found.reasons],
        violations=_violations(limits),
        model=loaded,
    )
    if found.failure_mode is not None:
        judgement.failure_mode = {
            "code": found.failure_mode,
            "title": found.failure_mode_title,
            "share": found.mode_probability,
        }
    judgement.remaining_life = _remaining_life(bundle, scores, i)
    if found.action is not None:
        judgement.action = {"text": found.action, "procedure": found.procedure}
    elif limits.violations:
        _, judgement.action = _mode(machine_class, limits.failure_mode)
    return judgement


def _remaining_life(
    bundle: scoring.Bundle, scores: scoring.Scores, i: int
) -> dict[str, float] | None:
    life, said = bundle.life, scores.remaining_life
    if life is None or said is None or not math.isfinite(said.median[i]):
        return None
    return {
        "hours": round(float(said.median[i]), 2),
        "low": round(float(said.low[i]), 2),
        "high": round(float(said.high[i]), 2),
        "coverage": life.coverage,
    }


def _by_anomaly(
    loaded: Loaded,
    machine_class: MachineClass,
    vectors: Sequence[Vector],
    judgements: list[Judgement | None],
    why: tuple[Cause, str],
) -> None:
    """Fill the places that are empty, for the reason `why`, where the forest has a score."""
    empty = [i for i, judgement in enumerate(judgements) if judgement is None]
    forest = loaded.bundle.forest
    if forest is None or not empty:
        return
    try:
        scores = anomaly.score(forest, np.stack([vectors[i].values for i in empty]))
        for i, score in zip(empty, scores.tolist(), strict=True):
            if math.isfinite(score):
                judgement = _unusual(loaded, machine_class, vectors[i], score)
                judgement.cause, judgement.detail = why
                judgements[i] = judgement
    except Exception:
        log.exception("ALERT: the anomaly model of %s failed", machine_class.name)


def _unusual(
    loaded: Loaded, machine_class: MachineClass, vector: Vector, score: float
) -> Judgement:
    """What the forest says. A limit alarm raises the risk: the rung below would have told it."""
    bundle = loaded.bundle
    assert bundle.forest is not None  # noqa: S101 - it gave the score
    probability = float(anomaly.calibrate(bundle.forest, np.array([score]))[0])
    found = explain.explain_unusual(bundle, vector.values, score, probability)
    limits = thresholds.judge(machine_class, vector.values)
    risk = max(RiskLevel(bundle.risk(probability)), limits.risk, key=_SEVERITY.index)
    mode, action = _mode(machine_class, limits.failure_mode or found.failure_mode)
    return Judgement(
        Rung.ANOMALY,
        risk,
        f"{found.sentence} {limits.sentence}" if limits.violations else found.sentence,
        _signal(vector),
        probability=probability,
        failure_mode=mode,
        contributions=[_contribution(reason, bundle.normals) for reason in found.reasons],
        violations=_violations(limits),
        action=action,
        model=loaded,
    )


def _contribution(
    reason: explain.Reason, normals: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    normal = normals.get(reason.feature)
    return {
        "feature": reason.feature,
        "title": reason.title,
        "value": reason.value,
        "text": reason.text,
        "unit": reason.unit,
        "normal_range": normal if normal and None not in normal.values() else None,
        "contribution": reason.contribution,
    }


def _by_limits(machine_class: MachineClass, vector: Vector, cause: Cause, detail: str) -> Judgement:
    limits = thresholds.judge(machine_class, vector.values)
    if limits.risk is RiskLevel.UNKNOWN:
        return abstain(
            Cause.NO_RULE, f"{detail} {limits.sentence}", f"No answer: {limits.sentence}", "no_data"
        )
    mode, action = _mode(machine_class, limits.failure_mode)
    values = dict(zip(machine_class.vector, vector.values.tolist(), strict=True))
    return Judgement(
        Rung.THRESHOLDS,
        limits.risk,
        limits.sentence,
        _signal(vector),
        failure_mode=mode,
        contributions=[
            {
                "feature": rule.feature,
                "title": explain.feature_title(machine_class, rule.feature),
                "value": _finite(values[rule.feature]),
                "text": f"{values[rule.feature]:.4g} {machine_class.unit_of(rule.feature)}",
                "unit": machine_class.unit_of(rule.feature),
                "normal_range": None,
                "contribution": None,
            }
            for rule in machine_class.thresholds
        ],
        violations=_violations(limits),
        action=action,
        cause=cause,
        detail=detail,
    )


def _mode(
    machine_class: MachineClass, code: str | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    mode = machine_class.failure_modes.get(code or "")
    if code is None or mode is None:
        return None, None
    return (
        {"code": code, "title": mode.title, "share": None},
        {"text": mode.action, "procedure": mode.procedure},
    )


def _violations(limits: thresholds.Judgement) -> list[dict[str, Any]]:
    return [
        {
            "feature": v.feature,
            "value": v.value,
            "unit": v.unit,
            "limit": v.limit,
            "direction": v.direction,
            "level": v.level.value,
        }
        for v in limits.violations
    ]


def _signal(vector: Vector) -> Signal:
    return "good" if vector.coverage >= DEGRADED else "degraded"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
