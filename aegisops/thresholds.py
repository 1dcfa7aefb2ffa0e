"""The last rung of the ladder: limit rules on single features, which need no model.

They are judged for every answer, so that losing the model never hides a limit alarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aegisops.machines import MachineClass, Threshold
from aegisops.names import RiskLevel


@dataclass(frozen=True, slots=True)
class Violation:
    """One feature beyond one of its limits."""

    feature: str
    value: float
    unit: str
    limit: float
    level: RiskLevel
    """`elevated` beyond the warning limit, `high` beyond the alarm limit."""
    direction: str
    failure_mode: str | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the limit rules say about one vector."""

    risk: RiskLevel
    """Worst level; `unknown` when no rule has a value to look at."""
    violations: tuple[Violation, ...]
    """Worst first."""
    sentence: str

    @property
    def failure_mode(self) -> str | None:
        """Mode of the worst violation."""
        return next((v.failure_mode for v in self.violations), None)


def judge(
    machine_class: MachineClass, vector: npt.ArrayLike, inputs: Sequence[str] | None = None
) -> Judgement:
    """Apply the class's rules to one vector [d]; NaN = missing.

    `inputs`: names of the vector's values, in order; the class's own when None. With a bundle, give
    the bundle's: older manifests hold the class with its channels sorted, thus another order.
    """
    names = machine_class.vector if inputs is None else inputs
    values = dict(zip(names, np.asarray(vector, float).tolist(), strict=True))
    known = [rule for rule in machine_class.thresholds if math.isfinite(values[rule.feature])]
    if not known:
        return Judgement(
            RiskLevel.UNKNOWN, (), "No limit rule can be judged: the features are missing."
        )
    found = [
        violation
        for rule in known
        if (violation := _check(rule, values[rule.feature], machine_class)) is not None
    ]
    found.sort(key=lambda v: (v.level is not RiskLevel.HIGH, -_excess(v)))
    if not found:
        return Judgement(RiskLevel.NORMAL, (), "All limit rules are kept.")
    worst = found[0]
    word = "alarm" if worst.level is RiskLevel.HIGH else "warning"
    sentence = (
        f"Limit rule: {worst.feature} is {worst.value:.4g}{_spaced(worst.unit)}, "
        f"{worst.direction} its {word} limit of {worst.limit:g}{_spaced(worst.unit)}."
    )
    return Judgement(worst.level, tuple(found), sentence)


def severity(machine_class: MachineClass, vectors: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Severity [n] of vectors [n, d], for ranking and for measuring the rules against a model.

    The largest, over rules, of how far a value went from the warning (0) towards the alarm limit
    (1) and beyond; negative while every rule is kept; missing values count as kept.
    """
    data = np.asarray(vectors, float)
    worst = np.full(len(data), -1e9)
    for rule in machine_class.thresholds:
        value = data[:, machine_class.vector.index(rule.feature)]
        span = rule.alarm - rule.warning or 1.0
        worst = np.fmax(worst, (value - rule.warning) / span)
    return worst


def _check(rule: Threshold, value: float, machine_class: MachineClass) -> Violation | None:
    def beyond(limit: float) -> bool:
        return value >= limit if rule.direction == "above" else value <= limit

    for level, limit in ((RiskLevel.HIGH, rule.alarm), (RiskLevel.ELEVATED, rule.warning)):
        if beyond(limit):
            unit = machine_class.unit_of(rule.feature)
            return Violation(
                rule.feature, value, unit, limit, level, rule.direction, rule.failure_mode
            )
    return None


def _excess(violation: Violation) -> float:
    return abs(violation.value - violation.limit) / (abs(violation.limit) or 1.0)


def _spaced(unit: str) -> str:
    return "" if unit in {"", "1"} else f" {unit}"
