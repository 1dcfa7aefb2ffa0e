"""The drift report as an asset, when it runs, and what follows: a new model, rarely."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from aegisops import names
from aegisops.schemas.tables import FEATURES, TILES
from aegisops_assets.keys import OWNERS, key
from aegisops_assets.models import ModelSelection
from aegisops_assets.steps.platform import Platform

COOL_DOWN = timedelta(days=7)
"""Between two retrainings of a class because of drift: as long as the current window, so that the
second report looks at other data than the first."""

CHECKS = {
    "no_drift": "neither data nor predictions drifted from what the model was trained on",
    "sensors_as_before": "coverage and bad values are as they were",
    "remaining_life_covered": "nothing drifted, or the intervals of remaining life still hold",
}


@dg.asset(
    key=key(names.ML_DRIFT_REPORT),
    # The production model's scores are compared too, but it need not exist.
    deps=[key(FEATURES.name), key(TILES.name), key(names.ML_PRODUCTION)],
    group_name="ml",
    kinds={"evidently", "deltalake"},
    owners=OWNERS,
    description="Newest window against the past, per class: data, predictions, sensor quality. "
    f"Rows in `{names.OPS_DRIFT}`, a page and a JSON file in the data folder's reports/drift.",
    check_specs=[
        dg.AssetCheckSpec(
            name, asset=key(names.ML_DRIFT_REPORT), blocking=False, description=description
        )
        for name, description in CHECKS.items()
    ],
    code_version="1",
)
def drift_report(
    context: dg.AssetExecutionContext,
    config: ModelSelection,
    platform: dg.ResourceParam[Platform],
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Compare, write, warn. Never stops a run: what to do about drift is not decided here."""
    from aegisops_assets import plots
    from aegisops_assets.steps import drift as step

    made = step.report(
        platform, run_id=context.run.run_id, now=datetime.now(UTC), classes=config.classes
    )
    metadata: dict[str, Any] = {}
    for found in made:
        name, page = found.machine_class, step.page(platform, found)
        metadata[name] = dg.MetadataValue.json(
            {
                "drifted": found.has_drifted,
                "features": [f.feature for f in found.findings if f.machines],
                "sensors": [f.feature for f in found.quality],
                "repaired": list(found.repaired),
                "new_regime": list(found.new_regime),
                "note": found.note,
                "remaining_life": None if found.life is None else found.life.told,
            }
        )
        metadata[f"{name}_json"] = dg.MetadataValue.path(page.with_suffix(".json"))
        if page.exists():
            metadata[f"{name}_page"] = dg.MetadataValue.url(page.as_uri())
            metadata[f"{name}_plot"] = dg.MetadataValue.md(plots.drift(found.findings))
    yield dg.MaterializeResult(metadata=metadata)
    drifted = {r.machine_class: _why(r, r.findings) for r in made if r.has_drifted}
    worse = {r.machine_class: _why(r, r.quality) for r in made if r.quality}
    asked = {r.machine_class: r.life for r in made if r.life is not None}
    outside = {name for name, life in asked.items() if life.has_failed}
    told = {name: f"{name}: {life.told}" for name, life in asked.items()}
    verdicts = ((drifted, drifted), (worse, worse), (outside, told))
    for (name, description), (found_bad, why) in zip(CHECKS.items(), verdicts, strict=True):
        yield dg.AssetCheckResult(
            check_name=name,
            passed=not found_bad,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(why.values()) or description,
        )


def _why(found: Any, findings: Any) -> str:  # noqa: ANN401 - polars stays out of the definitions
    parts = [
        f"{f.feature} {f.value:.2f} (threshold {f.threshold:.2f}; {', '.join(f.machines)})"
        for f in findings
        if f.verdict == "drifted"
    ]
    return f"{found.machine_class}: {', '.join(parts)}"


drift_job = dg.define_asset_job(
    "drift", [drift_report], description="newest window against the past → report and warning"
)

drift_nightly = dg.ScheduleDefinition(
    name="drift_nightly",
    job=drift_job,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="After the nightly run, in a process of its own: Evidently takes 4 s to import.",
)


def due(
    asked: dict[str, str], newest: dict[str, tuple[str, datetime, bool]]
) -> dict[str, tuple[str, datetime]]:
    """Class → run and time of the report that calls for a new model.

    `asked` holds, per class, the time of the report that last did. Times are those of reports, not
    of the clock: without a newer report nothing can be asked for twice.
    """
    return {
        name: (run, at)
        for name, (run, at, drifted) in newest.items()
        if drifted and (name not in asked or at - datetime.fromisoformat(asked[name]) >= COOL_DOWN)
    }


def retrain_config(steps: list[str], classes: list[str]) -> dict[str, Any]:
    """Run config of a job's steps for some classes."""
    return {"ops": {step: {"config": {"classes": classes}} for step in steps}}
