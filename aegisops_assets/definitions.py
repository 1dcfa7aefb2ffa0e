"""The code location: what Dagster loads. Built by one function, so that a test can pass its own."""

import dagster as dg

from aegisops.settings import Settings
from aegisops_assets import automation, checks, drift, lakehouse, models, ops, parity
from aegisops_assets.steps.platform import Platform

ASSETS: tuple[dg.AssetSpec | dg.AssetsDefinition, ...] = (
    *lakehouse.bronze_specs,
    lakehouse.tiles,
    lakehouse.features,
    lakehouse.labels,
    lakehouse.hourly,
    models.training_set,
    models.anomaly_model,
    models.failure_model,
    models.validation,
    models.shadow,
    models.production,
    drift.drift_report,
    parity.parity_report,
    ops.model_decisions,
    ops.maintenance,
)


@dg.resource(description="Settings, lake, machine classes and model registry, from AEGIS_*.")
def platform_from_environment(_: dg.InitResourceContext) -> Platform:
    """Made when a run or a sensor starts, never at import."""
    return Platform.of(Settings())


def build_definitions(
    platform: Platform | dg.ResourceDefinition = platform_from_environment,
) -> dg.Definitions:
    """All assets, jobs, sensors and schedules over one platform."""
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=[checks.bronze_checks(lakehouse.BRONZE)],
        jobs=automation.JOBS,
        sensors=[automation.bronze_changes, automation.drift_retrain],
        schedules=[
            automation.nightly,
            automation.hourly_review,
            automation.bronze_checks_hourly,
            drift.drift_nightly,
            parity.parity_nightly,
            ops.maintenance_hourly,
            ops.maintenance_nightly,
        ],
        resources={"platform": platform},
        # One process: starting one per step costs two seconds each.
        executor=dg.in_process_executor,
    )


defs = build_definitions()
