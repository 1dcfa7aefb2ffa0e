"""A logged prediction computed again, from its logged vector and the signed bundle it names.

The log holds probability, risk and failure mode; those are compared, the probability bit for bit.
Contributions and the explanation are not in the log: they follow from the same vector and bundle
and are given anew. A limit-rule answer has no bundle: it is judged by the class as it is declared
today, which must still have the feature set of then.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aegisops import anomaly, audit_chain, explain, scoring, thresholds
from aegisops.errors import Permanent, UntrustedBundle
from aegisops.machines import MachineClass
from aegisops.names import RiskLevel, Rung

COMPARED = ("probability", "risk", "failure_mode")
_SEVERITY = [RiskLevel.UNKNOWN, RiskLevel.NORMAL, RiskLevel.ELEVATED, RiskLevel.HIGH]


class NotComputable(Permanent):
    """What the prediction was made from is not there any more."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A prediction of then beside the same computed now."""

    prediction_id: str
    served_by: str
    is_record_intact: bool
    """The record has the digest that its chain holds."""
    logged: dict[str, Any]
    """`COMPARED` as answered then."""
    computed: dict[str, Any] | None
    """`COMPARED` as computed now; None where nothing is computed (an abstention)."""
    differences: tuple[str, ...]
    """Names of `COMPARED` that are not equal."""
    explanation: str
    contributions: list[dict[str, Any]] = field(default_factory=list)
    """The largest, as in the answer."""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    """Every input of the model, in vector order; empty without a model."""

    @property
    def is_equal(self) -> bool:
        """The record is intact and nothing differs."""
        return self.is_record_intact and not self.differences


def recompute(
    record: Mapping[str, Any],
    bundles: Path,
    verify: Callable[[Path], str],
    classes: Mapping[str, MachineClass],
) -> Recomputed:
    """Compute one record of the audit log again.

    Args:
        record: every field of predictions.avsc.
        bundles: folder with `<class>/<version>/bundle`.
        verify: bundle folder → digest; raises `UntrustedBundle`.
        classes: machine classes by name, as declared today.

    Raises `NotComputable` when bundle or feature set are gone, `UntrustedBundle` when the bundle
    was altered or is not the one that answered.
    """
    logged = {name: record[name] for name in COMPARED}
    computed: dict[str, Any] | None = None
    contributions: list[dict[str, Any]] = []
    inputs: list[dict[str, Any]] = []
    if record["served_by"] == Rung.PRODUCTION:
        computed, explanation, contributions, inputs = _by_model(record, bundles, verify)
    elif record["served_by"] == Rung.ANOMALY:
        computed, explanation, contributions = _by_anomaly(record, bundles, verify)
    elif record["served_by"] == Rung.THRESHOLDS:
        computed, explanation = _by_limits(record, classes)
    elif record["served_by"] == Rung.ABSTAINED:
        explanation = "It abstained: there is no number to compute."
    else:
        raise NotComputable(
            f"{record['prediction_id']}: answered by {record['served_by']!r}, "
            "which this version cannot compute again"
        )
    return Recomputed(
        prediction_id=record["prediction_id"],
        served_by=record["served_by"],
        is_record_intact=record["digest"] == audit_chain.digest(record, record["previous_digest"]),
        logged=logged,
        computed=computed,
        differences=()
        if computed is None
        else tuple(n for n in COMPARED if not same(logged[n], computed[n])),
        explanation=explanation,
        contributions=contributions,
        inputs=inputs,
    )


def same(a: object, b: object) -> bool:
    """Equal; floats bit for bit."""
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    return a == b


