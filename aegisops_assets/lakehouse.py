"""The lakehouse assets: bronze (written by the streams, only observed here), silver, gold."""

from collections.abc import Iterator
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
)
from aegisops_assets import checks
from aegisops_assets.keys import OWNERS, key, table_metadata
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


class Selection(dg.Config):
    """What to work on; everything when left empty."""

    classes: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    full: bool = False
    """Rebuild from the beginning instead of the changed days."""


class LabelSelection(dg.Config):
    """As Selection; `horizon` overrides the class's own, as text such as 48h."""

    classes: list[str] = []  # noqa: RUF012 - pydantic copies defaults
    horizon: str = ""


def _written(name: str, written: Written) -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(
        asset_key=key(name),
        data_version=dg.DataVersion(f"{name}@{written.version}"),
        metadata={
            "dagster/row_count": written.rows,
            "delta_version": written.version,
            "days": len(written.days),
            "made_from": dg.MetadataValue.json(written.sources),
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
    code_version="1",
)
def tiles(
    config: Selection, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Bronze → tiles of the days that changed."""
    from aegisops_assets.steps import tiles as step

    yield _written(TILES.name, step.build(platform, full=config.full))
    yield from checks.run(platform, TILES)


@dg.asset(
    key=key(FEATURES.name),
    deps=[key(TILES.name), key(MACHINES.name)],
    group_name="gold",
    kinds={"polars", "deltalake"},
    owners=OWNERS,
    description=FEATURES.doc,
    metadata=table_metadata(FEATURES),
    check_specs=checks.specs(FEATURES),
    code_version="1",
)
def features(
    config: Selection, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Tiles → feature vectors, from the first changed day on."""
    from aegisops_assets.steps import features as step

    written = step.build(platform, full=config.full, classes=config.classes)
    yield _written(FEATURES.name, written)
    yield from checks.run(platform, FEATURES)


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
    config: Selection, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Hours of channels, features and risks, of the days that changed."""
    from aegisops_assets.steps import hourly as step

    yield _written(HOURLY.name, step.build(platform, full=config.full))
    yield from checks.run(platform, HOURLY)


@dg.asset(
    key=key(LABELS.name),
    deps=[key(FEATURES.name), key(EVENTS.name), key(FEEDBACK.name)],
    group_name="gold",
    kinds={"polars", "deltalake"},
    owners=OWNERS,
    description=LABELS.doc,
    metadata=table_metadata(LABELS),
    check_specs=checks.specs(LABELS),
    code_version="1",
)
def labels(
    config: LabelSelection, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """What followed each feature row, and why it counts or does not."""
    from aegisops_assets.steps import labels as step

    horizon = parse_duration(config.horizon) if config.horizon else None
    made = step.build(platform, horizon=horizon, classes=config.classes)
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(f"{LABELS.name}@{made.version}"),
        metadata={
            "dagster/row_count": made.rows,
            "delta_version": made.version,
            "rows_before_a_failure": made.positive,
            "provenance": dg.MetadataValue.json(made.provenance),
        },
    )
    yield from checks.run(platform, LABELS)
