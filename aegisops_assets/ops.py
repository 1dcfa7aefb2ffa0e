"""Housekeeping as assets: table maintenance, Dagster's own history, decisions about models."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from aegisops import names
from aegisops.schemas.tables import MODEL_DECISIONS, READINGS, TILES
from aegisops_assets.keys import OWNERS, key, table_metadata
from aegisops_assets.steps.platform import Platform

KEEP_RUNS = timedelta(days=30)
"""Finished runs and their events are deleted after this, but for the last of each asset."""
FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]

model_decisions = dg.AssetSpec(
    key(MODEL_DECISIONS.name),
    deps=[key(names.ML_PRODUCTION)],
    group_name="ops",
    kinds={"deltalake"},
    owners=OWNERS,
    description=f"{MODEL_DECISIONS.doc} Written by promotions here and by `aegisops models`.",
    metadata=table_metadata(MODEL_DECISIONS),
)


class Maintenance(dg.Config):
    """How thorough to be."""

    thorough: bool = True
    """Also order finished days, fold the log, delete old versions and old runs."""


@dg.asset(
    key=key(names.OPS_MAINTENANCE),
    deps=[key(READINGS.name), key(TILES.name)],
    group_name="ops",
    kinds={"deltalake"},
    owners=OWNERS,
    description="Small files merged, finished days ordered, logs folded, old versions and old runs "
    "deleted, while the writers go on.",
    code_version="1",
)
def maintenance(
    context: dg.AssetExecutionContext,
    config: Maintenance,
    platform: dg.ResourceParam[Platform],
) -> dg.MaterializeResult[Any]:
    """Keep tables fast and history short. What a writer is working on is left for the next time."""
    from aegisops_assets.steps import maintenance as step

    now = datetime.now(UTC)
    done = step.maintain(platform, today=now.date(), vacuum=config.thorough)
    runs = purge(context.instance, now - KEEP_RUNS) if config.thorough else 0
    for said in done:
        if said.note:
            context.log.warning("left for the next time: %s", said.note)
    columns = ("table", "files", "merged", "clustered", "deleted", "kept_versions", "note")
    return dg.MaterializeResult(
        metadata={
            "tables": dg.MetadataValue.table(
                [dg.TableRecord({c: getattr(said, c) for c in columns}) for said in done],
                schema=dg.TableSchema([dg.TableColumn(c) for c in columns]),
            ),
            "files_merged": sum(said.merged for said in done),
            "files_deleted": sum(said.deleted for said in done),
            "runs_deleted": runs,
        }
    )


def purge(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete runs that finished before, with their events; how many.

    The run that last made an asset stays: its page would be empty without it.
    """
    last = {
        record.asset_entry.last_run_id
        for record in instance.get_asset_records()
        if record.asset_entry.last_run_id is not None
    }
    old = instance.get_run_records(dg.RunsFilter(statuses=FINISHED, created_before=before))
    gone = [r.dagster_run.run_id for r in old if r.dagster_run.run_id not in last]
    for run_id in gone:
        instance.delete_run(run_id)
    return len(gone)


maintain = dg.define_asset_job(
    "maintenance", [maintenance], description="merge files, order days, delete what is old"
)

maintenance_hourly = dg.ScheduleDefinition(
    name="maintenance_hourly",
    job=maintain,
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    run_config={"ops": {"ops__maintenance": {"config": {"thorough": False}}}},
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Small files of the live tables are merged.",
)
maintenance_nightly = dg.ScheduleDefinition(
    name="maintenance_nightly",
    job=maintain,
    cron_schedule="40 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Everything: order, logs, old versions, old runs.",
)
