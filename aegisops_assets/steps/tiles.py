"""bronze → silver/tiles: the days that changed, or all of them; both give the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from aegisops.errors import Conflict
from aegisops.features import batch
from aegisops.lake import Lake
from aegisops.machines import MachineClass
from aegisops.schemas.tables import EVENTS, READINGS, TILES, WAVEFORMS, Table
from aegisops_assets.steps.changes import (
    Changes,
    changes,
    fingerprint,
    processed_version,
    values_per_day,
)
from aegisops_assets.steps.platform import Fleet, Platform

VALUES_AT_ONCE = 6_000_000
"""Values of one job, about 100 bytes each while it runs. A job reads the files of its days."""
VALUES_PER_COMMIT = 24_000_000
"""Days are written together up to this many values, at least one day."""
SOURCES = (READINGS, WAVEFORMS, EVENTS)
DEFINITION = "definition"
"""App transaction: what the stored tiles were made by, beside the source versions."""
_DAY = timedelta(days=1)
Progress = Callable[[float], None]
Days = tuple[date, date]
"""First and last day, both included."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a step wrote."""

    version: int
    rows: int
    days: tuple[date, ...]
    """Days that were written, in order."""
    sources: dict[str, int]
    """Source table → version the rows were made from."""


@dataclass(frozen=True, slots=True)
class Job:
    """Some machines of a class over some days, at pinned versions of the sources."""

    lake: Lake
    versions: dict[str, int]
    machine_class: MachineClass
    machine_ids: tuple[str, ...]
    days: tuple[date, ...]


ATTEMPTS = 3


def build(
    platform: Platform,
    *,
    full: bool = False,
    days: Days | None = None,
    progress: Progress = lambda _: None,
) -> Written:
    """Recompute the tiles of every day that has new bronze rows, or of the given days.

    Everything is made again when a class or the machines of a class changed: bronze may hold older
    readings of a machine that was registered late, and tiles of another length must not stay.
    When another run commits first, what is new is found and computed again.

    Args:
        platform: where the tables are, and the engine that computes.
        full: all days, whatever is new.
        days: first and last day to compute again (both included) instead of the new ones; what is
            new elsewhere stays new.
        progress: called with the share that is done, after every commit.
    """
    return recomputed(lambda: _build(platform, full=full, days=days, progress=progress))


def recomputed(work: Callable[[], Written]) -> Written:
    """The result of `work`, which is done again from the start when another writer was faster."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except Conflict:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


def _build(platform: Platform, *, full: bool, days: Days | None, progress: Progress) -> Written:
    lake = platform.lake
    handle = lake.ensure(TILES)
    fleets = platform.fleets()
    made_by = _made_by(fleets)
    full = full or days is not None or handle.transaction_version(DEFINITION) != made_by
    found = {t: changes(lake, t, processed_version(handle, t), full=full) for t in SOURCES}
    versions = {table.name: change.version for table, change in found.items()}
    changed = sorted(set().union(*(change.days for change in found.values())))
    changed = _with_spill(platform, changed, found[WAVEFORMS])
    # A tile that does not divide the day may have begun before it.
    before = range(_overhang(fleets) + 1)
    changed = sorted({day - k * _DAY for day in changed for k in before})
    processed = {n: v for n, v in versions.items() if v >= 0} | {DEFINITION: made_by}
    if days is not None:
        changed, processed = [day for day in changed if days[0] <= day <= days[1]], {}
    sizes = _sizes(platform, fleets, found)
    chunks = _chunks(changed, sizes) if fleets else []
    version, rows = handle.version(), 0

    def counted(parts: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        nonlocal rows
        for part in parts:
            rows += part.height
            yield part

    for done, chunk in enumerate(chunks, 1):
        jobs = _jobs(lake, versions, fleets, chunk, sum(sizes.get(day, 0) for day in chunk))
        version = lake.overwrite(
            TILES,
            counted(platform.engine.map(tiles_of, jobs)),
            predicate="date IN ({})".format(", ".join(f"'{day}'" for day in chunk)),
            # Until the last chunk is in, the whole change counts as not processed.
            transactions=processed if done == len(chunks) else None,
        )
        progress(done / len(chunks))
    return Written(version, rows, tuple(changed), versions)


def tiles_of(job: Job) -> pl.DataFrame:
    """Rows of silver/tiles that begin on the job's days."""

    def rows(table: Table, wanted: list[date]) -> pl.LazyFrame:
        version = job.versions[table.name]
        scan = job.lake.scan(table, version if version >= 0 else None)
        return scan.filter(
            pl.col("date").is_in(wanted) & pl.col("machine_id").is_in(list(job.machine_ids))
        )

    after = range(_class_overhang(job.machine_class) + 1)
    days = sorted({day + k * _DAY for day in job.days for k in after})
    # A capture that crosses midnight belongs to the day it starts on.
    eve = [*days, *(day - timedelta(days=1) for day in days)]
    captures = rows(WAVEFORMS, eve).filter(pl.col("date").is_in(days) | _crosses_midnight())
    values = batch.values_from_bronze(
        rows(READINGS, days), captures, rows(EVENTS, days), job.machine_class
    )
    tiles = batch.tiles_from_values(values, job.machine_class)
    tiles = tiles.with_columns(pl.col("tile_start").dt.date().alias("date"))
    return tiles.filter(pl.col("date").is_in(list(job.days)))


def _chunks(days: list[date], sizes: dict[date, int]) -> list[tuple[date, ...]]:
    """Consecutive days that are computed and committed together."""
    chunks: list[list[date]] = []
    held = 0
    for day in days:
        held += sizes.get(day, 0)
        if not chunks or held > VALUES_PER_COMMIT:
            chunks.append([])
            held = sizes.get(day, 0)
        chunks[-1].append(day)
    return [tuple(chunk) for chunk in chunks]


def _jobs(
    lake: Lake, versions: dict[str, int], fleets: list[Fleet], days: tuple[date, ...], values: int
) -> list[Job]:
    machines = sum(len(fleet.attributes) for fleet in fleets)
    each = max(1, machines * VALUES_AT_ONCE // max(values, 1))
    return [
        Job(lake, versions, fleet.machine_class, tuple(fleet.machine_ids[i : i + each]), days)
        for fleet in fleets
        for i in range(0, len(fleet.machine_ids), each)
    ]


def _sizes(platform: Platform, fleets: list[Fleet], found: dict[Table, Changes]) -> dict[date, int]:
    """Values per day, from the log alone: readings, and captures times their usual length."""
    samples = max((c.samples for f in fleets for c in f.machine_class.channels.values()), default=1)
    sizes: dict[date, int] = {}
    for table, each in ((READINGS, 1), (WAVEFORMS, samples)):
        if found[table].version >= 0:
            held = values_per_day(platform.lake.open(table, found[table].version))
            for day, rows in held.items():
                sizes[day] = sizes.get(day, 0) + each * rows
    return sizes


def _overhang(fleets: list[Fleet]) -> int:
    """Days a tile can reach beyond the day it starts on; 0 when every tile divides the day."""
    return max((_class_overhang(fleet.machine_class) for fleet in fleets), default=0)


def _class_overhang(machine_class: MachineClass) -> int:
    day = _DAY // timedelta(microseconds=1)
    return max(-(-tile // day) if day % tile else 0 for tile in machine_class.windows.values())


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
