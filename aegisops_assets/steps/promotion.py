"""Candidate → production, as a recorded decision. Trusts no earlier step: verifies again itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from aegisops import signing
from aegisops.errors import AegisError
from aegisops.names import Alias
from aegisops.registry import Version
from aegisops.schemas.tables import MODEL_DECISIONS
from aegisops_assets.steps import validation
from aegisops_assets.steps.platform import Fleet, Platform

POINTER = "production.json"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one candidate, and why."""

    machine_class: str
    model_version: str
    digest: str
    promoted: bool
    reason: str


def promote(platform: Platform, *, decided_by: str, classes: Iterable[str] = ()) -> list[Decision]:
    """Decide about each class's candidate; a model already in production is left as it is."""
    made = []
    for fleet in platform.fleets(classes):
        name = fleet.machine_class.name
        candidate = platform.registry.by_alias(name, Alias.CANDIDATE)
        if candidate is None:
            continue
        bundle = platform.bundle_dir(name, candidate.tags["bundle_version"])
        serving = _pointer(platform, name)
        if serving.get("digest") == candidate.digest and _valid(platform, bundle):
            made.append(
                Decision(name, bundle.parent.name, candidate.digest, True, "already in production")
            )
            continue
        decision = _decide(platform, fleet, bundle, candidate)
        if decision.promoted:
            tags = {"decided_by": decided_by, "reason": decision.reason}
            platform.registry.point(name, Alias.PRODUCTION, candidate.version, tags)
            _write_pointer(platform, decision)
        _record(platform, decision, bundle, decided_by)
        made.append(decision)
    return made


def _decide(platform: Platform, fleet: Fleet, bundle: Path, candidate: Version) -> Decision:
    """Examines the candidate again: the evidence file is not signed, so it is not believed."""
    name = fleet.machine_class.name

    def decision(promoted: bool, reason: str) -> Decision:
        return Decision(name, bundle.parent.name, candidate.digest, promoted, reason)

    try:
        digest = signing.verify(bundle, platform.keys().public)
        evidence = validation.load(bundle)
    except AegisError as error:
        return decision(False, str(error))
    if not digest == candidate.digest == evidence.digest:
        return decision(False, "bundle, registry and evidence are not about the same model")
    again = validation.examine(platform, fleet, bundle, digest)
    failed = [check for check in (*evidence.checks, *again.checks) if not check.passed]
    if failed:
        return decision(False, "; ".join(f"{check.name}: {check.why}" for check in failed))
    return decision(True, "; ".join(check.why for check in again.checks))


def _valid(platform: Platform, bundle: Path) -> bool:
    try:
        signing.verify(bundle, platform.keys().public)
    except AegisError:
        return False
    return True


def _pointer_path(platform: Platform, machine_class: str) -> Path:
    return platform.settings.bundles_dir / machine_class / POINTER


def _pointer(platform: Platform, machine_class: str) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(_pointer_path(platform, machine_class).read_text())
    except (OSError, ValueError):
        return {}
    return found


def _write_pointer(platform: Platform, decision: Decision) -> None:
    """Replace the pointer in one rename: the model slot sees the old model or the new one."""
    path = _pointer_path(platform, decision.machine_class)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({"version": decision.model_version, "digest": decision.digest}))
    draft.replace(path)


def _record(platform: Platform, decision: Decision, bundle: Path, decided_by: str) -> None:
    try:
        evidence = json.dumps(asdict(validation.load(bundle)), sort_keys=True)
    except AegisError:
        evidence = "{}"
    row = pl.DataFrame(
        {
            "decided_at": [datetime.now(UTC)],
            "machine_class": [decision.machine_class],
            "model_version": [decision.model_version],
            "model_digest": [decision.digest],
            "decision": ["promoted" if decision.promoted else "refused"],
            "decided_by": [decided_by],
            "reason": [decision.reason],
            "evidence": [evidence],
        }
    )
    platform.lake.append(MODEL_DECISIONS, row)
