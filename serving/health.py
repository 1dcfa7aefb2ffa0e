"""A machine's health score out of an answer: 100 is sound, 0 is failing. Pure.

Two parts, each piecewise linear so that the class's own limits are the marks on the scale: at the
`elevated` probability or a warning limit a part stands at 60, at `high` or the alarm limit at 30.
The worst part is the score: averaging would let a calm channel hide an alarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from aegisops.machines import MachineClass, Statistic
from aegisops.names import EventType
from serving.ladder import Judgement
from serving.vectors import Unusable, Vector

WARNING_MARK, ALARM_MARK = 60.0, 30.0


def risk_score(probability: float, limits: Mapping[str, float]) -> float:
    """0 to 100 from a failure probability and the model's `elevated` and `high` limits."""
    marks = (0.0, limits["elevated"], limits["high"], 1.0)
    return _between(probability, marks, (100.0, WARNING_MARK, ALARM_MARK, 0.0))


def limits_score(machine_class: MachineClass, vector: Vector) -> tuple[float | None, str]:
    """0 to 100 from the worst limit rule, and which one it is; None if no rule has a value.

    A value scores 100 when it is twice the distance from warning to alarm below its warning limit,
    and 0 when it is that distance beyond its alarm limit.
    """
    values = dict(zip(machine_class.vector, vector.values.tolist(), strict=True))
    found = [
        (
            _between((value - rule.warning) / (rule.alarm - rule.warning), _EXCESS, _SCORES),
            value,
            rule,
        )
        for rule in machine_class.thresholds
        if math.isfinite(value := values[rule.feature]) and rule.alarm != rule.warning
    ]
    if not found:
        return None, "no limit rule has a value"
    worst, value, rule = min(found, key=itemgetter(0))
    return worst, (
        f"{rule.feature} is {value:.4g} {machine_class.unit_of(rule.feature)}; "
        f"warning {rule.warning:g}, alarm {rule.alarm:g}"
    )


_EXCESS, _SCORES = (-2.0, 0.0, 1.0, 3.0), (100.0, WARNING_MARK, ALARM_MARK, 0.0)


def _between(x: float, marks: Sequence[float], scores: Sequence[float]) -> float:
    """Linear between the ascending marks, constant beyond; numpy's costs 20 times this for one."""
    if x <= marks[0]:
        return scores[0]
    for (a, low), (b, high) in pairwise(zip(marks, scores, strict=True)):
        if x < b:
            return low + (high - low) * (x - a) / (b - a)
    return scores[-1]


def parts(
    machine_class: MachineClass, vector: Vector | Unusable, judgement: Judgement
) -> list[dict[str, Any]]:
    """The parts of the score, as in contract.HealthPart."""
    if isinstance(vector, Unusable) or judgement.signal == "instrument_fault":
        return []
    found: list[dict[str, Any]] = []
    if judgement.probability is not None and judgement.model is not None:
        hours = machine_class.horizon / machine_class.hour
        found.append(
            {
                "name": "failure_risk",
                "score": risk_score(judgement.probability, judgement.model.bundle.thresholds),
                "detail": f"probability {judgement.probability:.3f} of a failure within "
                f"{hours:g} {'cycles' if machine_class.clock == 'cycles' else 'h'}",
            }
        )
    score, detail = limits_score(machine_class, vector)
    found.append({"name": "limits", "score": score, "detail": detail})
    return found


def score_of(found: Sequence[Mapping[str, Any]]) -> float | None:
    """The score of these parts: that of the worst; None when none has one."""
    scores = [part["score"] for part in found if part["score"] is not None]
    return round(min(scores), 1) if scores else None


def last_maintenance(machine_class: MachineClass, vector: Vector | Unusable) -> int | None:
    """Time (µs) of the newest maintenance the vector knows of."""
    if isinstance(vector, Unusable) or vector.at is None:
        return None
    kinds = {n for n, e in machine_class.events.items() if e.type == EventType.MAINTENANCE}
    hours = [
        vector.values[i]
        for i, spec in enumerate(machine_class.features)
        if spec.statistic is Statistic.TIME_SINCE and spec.channel in kinds
    ]
    known = [h for h in hours if math.isfinite(h)]
    return round(vector.at - min(known) * machine_class.hour) if known else None


def sensors(machine_class: MachineClass, vector: Vector | Unusable) -> list[dict[str, Any]]:
    """Each channel's state: `no_data` when every feature of it is missing."""
    rows = []
    for name, channel in machine_class.channels.items():
        own = [i for i, spec in enumerate(machine_class.features) if spec.channel == name]
        silent = isinstance(vector, Unusable) or (
            bool(own) and not np.isfinite(vector.values[own]).any()
        )
        rows.append(
            {
                "channel": name,
                "title": channel.title,
                "unit": channel.unit,
                "status": "no_data" if silent else "ok",
            }
        )
    return rows
