"""silver/tiles → gold/features: every row from the first changed day on, per class."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import polars as pl

from aegisops.features import batch
from aegisops.machines.model import LIFETIME_STATISTICS, US_PER_SECOND
from aegisops.schemas.tables import FEATURES, TILES
from aegisops_assets.steps.changes import changes
from aegisops_assets.steps.platform import Fleet, Platform, of_machines
from aegisops_assets.steps.tiles import Progress, Written

MACHINES_AT_ONCE = 50


def build(
    platform: Platform,
    *,
    full: bool = False,
    classes: Iterable[str] = (),
    progress: Progress = lambda _: None,
) -> Written:
    """Recompute the vectors of each class from its first changed day on.

    A maintenance or a counter reading changes every later vector through the lifetime statistics,
    so all days after the first changed one are written again. A new feature-set version rebuilds
    its class from the beginning.
    """
    lake = platform.lake
    fleets = platform.fleets(classes)
    rows = days = 0
    version = lake.ensure(FEATURES).version()
    source = lake.version(TILES)
    for i, fleet in enumerate(fleets):
        app = f"{TILES.name}/{fleet.machine_class.feature_set}"
        done = lake.open(FEATURES).transaction_version(app)
        found = changes(lake, TILES, -1 if done is None else done, full=full)
        if found.days:
            first = None if full or done is None else min(found.days)
            written = _vectors(platform, fleet, found.version, first)
            version = lake.overwrite(
                FEATURES,
                written,
                predicate=_predicate(fleet, first),
                transactions={app: found.version},
            )
            rows += written.height
            days += len(found.days)
        progress((i + 1) / len(fleets))
    return Written(version, rows, days, {TILES.name: source})


def _predicate(fleet: Fleet, first: date | None) -> str:
    whole = f"machine_class = '{fleet.machine_class.name}'"
    return whole if first is None else f"{whole} AND date >= '{first}'"


def _vectors(platform: Platform, fleet: Fleet, version: int, first: date | None) -> pl.DataFrame:
    machine_class = fleet.machine_class
    tiles = platform.lake.scan(TILES, version)
    since = None
    if first is not None:
        start = datetime(first.year, first.month, first.day, tzinfo=UTC)
        since = round(start.timestamp()) * US_PER_SECOND - 1
        oldest = first - timedelta(microseconds=machine_class.lateness) - timedelta(days=1)
        lifelong = [s.channel for s in machine_class.features if s.statistic in LIFETIME_STATISTICS]
        tiles = tiles.filter((pl.col("date") >= oldest) | pl.col("channel").is_in(lifelong))
    ids = fleet.machine_ids
    parts = []
    for i in range(0, len(ids), MACHINES_AT_ONCE):
        group = Fleet(
            machine_class, {m: fleet.attributes[m] for m in ids[i : i + MACHINES_AT_ONCE]}
        )
        frame = of_machines(tiles, group).collect()
        parts.append(batch.features_from_tiles(frame, machine_class, group.attributes, since=since))
    return pl.concat(parts)
