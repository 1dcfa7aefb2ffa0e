"""Candidate → shadow. Moves no model into production."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aegisops import scoring
from aegisops.errors import AegisError, Permanent
from aegisops.names import Alias, Verdict
from aegisops.registry import Version
from aegisops.releases import Pointer, Releases, bundle_version
from aegisops_assets.steps import validation
from aegisops_assets.steps.platform import Fleet, Platform

LONGEST = timedelta(days=7)
"""A shadow that has not gathered enough by then gives way to a newer candidate."""


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What was done with one class's candidate."""

    machine_class: str
    version: str
    action: str
    """`shadowed`, `kept`, `none`."""
    why: str


def place(
    platform: Platform, *, decided_by: str, classes: Iterable[str] = (), now: datetime | None = None
) -> list[Shadowed]:
    """Let each class's new candidate score beside production.

    The first model of a class has nothing to be compared with: it needs no shadow. A shadow that is
    still gathering keeps its place, or every nightly candidate would put it back to the start.
    """
    now = now or datetime.now(UTC)
    return [
        placed
        for fleet in platform.fleets(classes)
        if (placed := _place(platform, fleet, decided_by, now)) is not None
    ]


def _place(platform: Platform, fleet: Fleet, decided_by: str, now: datetime) -> Shadowed | None:
    name, known = fleet.machine_class.name, platform.releases()
    candidate = platform.registry.by_alias(name, Alias.CANDIDATE)
    if candidate is None:
        return None
    version = bundle_version(candidate)
    why = _reason_against(platform, known, fleet, candidate)
    if why:
        return Shadowed(name, version, "none", why)
    current = known.pointer(name, Alias.SHADOW)
    if current is not None and current.digest == candidate.digest:
        return Shadowed(name, version, "kept", "the candidate is the shadow already")
    if current is not None and now - _since(known, name, current, now) < LONGEST:
        return Shadowed(name, current.version, "kept", "an earlier candidate is still compared")
    try:
        known.shadow(name, version, decided_by=decided_by, reason="validated candidate")
    except Permanent as error:
        return Shadowed(name, version, "none", str(error))
    return Shadowed(name, version, "shadowed", "validated candidate")


def _reason_against(platform: Platform, known: Releases, fleet: Fleet, candidate: Version) -> str:
    """Why the candidate needs no shadow or may not be one; empty when it may."""
    name = fleet.machine_class.name
    production = comparable_production(platform, known, fleet)
    if production is None:
        return "nothing is in production to compare with"
    if production.digest == candidate.digest:
        return "the candidate is in production"
    spoken = [d["decision"] for d in known.decisions(name) if d["model_digest"] == candidate.digest]
    if spoken and spoken[-1] in {Verdict.REFUSED, Verdict.ROLLED_BACK, Verdict.UNSHADOWED}:
        return f"{spoken[-1]} before"
    try:
        evidence = validation.load(platform.bundle_dir(name, bundle_version(candidate)))
    except Permanent as error:
        return str(error)
    passed = evidence.passed and evidence.digest == candidate.digest
    return "" if passed else "its validation did not pass"


def comparable_production(platform: Platform, known: Releases, fleet: Fleet) -> Pointer | None:
    """The production model, if it is valid and answers for the class's present feature set."""
    name = fleet.machine_class.name
    production = known.pointer(name, Alias.PRODUCTION)
    if production is None:
        return None
    try:
        if known.verified(name, production.version) != production.digest:
            return None
        bundle = scoring.load_bundle(platform.bundle_dir(name, production.version))
    except AegisError:
        return None
    return production if bundle.feature_set == fleet.machine_class.feature_set else None


def _since(known: Releases, name: str, shadow: Pointer, now: datetime) -> datetime:
    """When the shadow took its place; now when nobody recorded it."""
    times: list[datetime] = [
        d["decided_at"]
        for d in known.decisions(name)
        if d["model_digest"] == shadow.digest and d["decision"] == Verdict.SHADOWED
    ]
    return times[-1] if times else now
