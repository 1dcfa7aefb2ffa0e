"""The lakehouse assets: bronze (written by the streams, only observed here), silver, gold."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from aegisops.machines import parse_duration
from aegisops.schemas.tables import (
    DEAD_LETTERS,
    EVENTS,
    FEATURES,
    FEEDBACK,
    HOURLY,
    LABELS,
    MACHINES,
    PREDICTIONS,
    READINGS,
    SHADOW_SCORES,
    TILES,
    WAVEFORMS,
    Table,
)
from aegisops_assets import checks
from aegisops_assets.keys import OWNERS, key, size_metadata, table_metadata
from aegisops_assets.steps.platform import Platform
from aegisops_assets.steps.tiles import Written

BRONZE = (
    MACHINES,
    READINGS,
    WAVEFORMS,
    EVENTS,
    FEEDBACK,
    PREDICTIONS,
    SHADOW_SCORES,
    DEAD_LETTERS,
)

bronze_specs = [
    dg.AssetSpec(
        key(table.name),
        group_name="bronze",
        kinds={"deltalake", "kafka"},
        owners=OWNERS,
        description=f"{table.doc} Written by the lake writer; reported here when it changes.",
        metadata=table_metadata(table),
    )
    for table in BRONZE
]

DAYS = dg.DailyPartitionsDefinition(start_date="2015-01-01", end_offset=1, timezone="UTC")
"""UTC days of event time. A run without a range works on what is new; with one, on those days.
Older days (cycle clocks count from 1970) are built all the same, but are not listed."""
NIGHTLY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=26), warn_window=timedelta(hours=25)
)


class Selection(dg.Config):
    """What to work on; everything when left empty."""

    classes: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    full: bool = False
    """Rebuild from the beginning instead of the changed days."""


class LabelSelection(dg.Config):
    """As Selection; `horizon` overrides the class's own, as text such as 48h."""

    classes: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    horizon: str = ""


def _days(context: dg.AssetExecutionContext) -> tuple[date, date] | None:
    """First and last day the run was asked for; None = whatever is new."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None
    window = context.partition_time_window
    return window.start.date(), (window.end - timedelta(days=1)).date()


def _progress(context: dg.AssetExecutionContext) -> Callable[[float], None]:
    return lambda share: context.log.info("%d %% done", round(100 * share))


def _written(platform: Platform, table: Table, written: Written) -> dg.MaterializeResult[Any]:
    from aegisops_assets import plots
    from aegisops_assets.steps.changes import values_per_day

    handle = platform.lake.open(table)
    plot: dict[str, Any] = {}
    if "date" in table.partition_by:
        plot["rows_per_day"] = dg.MetadataValue.md(plots.per_day(values_per_day(handle)))
    return dg.MaterializeResult(
        asset_key=key(table.name),
        data_version=dg.DataVersion(f"{table.name}@{written.version}"),
        metadata={
            **size_metadata(handle),
            "rows_written": written.rows,
            "days_written": len(written.days),
            "made_from": dg.MetadataValue.json(written.sources),
            **plot,
        },
    )


@dg.asset(
    key=key(TILES.name),
    deps=[key(t.name) for t in (READINGS, WAVEFORMS, EVENTS, MACHINES)],
    group_name="silver",
    kinds={"polars", "deltalake"},
    owners=OWNERS,
    description=TILES.doc,
    metadata=table_metadata(TILES),
    check_specs=checks.specs(TILES),
    partitions_def=DAYS,
    freshness_policy=NIGHTLY,
    code_version="2",
)
def _tiles(
    context: dg.AssetExecutionContext, config: Selection, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Bronze → tiles of the days that changed, or of the run's days."""
    from aegisops_assets.steps import tiles as step

    written = step.build(
        platform, full=config.full, days=_days(context), progress=_progress(context)
    )
    if _days(context) is None:
        # A run without a range ticks off the days it wrote.
        for day in written.days:
            if DAYS.start.date() <= day <= datetime.now(UTC).date():
                context.log_event(
                    dg.AssetMaterialization(key(TILES.name), partition=day.isoformat())
                )
    yield _written(platform, TILES, written)
    yield from checks.run(platform, TILES, context.instance)


# As an argument of the decorator the policy would warn at every import that it is in beta.
tiles = _tiles.with_attributes(backfill_policy=dg.BackfillPolicy.single_run())


@dg.asset(
    key=key(FEATURES.name),
    deps=[key(TILES.name), key(MACHINES.name)],
    group_name="gold",
    kinds={"polars", "deltalake"},
    owners=OWNERS,
    # Not partitioned: the hours since the last repair make a day depend on all days before it.
    description=FEATURES.doc,
    metadata=table_metadata(FEATURES),
    check_specs=checks.specs(FEATURES),
    freshness_policy=NIGHTLY,
    code_version="2",
)
def features(
    context: dg.AssetExecutionContext, config: Selection, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Tiles → feature vectors, from the first changed day on."""
    from aegisops_assets.steps import features as step

    written = step.build(
        platform, full=config.full, classes=config.classes, progress=_progress(context)
    )
    yield _written(platform, FEATURES, written)
    yield from checks.run(platform, FEATURES, context.instance)


@dg.asset(
    key=key(HOURLY.name),
    deps=[key(TILES.name), key(FEATURES.name), key(PREDICTIONS.name)],
    group_name="gold",
    kinds={"polars", "deltalake"},
    owners=OWNERS,
    description=HOURLY.doc,
    metadata=table_metadata(HOURLY),
    check_specs=checks.specs(HOURLY),
    code_version="1",
)
def hourly(
    context: dg.AssetExecutionContext, config: Selection, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Hours of channels, features and risks, of the days that changed."""
    from aegisops_assets.steps import hourly as step

    yield _written(platform, HOURLY, step.build(platform, full=config.full))
    yield from checks.run(platform, HOURLY, context.instance)


@dg.asset(
    key=key(LABELS.name),
    deps=[key(FEATURES.name), key(EVENTS.name), key(FEEDBACK.name)],
    group_name="gold",
    kinds={"polars", "deltalake"},
    owners=OWNERS,
    description=LABELS.doc,
    metadata=table_metadata(LABELS),
    check_specs=checks.specs(LABELS),
    freshness_policy=NIGHTLY,
    code_version="1",
)
def labels(
    context: dg.AssetExecutionContext,
    config: LabelSelection,
    platform: dg.ResourceParam[Platform],
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """What followed each feature row, and why it counts or does not."""
    from aegisops_assets.steps import labels as step

    horizon = parse_duration(config.horizon) if config.horizon else None
    made = step.build(platform, horizon=horizon, classes=config.classes)
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(f"{LABELS.name}@{made.version}"),
        metadata={
            **size_metadata(platform.lake.open(LABELS)),
            "rows_before_a_failure": made.positive,
            "provenance": dg.MetadataValue.json(made.provenance),
        },
    )
    yield from checks.run(platform, LABELS, context.instance)