def _by_model(
    record: Mapping[str, Any], bundles: Path, verify: Callable[[Path], str]
) -> tuple[dict[str, Any], str, list[dict[str, Any]], list[dict[str, Any]]]:
    bundle = _bundle(record, bundles, verify)
    vector = np.asarray(record["vector"], np.float64)
    if bundle.feature_set != record["feature_set"]:
        raise UntrustedBundle(
            f"{bundle.directory}: is for {bundle.feature_set}, the record for "
            f"{record['feature_set']}; this bundle cannot have answered"
        )
    scores = scoring.score(bundle, vector[np.newaxis])
    probability = float(scores.probability[0])
    found = explain.explain(
        bundle, vector, scores.contributions[0], scores.mode_probability[0], probability
    )
    limits = thresholds.judge(bundle.machine_class, vector, bundle.vector)
    computed = {
        "probability": probability,
        "risk": bundle.risk(probability),
        "failure_mode": found.failure_mode,
    }
    sentence = f"{found.sentence} {limits.sentence}" if limits.violations else found.sentence
    everything = explain.every_reason(bundle, vector, scores.contributions[0])
    top, inputs = ([asdict(r) for r in reasons] for reasons in (found.reasons, everything))
    return computed, sentence, top, inputs


def _by_anomaly(
    record: Mapping[str, Any], bundles: Path, verify: Callable[[Path], str]
) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
    """By the forest, with the limit rules of the class as it was when the bundle was made."""
    bundle = _bundle(record, bundles, verify)
    if bundle.forest is None or bundle.feature_set != record["feature_set"]:
        raise UntrustedBundle(
            f"{bundle.directory}: has no forest for {record['feature_set']}; "
            "this bundle cannot have answered"
        )
    vector = np.asarray(record["vector"], np.float64)
    score = anomaly.score(bundle.forest, vector[np.newaxis])
    probability = float(anomaly.calibrate(bundle.forest, score)[0])
    found = explain.explain_unusual(bundle, vector, float(score[0]), probability)
    limits = thresholds.judge(bundle.machine_class, vector, bundle.vector)
    mode = limits.failure_mode or found.failure_mode
    computed = {
        "probability": probability,
        "risk": max(RiskLevel(bundle.risk(probability)), limits.risk, key=_SEVERITY.index).value,
        "failure_mode": mode if mode in bundle.machine_class.failure_modes else None,
    }
    sentence = f"{found.sentence} {limits.sentence}" if limits.violations else found.sentence
    return computed, sentence, [asdict(reason) for reason in found.reasons]


def _bundle(
    record: Mapping[str, Any], bundles: Path, verify: Callable[[Path], str]
) -> scoring.Bundle:
    version, digest = str(record["model_version"]), record["model_digest"]
    name = str(record["feature_set"]).partition("@")[0]
    for part in (name, version):
        if not part or part.startswith(".") or "/" in part or "\\" in part:
            raise NotComputable(f"{part!r} is no class and no version: the record was altered")
    folder = bundles / name / version / "bundle"
    if not folder.is_dir():
        raise NotComputable(
            f"{folder}: version {version} of {name} is not kept any more; restore its folder and "
            f"bundle.sig (digest {digest}) from a backup or the model registry"
        )
    verified = verify(folder)
    if verified != digest:
        raise UntrustedBundle(
            f"{folder}: digest {verified} is not {digest}, which answered; restore the bundle "
            "that was in production then"
        )
    bundle = scoring.load_bundle(folder)
    # What was loaded must be what was verified, even if files changed in between.
    if bundle.digest != digest:
        raise UntrustedBundle(f"{folder}: the bundle changed while it was loaded")
    return bundle


def _by_limits(
    record: Mapping[str, Any], classes: Mapping[str, MachineClass]
) -> tuple[dict[str, Any], str]:
    name = str(record["feature_set"]).partition("@")[0]
    declared = classes.get(name)
    if declared is None or declared.feature_set != record["feature_set"]:
        now = "not declared" if declared is None else f"now {declared.feature_set}"
        raise NotComputable(
            f"the limit rules of {record['feature_set']} are gone: {name} is {now}; put the class "
            "file of then into the folder of AEGIS_CLASSES_DIR"
        )
    limits = thresholds.judge(declared, record["vector"])
    mode = limits.failure_mode if limits.failure_mode in declared.failure_modes else None
    risk = RiskLevel(limits.risk).value
    return {"probability": None, "risk": risk, "failure_mode": mode}, limits.sentence
