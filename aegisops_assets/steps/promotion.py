"""Candidate → production, as a recorded decision. Trusts no earlier step: verifies again itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from aegisops import releases, signing
from aegisops.errors import AegisError
from aegisops.names import Alias, Verdict, pointer_file
from aegisops.registry import Version
from aegisops.releases import bundle_version
from aegisops_assets.steps import validation
from aegisops_assets.steps.platform import Fleet, Platform

POINTER = pointer_file(Alias.PRODUCTION)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one candidate, and why."""

    machine_class: str
    model_version: str
    digest: str
    promoted: bool
    reason: str


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
        if wish is not None and wish.version:
            candidate: Version | None = known.find(name, wish.version)
        else:
            candidate = platform.registry.by_alias(name, Alias.CANDIDATE)
        if candidate is None:
            continue
        bundle = platform.bundle_dir(name, bundle_version(candidate))
        serving = known.pointer(name, Alias.PRODUCTION)
        if serving is not None and serving.digest == candidate.digest and _valid(platform, bundle):
            made.append(
                Decision(name, bundle.parent.name, candidate.digest, True, "already in production")
            )
            continue
        decision = _decide(platform, fleet, bundle, candidate, wish)
        _carry_out(known, decision, bundle, decided_by)
        made.append(decision)
    return made


def _decide(
    platform: Platform, fleet: Fleet, bundle: Path, candidate: Version, wish: Wish | None
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
        return decision(
            False,
            f"rolled back by {rolled_back['decided_by']}: {rolled_back['reason']}; a person may "
            "bring it back with `aegisops models promote`",
        )
    again = validation.examine(platform, fleet, bundle, digest)
    failed = [check for check in (*evidence.checks, *again.checks) if not check.passed]
    if failed:
        return decision(False, *(f"{check.name}: {check.why}" for check in failed))
    return decision(True, *(check.why for check in again.checks))


def _valid(platform: Platform, bundle: Path) -> bool:
    try:
        signing.verify(bundle, platform.keys().public)
    except AegisError:
        return False
    return True


def _carry_out(known: releases.Releases, decision: Decision, bundle: Path, decided_by: str) -> None:
    try:
        evidence = json.dumps(asdict(validation.load(bundle)), sort_keys=True)
    except AegisError:
        evidence = "{}"
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
