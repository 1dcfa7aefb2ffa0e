"""bronze → silver/tiles: the days that changed, or all of them; both give the same table."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from aegisops.features import batch
from aegisops.schemas.tables import EVENTS, READINGS, TILES, WAVEFORMS, Table
from aegisops_assets.steps.changes import Changes, changes, fingerprint, processed_version
from aegisops_assets.steps.platform import Fleet, Platform, of_machines

DAYS_AT_ONCE = 3
"""Days in memory together; each chunk also reads its eve, for captures that cross midnight."""
SOURCES = (READINGS, WAVEFORMS, EVENTS)
DEFINITION = "definition"
"""App transaction: what the stored tiles were made by, beside the source versions."""
_DAY = timedelta(days=1)
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Written:
    """What a step wrote."""

    version: int
    rows: int
    days: int
    sources: dict[str, int]
    """Source table → version the rows were made from."""


def build(
    platform: Platform,
    *,
    full: bool = False,
    progress: Progress = lambda _: None,
) -> Written:
    """Recompute the tiles of every day that has new bronze rows.

    Everything is made again when a class or the machines of a class changed: bronze may hold older
    readings of a machine that was registered late, and tiles of another length must not stay.
    """
    lake = platform.lake
    handle = lake.ensure(TILES)
    fleets = platform.fleets()
    made_by = _made_by(fleets)
    full = full or handle.transaction_version(DEFINITION) != made_by
    found = {t: changes(lake, t, processed_version(handle, t), full=full) for t in SOURCES}
    versions = {table.name: change.version for table, change in found.items()}
    days = sorted(set().union(*(change.days for change in found.values())))
    days = _with_spill(platform, days, found[WAVEFORMS])
    # A tile that does not divide the day may have begun before it.
    before = range(_overhang(fleets) + 1)
    days = sorted({day - k * _DAY for day in days for k in before})
    chunks = [days[i : i + DAYS_AT_ONCE] for i in range(0, len(days), DAYS_AT_ONCE)]
    written: list[tuple[int, int]] = []

    def write(tiles: pl.DataFrame, chunk: list[date], processed: dict[str, int] | None) -> None:
        predicate = "date IN ({})".format(", ".join(f"'{day}'" for day in chunk))
        version = lake.overwrite(TILES, tiles, predicate=predicate, transactions=processed)
        written.append((version, tiles.height))
        progress(len(written) / len(chunks))

    processed = {n: v for n, v in versions.items() if v >= 0} | {DEFINITION: made_by}
    # One chunk is written while the next is computed.
    with ThreadPoolExecutor(max_workers=1) as writer:
        pending = None
        for chunk in chunks if fleets else []:
            tiles = pl.concat([_tiles(platform, fleet, chunk, found) for fleet in fleets])
            tiles = tiles.with_columns(pl.col("tile_start").dt.date().alias("date"))
            tiles = tiles.filter(pl.col("date").is_in(chunk))
            if pending is not None:
                pending.result()
            # Until the last chunk is in, the whole change counts as not processed.
            last = processed if chunk is chunks[-1] else None
            pending = writer.submit(write, tiles, chunk, last)
        if pending is not None:
            pending.result()
    version = written[-1][0] if written else handle.version()
    return Written(version, sum(rows for _, rows in written), len(days), versions)


def _tiles(
    platform: Platform, fleet: Fleet, days: list[date], found: dict[Table, Changes]
) -> pl.DataFrame:
    def rows(table: Table, wanted: list[date]) -> pl.LazyFrame:
        if found[table].version < 0:
            return platform.lake.scan(table)
        scan = platform.lake.scan(table, found[table].version)
        return of_machines(scan.filter(pl.col("date").is_in(wanted)), fleet)

    after = range(_overhang([fleet]) + 1)
    days = sorted({day + k * _DAY for day in days for k in after})
    # A capture that crosses midnight belongs to the day it starts on.
    eve = [*days, *(day - timedelta(days=1) for day in days)]
    captures = rows(WAVEFORMS, eve).filter(pl.col("date").is_in(days) | _crosses_midnight())
    values = batch.values_from_bronze(
        rows(READINGS, days), captures, rows(EVENTS, days), fleet.machine_class
    )
    return batch.tiles_from_values(values, fleet.machine_class)


def _overhang(fleets: list[Fleet]) -> int:
    """Days a tile can reach beyond the day it starts on; 0 when every tile divides the day."""
    day = _DAY // timedelta(microseconds=1)
    tiles = {tile for f in fleets for tile in f.machine_class.windows.values()}
    return max((-(-tile // day) for tile in tiles if day % tile), default=0)


def _made_by(fleets: list[Fleet]) -> int:
    return fingerprint(
        [[f.machine_class.model_dump(mode="json", include=_SHAPE), f.machine_ids] for f in fleets]
    )


_SHAPE = {"name", "channels", "events", "windows", "statistics"}
"""What of a machine class decides its tiles."""


def _crosses_midnight() -> pl.Expr:
    length = (pl.col("values").list.len() * pl.col("period_us")).cast(pl.Duration("us"))
    return (pl.col("ts") + length).dt.date() > pl.col("date")


def _with_spill(platform: Platform, days: list[date], waveforms: Changes) -> list[date]:
    """The days, and the day after each changed day with a capture that crosses midnight."""
    if waveforms.version < 0 or not waveforms.days:
        return days
    crossing = (
        platform.lake.scan(WAVEFORMS, waveforms.version)
        .filter(pl.col("date").is_in(list(waveforms.days)) & _crosses_midnight())
        .select(pl.col("date").unique())
        .collect()
    )
    return sorted({*days, *(day + timedelta(days=1) for day in crossing["date"])})
