"""When things run: bronze is reported as it changes, new data becomes features, models nightly.

Drift asks for a new model, at most once per class and cool-down.
"""

import json
from typing import Any

import dagster as dg

from aegisops.schemas.tables import (
    EVENTS,
    MODEL_DECISIONS,
    READINGS,
    TILES,
    WAVEFORMS,
    Table,
)
from aegisops_assets.drift import drift_job, due, retrain_config
from aegisops_assets.keys import key, size_metadata
from aegisops_assets.lakehouse import BRONZE, features, hourly, labels, tiles
from aegisops_assets.models import (
    anomaly_model,
    failure_model,
    production,
    shadow,
    training_set,
    validation,
)
from aegisops_assets.ops import maintain
from aegisops_assets.parity import parity_job
from aegisops_assets.steps.platform import Platform

build_features = dg.define_asset_job(
    "build_features",
    [tiles, features, labels, hourly],
    description="bronze → tiles, features, labels, hourly summaries",
)
_RETRAINED = [training_set, anomaly_model, failure_model, validation, shadow, production]
train_and_promote = dg.define_asset_job(
    "train_and_promote",
    _RETRAINED,
    description="features and labels → a validated model in the shadow, or the first in production",
)
everything = dg.define_asset_job(
    "everything",
    [tiles, features, labels, hourly, *_RETRAINED],
    description="the whole way, from bronze to a promoted model",
)
check_bronze = dg.define_asset_job(
    "check_bronze",
    dg.AssetSelection.checks_for_assets(*(key(table.name) for table in BRONZE)),
    description="the declared rules of the bronze tables, on what arrived since the last time",
)
review_shadow = dg.define_asset_job(
    "review_shadow",
    [production],
    description="promotes or refuses the shadow once enough served vectors were scored by both",
)
JOBS = (
    build_features,
    train_and_promote,
    everything,
    check_bronze,
    drift_job,
    parity_job,
    review_shadow,
    maintain,
)


OBSERVED = (*BRONZE, MODEL_DECISIONS)
"""Tables that others write; reported when their version moved."""

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(
    job=build_features,
    # A run rebuilds the day; more often than this it would keep a small box busy for nothing.
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports bronze tables when they change and asks for features of new data.",
)
def bronze_changes(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.SensorResult:
    """Level-triggered: compares versions with what silver has processed, so no update is lost."""
    seen: dict[str, int] = json.loads(context.cursor or "{}")
    now = {table.name: platform.lake.version(table) for table in OBSERVED}
    events = [
        _materialization(platform, table, now[table.name])
        for table in OBSERVED
        if now[table.name] > seen.get(table.name, -1)
    ]
    wanted = {t.name: now[t.name] for t in (READINGS, WAVEFORMS, EVENTS)}
    requests = []
    # A live writer commits every few seconds: without this, runs would queue up behind one another
    # and two would write one table. Nothing is lost, the next tick compares again.
    is_busy = context.instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) > 0
    if _processed(platform) != wanted and not is_busy:
        versions = "-".join(str(version) for version in wanted.values())
        requests.append(dg.RunRequest(run_key=f"features@{versions}"))
    return dg.SensorResult(asset_events=events, run_requests=requests, cursor=json.dumps(now))


@dg.sensor(
    job=train_and_promote,
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A class whose data or predictions drifted gets a new candidate, once a week at "
    "most. It is promoted only if its checks pass.",
)
def drift_retrain(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.SensorResult:
    """Looks at the newest report of each class; a report asks once, a failed run is not repeated.

    Retraining does not make a new report, so that nothing here can go round in a circle.
    """
    from aegisops_assets.steps import drift

    asked: dict[str, str] = json.loads(context.cursor or "{}")
    wanted = due(asked, drift.newest(platform))
    is_busy = any(
        context.instance.get_runs_count(dg.RunsFilter(job_name=job.name, statuses=UNFINISHED))
        for job in (train_and_promote, everything)
    )
    if not wanted or is_busy:
        return dg.SensorResult(skip_reason="busy" if wanted else "nothing drifted since")
    runs = sorted({run for run, _ in wanted.values()})
    steps = ["__".join(asset.key.path) for asset in _RETRAINED]
    request = dg.RunRequest(
        # Dagster itself refuses a second run of the same key, even if the cursor is lost.
        run_key=f"drift@{'-'.join(runs)}",
        run_config=retrain_config(steps, sorted(wanted)),
        tags={"aegis/cause": "drift"},
    )
    asked |= {name: at.isoformat() for name, (_, at) in wanted.items()}
    return dg.SensorResult(run_requests=[request], cursor=json.dumps(asked))


hourly_review = dg.ScheduleDefinition(
    name="hourly_review",
    job=review_shadow,
    cron_schedule="40 * * * *",
    execution_timezone="UTC",
    description="Looks at what production and shadow said of the same served vectors.",
)

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=everything,
    cron_schedule="0 2 * * *",
    execution_timezone="UTC",
    description="Features of the day, then a new candidate; promoted only if its checks pass.",
)


def _processed(platform: Platform) -> dict[str, int]:
    sources = (READINGS, WAVEFORMS, EVENTS)
    if not platform.lake.exists(TILES):
        return dict.fromkeys((t.name for t in sources), -1)
    handle = platform.lake.open(TILES)
    found = {t.name: handle.transaction_version(t.name) for t in sources}
    return {name: -1 if version is None else version for name, version in found.items()}


def _materialization(platform: Platform, table: Table, version: int) -> dg.AssetMaterialization:
    """Version, size and how far the newest event lies back, all from the log: milliseconds."""
    from aegisops_assets.steps.examine import newest

    handle = platform.lake.open(table, version)
    metadata: dict[str, Any] = {**size_metadata(handle)}
    time = next((c for c in ("ts", "asked_at", "scored_at") if c in table.columns), None)
    event = newest(handle, time) if time is not None else None
    if event is not None:
        metadata["newest_event"] = dg.MetadataValue.timestamp(event)
    arrived = newest(handle, "_ingested_at") if "_ingested_at" in table.columns else None
    if arrived is not None:
        metadata["newest_arrival"] = dg.MetadataValue.timestamp(arrived)
        if event is not None:
            metadata["event_lag_seconds"] = (arrived - event).total_seconds()
    return dg.AssetMaterialization(
        key(table.name), metadata=metadata, tags={"dagster/data_version": str(version)}
    )


bronze_checks_hourly = dg.ScheduleDefinition(
    name="bronze_checks_hourly",
    job=check_bronze,
    cron_schedule="10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="What arrived in the last hour is checked.",
)
