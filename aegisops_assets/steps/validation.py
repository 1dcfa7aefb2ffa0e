"""Is the candidate fit to serve? Checks on the test fold; the evidence lies beside the bundle."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from aegisops import anomaly, scoring, signing, thresholds
from aegisops.errors import AegisError, Permanent
from aegisops.machines import MachineClass
from aegisops.modelling import metrics
from aegisops.modelling.measure import Exam
from aegisops.modelling.rows import Floats, Matrix, matrix
from aegisops.modelling.split import TEST
from aegisops.names import Alias
from aegisops.releases import EVIDENCE
from aegisops_assets.steps.platform import Fleet, Platform
from aegisops_assets.steps.training import training_rows

WORST_CALIBRATION_ERROR = 0.1
REPLICATES = 200


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of promotion."""

    name: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Evidence:
    """What promotion rests on; `digest` ties it to one bundle."""

    machine_class: str
    bundle_version: str
    digest: str
    checks: tuple[Check, ...]
    figures: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    def save(self, bundle: Path) -> Path:
        """Write beside the bundle folder (inside it would break the signature)."""
        path = bundle.with_name(EVIDENCE)
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True))
        return path


def load(bundle: Path) -> Evidence:
    """The evidence of a bundle. Raises `Permanent` when it was never validated."""
    try:
        found = json.loads(bundle.with_name(EVIDENCE).read_text())
    except (OSError, ValueError) as error:
        raise Permanent(f"{bundle}: no validation evidence ({error}); run ml/validation") from error
    checks = tuple(Check(**check) for check in found.pop("checks"))
    return Evidence(checks=checks, **found)


def validate(platform: Platform, *, classes: Iterable[str] = ()) -> list[Evidence]:
    """Examine each class's candidate on machines and times it has not seen."""
    made = []
    for fleet in platform.fleets(classes):
        name = fleet.machine_class.name
        candidate = platform.registry.by_alias(name, Alias.CANDIDATE)
        if candidate is None:
            continue
        bundle = platform.bundle_dir(name, candidate.tags["bundle_version"])
        if training_rows(platform, fleet).is_empty():
            continue
        evidence = examine(platform, fleet, bundle, candidate.digest)
        evidence.save(bundle)
        made.append(evidence)
    return made


def examine(platform: Platform, fleet: Fleet, folder: Path, digest: str) -> Evidence:
    """Figures and checks of one bundle on the test fold; deterministic, writes nothing."""
    checks = [_signature(platform, folder, digest)]
    figures: dict[str, Any] = {}
    rows = training_rows(platform, fleet).filter(pl.col("fold") == TEST)
    if rows.is_empty():
        why = "the class has no test rows; run ml/training_set"
        checks.append(Check("examined", passed=False, why=why))
    elif checks[0].passed:
        loaded = scoring.load_bundle(folder)
        exam = Exam(rows, fleet.machine_class, loaded.horizon_us, replicates=REPLICATES)
        data = matrix(rows, fleet.machine_class)
        probability = scoring.probabilities(loaded, data)
        figures["candidate"] = exam.any_failure(probability, loaded.thresholds["elevated"])
        figures["prevalence"] = float(exam.y.mean())
        _beside_anomaly(loaded, exam, data, probability, figures)
        checks += [
            *_beats_simple_rules(exam, data, probability, figures),
            _calibrated(figures),
            _no_worse_than_production(platform, exam, data, probability, figures),
        ]
    return Evidence(
        fleet.machine_class.name, folder.parent.name, digest, tuple(checks), _finite(figures)
    )


def _signature(platform: Platform, folder: Path, digest: str) -> Check:
    try:
        signed = signing.verify(folder, platform.keys().public)
    except AegisError as error:
        return Check("signature_valid", passed=False, why=str(error))
    same = signed == digest
    why = f"digest {signed[:12]}" + ("" if same else f" is not the registered {digest[:12]}")
    return Check("signature_valid", passed=same, why=why)


