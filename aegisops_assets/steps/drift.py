"""gold/features, silver/tiles, production bundle → ops/drift, a page and a JSON per class."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from aegisops import drift_report
from aegisops.machines import MachineClass
from aegisops.modelling import drift
from aegisops.modelling.drift import Finding, Kind, Verdict
from aegisops.schemas.tables import DRIFT
from aegisops_assets.steps import drift_inputs as inputs
from aegisops_assets.steps.life_coverage import Coverage, since_training
from aegisops_assets.steps.platform import Fleet, Platform

KEPT_PAGES = 10


@dataclass(frozen=True)
class ClassReport:
    """One class's comparison."""

    machine_class: str
    run_id: str
    checked_at: datetime
    current_from: datetime
    current_until: datetime
    findings: tuple[Finding, ...]
    doubtful: tuple[tuple[str, ...], ...]
    """Per finding: failure modes whose alarms it puts in doubt."""
    repaired: tuple[str, ...]
    new_regime: tuple[str, ...]
    note: str
    """Why predictions were not compared; empty when they were."""
    life: Coverage | None = None
    """How the intervals of remaining life held since training; asked only after drift."""

    @property
    def has_drifted(self) -> bool:
        """Whether data or predictions drifted, so that a new model may help."""
        return drift.has_drifted(self.findings)

    @property
    def quality(self) -> tuple[Finding, ...]:
        """Sensors that are worse, or better, than before."""
        return tuple(
            f for f in self.findings if f.kind is Kind.QUALITY and f.verdict is Verdict.DRIFTED
        )

    @property
    def stem(self) -> str:
        """File name of the report without suffix; sorts by time."""
        return f"{self.checked_at:%Y%m%dT%H%M%S}-{self.run_id[:8]}"

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file says, beside Evidently's part."""
        findings = [
            asdict(f) | {"doubtful_modes": list(modes)}
            for f, modes in zip(self.findings, self.doubtful, strict=True)
        ]
        about = {name: value for name, value in asdict(self).items() if name != "doubtful"}
        return about | {"drifted": self.has_drifted, "findings": findings}


def report(
    platform: Platform, *, run_id: str, now: datetime, classes: Iterable[str] = ()
) -> list[ClassReport]:
    """Compare each class's newest window with its past; write table, JSON and page.

    A class without features is left out.
    """
    made = []
    for fleet in platform.fleets(classes):
        compared = _compare(platform, fleet, run_id, now)
        if compared is None:
            continue
        found, windows = compared
        folder = platform.settings.drift_reports_dir / found.machine_class
        _write_files(folder, found, windows)
        platform.lake.append(DRIFT, _rows(found))
        made.append(found)
    return made


def newest(platform: Platform) -> dict[str, tuple[str, datetime, bool]]:
    """Class → run, time and whether it drifted, of each class's newest report."""
    rows = (
        platform.lake.scan(DRIFT)
        .with_columns(counts=pl.col("drifted") & (pl.col("kind") != Kind.QUALITY))
        .group_by("machine_class", "run_id", "checked_at")
        .agg(pl.col("counts").any())
        .sort("checked_at")
        .group_by("machine_class", maintain_order=True)
        .last()
        .collect()
    )
    columns = ("machine_class", "run_id", "checked_at", "counts")
    return {name: (run, at, counts) for name, run, at, counts in rows.select(columns).iter_rows()}


def page(platform: Platform, found: ClassReport) -> Path:
    """The report's HTML file; absent when nothing could be compared."""
    folder = platform.settings.drift_reports_dir / found.machine_class
    return folder / f"{found.stem}.html"


def _compare(
    platform: Platform, fleet: Fleet, run_id: str, now: datetime
) -> tuple[ClassReport, drift.Windows] | None:
    machine_class = fleet.machine_class
    interval = max(machine_class.horizon, machine_class.step)
    found_reach = inputs.reach(platform, fleet, interval)
    if found_reach is None:
        return None
    bundle, note = inputs.production(platform, machine_class)
    trained = None
    if bundle is not None:
        at = datetime.fromisoformat(bundle.manifest["trained_at"])
        trained = (at - inputs.EPOCH) // timedelta(microseconds=interval)
    first, last = found_reach
    length = drift.window_length(last - first + 1, len(fleet.machine_ids))
    end = last - length + 1 if trained is None else min(last - length, trained) + 1
    since = (end - drift.REFERENCE_WINDOWS * length) * interval
    rows = inputs.rows_per_interval(platform, fleet, bundle, interval, since)
    repairs, regimes = inputs.context(platform, fleet, interval)
    windows = drift.split(rows, trained, repairs, regimes)
    findings = [
        finding
        for kind, names in inputs.compared_names(machine_class, bundle).items()
        for finding in drift.examine(windows, kind, names)
    ]
    found = ClassReport(
        machine_class.name,
        run_id,
        now,
        inputs.EPOCH + timedelta(microseconds=(last - windows.length + 1) * interval),
        inputs.EPOCH + timedelta(microseconds=(last + 1) * interval),
        tuple(findings),
        tuple(_doubtful(machine_class, f) for f in findings),
        windows.repaired,
        windows.new_regime,
        note,
    )
    if bundle is not None and found.has_drifted:
        found = replace(found, life=since_training(platform, fleet, bundle))
    return found, windows


def _doubtful(machine_class: MachineClass, finding: Finding) -> tuple[str, ...]:
    """Failure modes recognised by the drifted feature's channel; all when it concerns the whole."""
    if finding.verdict is not Verdict.DRIFTED:
        return ()
    channel = {s.name: s.channel for s in machine_class.features}.get(
        finding.feature, finding.feature.removesuffix("_bad_share")
    )
    if channel not in machine_class.channels:
        return tuple(machine_class.failure_modes)
    rules = {t.failure_mode for t in machine_class.thresholds if t.feature == finding.feature}
    return tuple(
        name
        for name, mode in machine_class.failure_modes.items()
        if channel in mode.channels or name in rules
    )


def _write_files(folder: Path, found: ClassReport, windows: drift.Windows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    limits = {f.feature: f.threshold for f in found.findings if f.threshold is not None}
    drawn = drift_report.compare(windows.reference, windows.current, limits)
    text = found.as_dict() | {"evidently": json.loads(drawn.as_json()) if drawn else None}
    (folder / f"{found.stem}.json").write_text(json.dumps(text, indent=1, default=str))
    if drawn is not None:
        drawn.save_html(folder / f"{found.stem}.html")
    for old in sorted(folder.glob("*.html"))[:-KEPT_PAGES]:
        old.unlink()


def _rows(found: ClassReport) -> pl.DataFrame:
    rows = [
        {
            **{name: getattr(f, name) for name in ("value", "threshold")},
            "kind": f.kind.value,
            "feature": f.feature,
            "drifted": f.verdict is Verdict.DRIFTED,
            "verdict": f.verdict.value,
            "machines": list(f.machines),
            "doubtful_modes": list(modes),
            "reference_rows": f.reference_rows,
            "current_rows": f.current_rows,
        }
        for f, modes in zip(found.findings, found.doubtful, strict=True)
    ]
    lists = {name: pl.List(pl.String) for name in ("machines", "doubtful_modes")}
    numbers = dict.fromkeys(("value", "threshold"), pl.Float64())
    return pl.DataFrame(rows, schema_overrides={**numbers, **lists}).with_columns(
        run_id=pl.lit(found.run_id),
        checked_at=pl.lit(found.checked_at),
        machine_class=pl.lit(found.machine_class),
        current_from=pl.lit(found.current_from),
        current_until=pl.lit(found.current_until),
        report=pl.lit(found.stem),
    )
