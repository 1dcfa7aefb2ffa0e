"""Candidate or shadow → production, as a recorded decision. Trusts no earlier step.

The first model of a class is promoted as a candidate. Where a production model answers, the shadow
is: when it has scored enough served vectors beside it and nothing speaks against it. Until then it
waits, and nothing is recorded. A person's wish does not wait for the shadow; the record says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aegisops import releases, signing
from aegisops.errors import AegisError
from aegisops.names import Alias, Verdict, pointer_file
from aegisops.registry import Version
from aegisops.releases import Pointer, bundle_version
from aegisops.shadow_comparison import Comparison, compare_models
from aegisops_assets.steps import validation
from aegisops_assets.steps.platform import Fleet, Platform
from aegisops_assets.steps.shadow import comparable_production

POINTER = pointer_file(Alias.PRODUCTION)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one candidate, and why."""

    machine_class: str
    model_version: str
    digest: str
    promoted: bool
    reason: str
    is_waiting: bool = False
    """Neither promoted nor refused: the shadow has not scored enough yet."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A person's wish to promote: why, and which version (empty: the candidate).

    It passes the same checks; only that a model was rolled back does not speak against it.
    """

    reason: str
    version: str = ""


def promote(
    platform: Platform,
    *,
    decided_by: str,
    classes: Iterable[str] = (),
    wish: Wish | None = None,
) -> list[Decision]:
    """Decide about each class's candidate; a model already in production is left as it is."""
    made = []
    known = platform.releases()
    for fleet in platform.fleets(classes):
        name = fleet.machine_class.name
        model = _model(platform, known, name, wish)
        if model is None:
            continue
        version = bundle_version(model)
        bundle = platform.bundle_dir(name, version)
        serving = known.pointer(name, Alias.PRODUCTION)
        if serving is not None and serving.digest == model.digest and _valid(platform, bundle):
            made.append(Decision(name, version, model.digest, True, "already in production"))
            continue
        production = comparable_production(platform, known, fleet)
        comparison = None
        if production is not None and wish is None and _valid(platform, bundle):
            comparison = _comparison(known, fleet, production, model)
            if comparison is None or not comparison.is_enough:
                why = _waiting_for(known, name, model) if comparison is None else comparison.told
                made.append(Decision(name, version, model.digest, False, why, is_waiting=True))
                continue
        decision = _decide(platform, fleet, bundle, model, wish=wish, comparison=comparison)
        _carry_out(known, decision, bundle, decided_by, comparison)
        made.append(decision)
    return made


def _model(
    platform: Platform, known: releases.Releases, name: str, wish: Wish | None
) -> Version | None:
    """What is decided about: what a person named, else the shadow, else the candidate."""
    if wish is not None and wish.version:
        return known.find(name, wish.version)
    shadow = known.pointer(name, Alias.SHADOW)
    if wish is None and shadow is not None:
        return known.find(name, shadow.version)
    return platform.registry.by_alias(name, Alias.CANDIDATE)


def _waiting_for(known: releases.Releases, name: str, model: Version) -> str:
    """Why a candidate that is no shadow is not considered."""
    gone = known.rolled_back(name, model.digest)
    if gone is None:
        return "not in the shadow"
    return _rolled_back(gone)


def _rolled_back(decision: Mapping[str, Any]) -> str:
    return (
        f"rolled back by {decision['decided_by']}: {decision['reason']}; a person may bring it "
        "back with `aegisops models promote`"
    )


def _comparison(
    known: releases.Releases, fleet: Fleet, production: Pointer, model: Version
) -> Comparison | None:
    """What is logged of the shadow beside production; None for a model that is no shadow."""
    shadow = known.pointer(fleet.machine_class.name, Alias.SHADOW)
    if shadow is None or shadow.digest != model.digest:
        return None
    return compare_models(known, fleet.machine_class, production, shadow)


def _decide(
    platform: Platform,
    fleet: Fleet,
    bundle: Path,
    candidate: Version,
    *,
    wish: Wish | None,
    comparison: Comparison | None,
) -> Decision:
    """Examines the candidate again: the evidence file is not signed, so it is not believed."""
    name = fleet.machine_class.name

    def decision(promoted: bool, *reasons: str) -> Decision:
        wished = () if wish is None else (wish.reason,)
        return Decision(
            name, bundle.parent.name, candidate.digest, promoted, "; ".join((*wished, *reasons))
        )

    try:
        digest = signing.verify(bundle, platform.keys().public)
        evidence = validation.load(bundle)
    except AegisError as error:
        return decision(False, str(error))
    if not digest == candidate.digest == evidence.digest:
        return decision(False, "bundle, registry and evidence are not about the same model")
    rolled_back = platform.releases().rolled_back(name, digest)
    if rolled_back is not None and wish is None:
        return decision(False, _rolled_back(rolled_back))
    again = validation.examine(platform, fleet, bundle, digest)
    failed = [check for check in (*evidence.checks, *again.checks) if not check.passed]
    objections = [] if comparison is None else comparison.objections
    if failed or objections:
        return decision(False, *(f"{check.name}: {check.why}" for check in failed), *objections)
    if comparison is not None:
        return decision(True, comparison.told, *(check.why for check in again.checks))
    skipped = ("not compared in the shadow",) if wish is not None else ()
    return decision(True, *skipped, *(check.why for check in again.checks))


def _valid(platform: Platform, bundle: Path) -> bool:
    try:
        signing.verify(bundle, platform.keys().public)
    except AegisError:
        return False
    return True


def _carry_out(
    known: releases.Releases,
    decision: Decision,
    bundle: Path,
    decided_by: str,
    comparison: Comparison | None,
) -> None:
    """Record and move; a shadow that was decided about leaves the shadow."""
    try:
        found = asdict(validation.load(bundle))
    except AegisError:
        found = {}
    if comparison is not None:
        found["shadow"] = comparison.as_json()
    evidence = json.dumps(found, sort_keys=True)
    recorded = releases.Decision(
        decision.machine_class,
        decision.model_version,
        decision.digest,
        Verdict.PROMOTED if decision.promoted else Verdict.REFUSED,
        decided_by,
        decision.reason,
        evidence,
    )
    if decision.promoted:
        known.promoted(recorded)
    else:
        known.record(recorded)
    shadow = known.pointer(decision.machine_class, Alias.SHADOW)
    if shadow is not None and shadow.digest == decision.digest:
        end = "promoted" if decision.promoted else "refused"
        known.unshadow(decision.machine_class, decided_by=decided_by, reason=end)