def _beats_simple_rules(
    exam: Exam, data: Matrix, probability: Floats, figures: dict[str, Any]
) -> list[Check]:
    found, prevalence = figures["candidate"]["pr_auc"], figures["prevalence"]
    checks = [
        Check(
            "beats_prevalence",
            passed=found > prevalence,
            why=f"PR-AUC {found:.3f}, chance {prevalence:.3f}",
        )
    ]
    if exam.machine_class.thresholds:
        severity = thresholds.severity(exam.machine_class, data)
        figures["limit_rules"], _ = exam.ranking(severity)
        checks.append(_no_worse("not_worse_than_limit_rules", exam, probability, severity, figures))
    return checks


def _beside_anomaly(
    loaded: scoring.Bundle, exam: Exam, data: Matrix, probability: Floats, figures: dict[str, Any]
) -> None:
    """Figures of the forest that stands in for the model; no condition of promotion."""
    if loaded.forest is None:
        return
    scores = np.nan_to_num(anomaly.score(loaded.forest, data), nan=0.0)
    figures["anomaly"], _ = exam.ranking(scores)
    figures["gain_over_anomaly"] = _paired(exam, probability, scores)


def _no_worse(
    name: str, exam: Exam, ours: Floats, theirs: Floats, figures: dict[str, Any]
) -> Check:
    """Refused only when the other is better beyond chance (95 %)."""
    found = figures[name] = _paired(exam, ours, theirs)
    high = found["high"]
    upper = "unknown" if high is None else f"{high:+.3f}"
    return Check(
        name,
        passed=high is None or high >= 0,
        why=f"PR-AUC gain {found['pr_auc_gain']:+.3f}, its 95 % interval ends at {upper}",
    )


def _paired(exam: Exam, ours: Floats, theirs: Floats) -> dict[str, Any]:
    """Gain in PR-AUC on the same rows, with its 95 % interval over machines."""
    mine, other = metrics.Ranking(exam.y, ours), metrics.Ranking(exam.y, theirs)
    machine = exam.timeline.machine
    gain = mine.average_precision() - other.average_precision()
    drawn = metrics.machine_weights(machine, REPLICATES, seed=0)[:, machine]
    between = metrics.interval(
        np.array([mine.average_precision(w) - other.average_precision(w) for w in drawn])
    )
    return {"pr_auc_gain": gain, **between}


def _calibrated(figures: dict[str, Any]) -> Check:
    error = figures["candidate"]["calibration_error"]
    return Check(
        "calibrated",
        passed=error <= WORST_CALIBRATION_ERROR,
        why=f"calibration error {error:.3f}, at most {WORST_CALIBRATION_ERROR:g}",
    )


def _no_worse_than_production(
    platform: Platform,
    exam: Exam,
    data: Matrix,
    probability: Floats,
    figures: dict[str, Any],
) -> Check:
    name = "not_worse_than_production"
    serving, why = in_production(platform, exam.machine_class)
    if serving is None:
        return Check(name, passed=True, why=why)
    theirs = scoring.probabilities(serving, data)
    figures["production"] = exam.any_failure(theirs, serving.thresholds["elevated"])
    figures["production"]["version"] = serving.version
    return _no_worse(name, exam, probability, theirs, figures)


def in_production(
    platform: Platform, machine_class: MachineClass
) -> tuple[scoring.Bundle | None, str]:
    """The model now in production, or why there is none to compare with."""
    production = platform.registry.by_alias(machine_class.name, Alias.PRODUCTION)
    if production is None:
        return None, "nothing is in production yet"
    folder = platform.bundle_dir(machine_class.name, production.tags["bundle_version"])
    try:
        serving = scoring.load_bundle(folder)
    except AegisError as error:
        return None, f"production cannot be loaded: {error}"
    if serving.vector != machine_class.vector:
        return None, "production uses another feature set"
    return serving, ""


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
