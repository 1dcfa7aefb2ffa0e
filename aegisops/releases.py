"""Which model is in use: pointers, recorded decisions, and the moves a person makes.

A pointer `<bundles>/<class>/<alias>.json` names version and digest; the API follows it. Every move
is first noted in MLflow and ops/model_decisions and then made by replacing the pointer, so that no
model is in use without a decision, and a move that broke off is made again by repeating it. Whether
a candidate is good enough is not decided here but by aegisops_assets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from aegisops import signing
from aegisops.errors import Permanent, UntrustedBundle
from aegisops.lake import Lake
from aegisops.names import Alias, Verdict, pointer_file
from aegisops.registry import ModelRegistry, Version
from aegisops.schemas.tables import MODEL_DECISIONS
from aegisops.settings import Settings

EVIDENCE = "evidence.json"
_TO_PRODUCTION = (Verdict.PROMOTED, Verdict.RESTORED)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What an alias points to."""

    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of ops/model_decisions without its time."""

    machine_class: str
    version: str
    digest: str
    verdict: Verdict
    decided_by: str
    reason: str
    evidence: str = "{}"


@dataclass(frozen=True)
class Releases:
    """The models of one data folder."""

    bundles: Path
    public_key: Path
    lake: Lake
    registry: ModelRegistry

    @classmethod
    def of(cls, settings: Settings) -> Releases:
        """What the settings describe; nothing is opened and no key is made."""
        return cls(
            settings.bundles_dir,
            settings.signing.public_key or settings.keys_dir / signing.PUBLIC_KEY,
            Lake(settings.lake_root),
            ModelRegistry(settings.mlflow_uri, settings.data_dir.absolute() / "mlflow"),
        )

    def bundle(self, machine_class: str, version: str) -> Path:
        """Folder of a bundle; its signature and evidence lie beside it."""
        return self.bundles / machine_class / version / "bundle"

    def evidence(self, machine_class: str, version: str) -> dict[str, Any]:
        """What validation found about a bundle; empty when it was never validated."""
        return _read(self.bundle(machine_class, version).with_name(EVIDENCE))

    # --- pointers -----------------------------------------------------------------------------

    def pointer(self, machine_class: str, alias: Alias) -> Pointer | None:
        """What the alias points to; None when nothing (readable) is there."""
        found = _read(self.bundles / machine_class / pointer_file(alias))
        try:
            return Pointer(str(found["version"]), str(found["digest"]))
        except KeyError:
            return None

    def point(self, machine_class: str, alias: Alias, pointer: Pointer) -> None:
        """Replace the pointer in one rename: a model slot sees the old model or the new one."""
        path = self.bundles / machine_class / pointer_file(alias)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps({"version": pointer.version, "digest": pointer.digest}))
        draft.replace(path)

    # --- decisions ----------------------------------------------------------------------------

    def decisions(self, machine_class: str) -> list[dict[str, Any]]:
        """Rows of ops/model_decisions about a class, oldest first."""
        rows = self.lake.scan(MODEL_DECISIONS).filter(pl.col("machine_class") == machine_class)
        return rows.sort("decided_at", maintain_order=True).collect().to_dicts()

    def record(self, *decisions: Decision) -> None:
        """Append decisions that were made together, in one commit."""
        now = datetime.now(UTC)
        rows = [
            {
                "decided_at": now,
                "machine_class": d.machine_class,
                "model_version": d.version,
                "model_digest": d.digest,
                "decision": d.verdict.value,
                "decided_by": d.decided_by,
                "reason": d.reason,
                "evidence": d.evidence,
            }
            for d in decisions
        ]
        self.lake.append(MODEL_DECISIONS, pl.DataFrame(rows))

    def rolled_back(self, machine_class: str, digest: str) -> dict[str, Any] | None:
        """The decision that took this model out of production, if it is the last word on it."""
        words = {Verdict.ROLLED_BACK, *_TO_PRODUCTION}
        about = [
            row
            for row in self.decisions(machine_class)
            if row["model_digest"] == digest and row["decision"] in words
        ]
        return about[-1] if about and about[-1]["decision"] == Verdict.ROLLED_BACK else None

    # --- moves --------------------------------------------------------------------------------

    def verified(self, machine_class: str, version: str) -> str:
        """Digest of a bundle that is as signed and as registered.

        Raises `UntrustedBundle` otherwise, and `Permanent` when the version is not registered.
        """
        digest = signing.verify(self.bundle(machine_class, version), self.public_key)
        registered = self.find(machine_class, version).digest
        if registered != digest:
            raise UntrustedBundle(
                f"{machine_class} {version}: digest {digest[:12]} on disk, {registered[:12]} in "
                "the registry; train the model again"
            )
        return digest

    def find(self, machine_class: str, version: str) -> Version:
        """The registered version with this bundle version or registry number.

        Raises `Permanent` when there is none.
        """
        history = self.registry.history(machine_class)
        for found in history:
            if version in {bundle_version(found), found.version}:
                return found
        known = ", ".join(bundle_version(v) for v in history) or "none"
        raise Permanent(f"{machine_class} has no model {version!r}; registered: {known}")

    def rollback(self, machine_class: str, *, decided_by: str, reason: str) -> Decision:
        """Put the promoted model before the present one back into production.

        Models that are no longer valid are passed over and named in the reason. Repeating it goes
        further back. Raises `Permanent` when there is nothing to go back to.
        """
        current = self.pointer(machine_class, Alias.PRODUCTION)
        skipped = []
        for target in reversed(_before(current, self.decisions(machine_class))):
            try:
                digest = self.verified(machine_class, target.version)
                if digest != target.digest:
                    raise UntrustedBundle(f"{target.version}: not the digest that was promoted")
            except Permanent as error:
                skipped.append(str(error))
                continue
            why = "; ".join([reason, *(f"passed over: {s}" for s in skipped)])
            restored = Decision(
                machine_class, target.version, digest, Verdict.RESTORED, decided_by, why,
                json.dumps(self.evidence(machine_class, target.version), sort_keys=True),
            )  # fmt: skip
            decisions = [restored]
            if current is not None:
                decisions.append(
                    Decision(
                        machine_class, current.version, current.digest,
                        Verdict.ROLLED_BACK, decided_by, reason,
                    )
                )  # fmt: skip
            self._move(Alias.PRODUCTION, restored, decisions)
            return restored
        raise Permanent(
            "; ".join([f"{machine_class} has no earlier promoted model that is valid", *skipped])
        )

    def shadow(self, machine_class: str, version: str, *, decided_by: str, reason: str) -> Decision:
        """Let a signed, registered model score beside production.

        Raises `UntrustedBundle` or `Permanent` when it must not.
        """
        name = bundle_version(self.find(machine_class, version))
        digest = self.verified(machine_class, name)
        decision = Decision(machine_class, name, digest, Verdict.SHADOWED, decided_by, reason)
        self._move(Alias.SHADOW, decision, [decision])
        return decision

    def unshadow(self, machine_class: str, *, decided_by: str, reason: str) -> Decision | None:
        """End the shadow; None when there is none."""
        current = self.pointer(machine_class, Alias.SHADOW)
        if current is None:
            return None
        decision = Decision(
            machine_class, current.version, current.digest, Verdict.UNSHADOWED, decided_by, reason
        )
        self.registry.unpoint(machine_class, Alias.SHADOW)
        self.record(decision)
        (self.bundles / machine_class / pointer_file(Alias.SHADOW)).unlink(missing_ok=True)
        return decision

    def promoted(self, decision: Decision) -> None:
        """Make a promotion that was decided: alias, record, pointer."""
        self._move(Alias.PRODUCTION, decision, [decision])

    def _move(self, alias: Alias, to: Decision, decisions: Iterable[Decision]) -> None:
        number = self.find(to.machine_class, to.version).version
        tags = {"decided_by": to.decided_by, "reason": to.reason}
        self.registry.point(to.machine_class, alias, number, tags)
        self.record(*decisions)
        self.point(to.machine_class, alias, Pointer(to.version, to.digest))


def bundle_version(registered: Version) -> str:
    """Version of the bundle behind a registered version; its number when nobody tagged it."""
    return registered.tags.get("bundle_version", registered.version)


def _before(current: Pointer | None, decisions: Iterable[Mapping[str, Any]]) -> list[Pointer]:
    """Models that were in production before the present one, oldest first.

    Promotions make a stack; a rollback takes off all that came after the model it restored.
    """
    stack: list[Pointer] = []
    for row in decisions:
        if row["decision"] not in _TO_PRODUCTION:
            continue
        model = Pointer(row["model_version"], row["model_digest"])
        if row["decision"] == Verdict.RESTORED and model in stack:
            del stack[stack.index(model) :]
        stack = [other for other in stack if other != model]
        stack.append(model)
    if current is None:  # withdrawn by removing the pointer: the last one is not wanted
        return stack[:-1]
    return stack[: stack.index(current)] if current in stack else stack


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
