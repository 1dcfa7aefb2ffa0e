"""silver/tiles, gold/features and bronze/predictions → gold/hourly: the days that changed.

A month is one sorted file, written anew with its changed days, so that one series of a year is a
dozen row groups.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from aegisops.history import Kind, risk_rows, single_rows, summarise, tile_rows
from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_HOUR
from aegisops.schemas.tables import FEATURES, HOURLY, PREDICTIONS, TILES, Table
from aegisops_assets.steps.changes import changes, fingerprint, processed_version
from aegisops_assets.steps.platform import Platform
from aegisops_assets.steps.tiles import DEFINITION, Progress, Written

_SERIES = ("machine_id", "name")
_Hours = Callable[[Platform, pl.LazyFrame], pl.DataFrame]


def build(
    platform: Platform, *, full: bool = False, progress: Progress = lambda _: None
) -> Written:
    """Summarise the changed days of each source again.

    Everything is made again when a class changed: its features then have other names or meanings.
    """
    lake = platform.lake
    handle = lake.ensure(HOURLY)
    classes = [f.machine_class.model_dump(mode="json") for f in platform.fleets()]
    made_by = fingerprint(classes)
    full = full or handle.transaction_version(DEFINITION) != made_by
    found = {t: changes(lake, t, processed_version(handle, t), full=full) for t, _, _ in _SOURCES}
    versions = {table.name: change.version for table, change in found.items()}
    days = sorted(set().union(*(change.days for change in found.values())))
    months = sorted({f"{day:%Y-%m}" for day in days})
    processed = {n: v for n, v in versions.items() if v >= 0} | {DEFINITION: made_by}
    version, rows = handle.version(), 0
    for done, month in enumerate(months, 1):
        kept = lake.scan(HOURLY).filter(pl.col("month") == month).collect()
        parts = []
        for table, kind, hours in _SOURCES:
            fresh = sorted(d for d in found[table].days if f"{d:%Y-%m}" == month)
            is_old = (pl.col("kind") == kind.value) & pl.col("ts").dt.date().is_in(fresh)
            kept = kept.filter(~is_old)
            scan = lake.scan(table, versions[table.name] if fresh else None)
            parts += [
                _named(hours(platform, scan.filter(pl.col("date") == day)), kind) for day in fresh
            ]
        written = pl.concat([kept, *parts])
        version = lake.overwrite(
            HOURLY,
            written,
            predicate=f"month = '{month}'",
            # Until the last month is in, the whole change counts as not processed.
            transactions=processed if done == len(months) else None,
        )
        rows += written.height
        progress(done / len(months))
    return Written(version, rows, tuple(days), versions)


def _named(made: pl.DataFrame, kind: Kind) -> pl.DataFrame:
    """Summaries as rows of gold/hourly."""
    made = made.with_columns(
        kind=pl.lit(kind.value), ts=pl.col("bucket").cast(pl.Datetime("us", "UTC"))
    )
    return made.with_columns(month=pl.col("ts").dt.strftime("%Y-%m")).select(list(HOURLY.columns))


def _channels(platform: Platform, tiles: pl.LazyFrame) -> pl.DataFrame:
    known = {name for fleet in platform.fleets() for name in fleet.machine_class.channels}
    rows = tile_rows(tiles.filter(pl.col("channel").is_in(sorted(known))))
    return _summed(rows.with_columns(name=pl.col("channel")))


def _features(platform: Platform, vectors: pl.LazyFrame) -> pl.DataFrame:
    parts = [_of_class(fleet.machine_class, vectors) for fleet in platform.fleets()]
    return pl.concat(parts)


def _of_class(machine_class: MachineClass, vectors: pl.LazyFrame) -> pl.DataFrame:
    own = vectors.filter(
        pl.col("machine_class") == machine_class.name,
        pl.col("feature_set") == machine_class.feature_set,
    ).with_columns(ts=pl.col("ts").cast(pl.Int64))
    named = own.with_columns(
        name=pl.lit(pl.Series([list(machine_class.vector)], dtype=pl.List(pl.String)).first())
    ).explode("vector", "name")
    return _summed(single_rows(named, pl.col("vector")))


def _risks(_: Platform, predictions: pl.LazyFrame) -> pl.DataFrame:
    rows = risk_rows(predictions.unique("prediction_id"))
    return _summed(rows.with_columns(name=pl.lit("probability")))


def _summed(rows: pl.LazyFrame) -> pl.DataFrame:
    columns = ("n", "n_bad", "mean", "mean_square", "min", "max")
    wanted = rows.select(*_SERIES, "ts", *(pl.col(c).cast(pl.Float64) for c in columns))
    return summarise(wanted.collect(), US_PER_HOUR, _SERIES)


_SOURCES: tuple[tuple[Table, Kind, _Hours], ...] = (
    (TILES, Kind.CHANNEL, _channels),
    (FEATURES, Kind.FEATURE, _features),
    (PREDICTIONS, Kind.RISK, _risks),
)
