"""The fleet page's rows: registration, last answer, data and alarms of each machine. Pure.

What is abnormal comes first: by risk, then probability, then health.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aegisops.explain import feature_title
from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_HOUR, US_PER_SECOND
from aegisops.names import RiskLevel
from aegisops.online_store import FeatureVector, Machine
from serving.prediction import iso

Row = Mapping[str, Any]
"""A row of serving.latest."""

_WORST_FIRST = {r: i for i, r in enumerate(("high", "elevated", "unknown", "normal"))}
STEADY = 5.0
"""Change of health in points per hour that is not called a trend."""
TREND_SPAN = US_PER_HOUR


@dataclass(frozen=True, slots=True)
class Bar:
    """A feature drawn as a bar, and where its value stands in the vector."""

    index: int
    members: dict[str, Any]
    """Of console_contract.Indicator, but the value."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filter of the page; None = any."""

    site: str | None = None
    area: str | None = None
    machine_class: str | None = None
    owner: str | None = None
    risk: RiskLevel | None = None
    text: str | None = None
    """Part of the id, in any case."""
    abnormal: bool | None = None


def bars(machine_class: MachineClass, normals: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    """One feature per channel: that with a limit rule, else the first over a window.

    `normals`: healthy range by feature, of the model in production.
    """
    rules = {rule.feature: rule for rule in machine_class.thresholds}
    found = []
    for channel in machine_class.channels:
        own = [
            (i, spec)
            for i, spec in enumerate(machine_class.features)
            if spec.channel == channel and spec.window is not None
        ]
        own.sort(key=lambda pair: pair[1].name not in rules)  # stable: first declared, first taken
        for i, spec in own[:1]:
            normal, rule = normals.get(spec.name, {}), rules.get(spec.name)
            members = {
                "feature": spec.name,
                "channel": channel,
                "title": feature_title(machine_class, spec.name),
                "unit": spec.unit,
                "low": normal.get("low"),
                "high": normal.get("high"),
                "warning": None if rule is None else rule.warning,
                "alarm": None if rule is None else rule.alarm,
                "direction": None if rule is None else rule.direction,
            }
            found.append(Bar(i, members))
    return found


def indicators(drawn: Sequence[Bar], features: FeatureVector | None) -> list[dict[str, Any]]:
    """The bars with the machine's values; null where there is none."""
    values = [] if features is None else features.vector.tolist()
    return [
        bar.members
        | {"value": values[bar.index] if values and math.isfinite(values[bar.index]) else None}
        for bar in drawn
    ]


def owner_of(machine: Machine) -> str | None:
    """Who looks after the machine: its attribute `owner`."""
    owner = machine.attributes.get("owner")
    return str(owner) if owner else None


def chosen(
    machines: Iterable[Machine], rows: Mapping[str, Row], wanted: Wanted, order: str = "risk"
) -> list[Machine]:
    """Machines that fit, worst first (`risk`) or by id (`machine_id`)."""
    found = [m for m in machines if _fits(m, rows.get(m.machine_id), wanted)]
    if order == "machine_id":
        return sorted(found, key=lambda m: m.machine_id)
    return sorted(found, key=lambda m: _badness(m, rows.get(m.machine_id)))


def counts(machines: Iterable[Machine], rows: Mapping[str, Row]) -> dict[str, int]:
    """Machines per risk level; those without an answer count as unknown."""
    found = Counter(_risk(rows.get(m.machine_id)) for m in machines)
    return {level.value: found[level.value] for level in RiskLevel}


def entry(
    machine: Machine,
    *,
    machine_class: MachineClass,
    row: Row | None,
    features: FeatureVector | None,
    drawn: Sequence[Bar],
    now: float,
) -> dict[str, Any]:
    """One machine as in console_contract.FleetMachine; `now` in Unix seconds."""
    row = row or {}
    features_at = row.get("features_at") if features is None else features.ts
    coverage = row.get("coverage") if features is None else round(features.coverage, 4)
    at = row.get("at")
    return {
        "machine_id": machine.machine_id,
        "machine_class": machine.machine_class,
        "site": machine.site,
        "area": machine.area,
        "owner": owner_of(machine),
        "risk": row.get("risk", RiskLevel.UNKNOWN.value),
        "probability": row.get("probability"),
        "failure_mode": row.get("failure_mode"),
        "explanation": row.get("explanation", "There is no prediction yet."),
        "served_by": row.get("served_by"),
        "cause": row.get("cause"),
        "model_version": row.get("model_version"),
        "prediction_id": row.get("prediction_id"),
        "predicted_at": _iso(at),
        "prediction_age_seconds": _age(at, now),
        "is_abnormal": _is_abnormal(row),
        "abnormal_since": _iso(row.get("abnormal_since")),
        "health": health_of(row),
        "data_quality": {
            "coverage": coverage,
            "minimum_coverage": machine_class.min_coverage,
            "status": row.get("signal", "no_data"),
        },
        "features_at": _iso(features_at),
        "feature_age_seconds": _age(features_at, now),
        "indicators": indicators(drawn, features),
    }


def health_of(row: Row) -> dict[str, Any]:
    """Score, its change per hour, and the points of the last two hours."""
    points = [(at, score) for at, score, _ in row.get("trend", ()) if score is not None]
    slope = slope_per_hour(points)
    word = None
    if slope is not None:
        word = "steady" if abs(slope) < STEADY else "falling" if slope < 0 else "rising"
    return {
        "score": row.get("health"),
        "trend": word,
        "change_per_hour": None if slope is None else round(slope, 1),
        "history": [{"at": iso(at), "score": score} for at, score in points],
    }


def slope_per_hour(points: Sequence[tuple[int, float]]) -> float | None:
    """Least-squares slope of (µs, value) over the last TREND_SPAN; None below three points."""
    if not points:
        return None
    recent = [p for p in points if p[0] >= points[-1][0] - TREND_SPAN]
    if len(recent) < 3:  # noqa: PLR2004 - two points show noise, not a trend
        return None
    hours = [(at - recent[0][0]) / US_PER_HOUR for at, _ in recent]
    mean_t, mean_v = math.fsum(hours) / len(hours), math.fsum(v for _, v in recent) / len(recent)
    spread = math.fsum((t - mean_t) ** 2 for t in hours)
    together = math.fsum(
        (t - mean_t) * (v - mean_v) for t, (_, v) in zip(hours, recent, strict=True)
    )
    return together / spread if spread else None


def _fits(machine: Machine, row: Row | None, wanted: Wanted) -> bool:
    return (
        wanted.site in {None, machine.site}
        and wanted.area in {None, machine.area}
        and wanted.machine_class in {None, machine.machine_class}
        and (wanted.owner is None or wanted.owner == owner_of(machine))
        and (wanted.risk is None or wanted.risk == _risk(row))
        and (wanted.text is None or wanted.text.lower() in machine.machine_id.lower())
        and (wanted.abnormal is None or wanted.abnormal == _is_abnormal(row or {}))
    )


def _risk(row: Row | None) -> str:
    return RiskLevel.UNKNOWN.value if row is None else str(row["risk"])


def _is_abnormal(row: Row) -> bool:
    """Anything but a normal answer, once there is one."""
    return bool(row) and row["risk"] != RiskLevel.NORMAL


def _badness(machine: Machine, row: Row | None) -> tuple[int, float, float, str]:
    if row is None:
        return _WORST_FIRST["unknown"], 0.0, 100.0, machine.machine_id
    health = 100.0 if row["health"] is None else row["health"]
    return _WORST_FIRST[row["risk"]], -(row["probability"] or 0.0), health, machine.machine_id


def _iso(us: int | None) -> str | None:
    return None if us is None else iso(us)


def _age(us: int | None, now: float) -> float | None:
    return None if us is None else round(max(0.0, now - us / US_PER_SECOND), 1)
