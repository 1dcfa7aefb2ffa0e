"""What is new between two versions of a Delta table: the days whose rows changed.

Bronze only grows, so a day changed when it has another number of rows; files that compaction
rewrote are no news. Other tables are never compacted, there new files say it.

A step records the versions it has processed as app transactions of its own table, in the same
commit as the rows, so that a crash can neither skip nor repeat a change.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from aegisops.lake import Lake
from aegisops.schemas.tables import Table


@dataclass(frozen=True, slots=True)
class Changes:
    """Days of a source table that a step has not processed yet."""

    version: int
    """Version of the source to process up to; -1 when the table does not exist."""
    days: frozenset[date]


def processed_version(target: DeltaTable, source: Table) -> int:
    """Version of `source` the target's rows were made from; -1 = none."""
    version = target.transaction_version(source.name)
    return -1 if version is None else version


def fingerprint(value: object) -> int:
    """A number for a Delta app transaction that changes whenever the JSON `value` does."""
    text = json.dumps(value, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def changes(lake: Lake, source: Table, processed: int, *, full: bool = False) -> Changes:
    """Days in files that are new since `processed` (all days when `full` or never processed)."""
    if not lake.exists(source):
        return Changes(-1, frozenset())
    now = lake.open(source)
    before = None
    if processed >= 0 and not full:
        # Vacuumed away: everything counts as new.
        with suppress(DeltaError, OSError, pl.exceptions.PolarsError):
            before = _contents(lake, source, lake.open(source, processed))
    held = _contents(lake, source, now)
    if before is None:
        return Changes(now.version(), frozenset(held))
    days = (day for day in held.keys() | before.keys() if held.get(day) != before.get(day))
    if not source.is_append_only:  # files that are gone only made room for others
        days = (day for day in held if not held[day] <= before.get(day, frozenset()))  # type: ignore[operator]
    return Changes(now.version(), frozenset(days))


def _contents(
    lake: Lake, source: Table, handle: DeltaTable
) -> dict[date, int] | dict[date, frozenset[str]]:
    """Per day, what changes when its rows do: their number in bronze, else the files."""
    if not source.is_append_only:
        files: dict[date, set[str]] = {}
        for uri in handle.file_uris():
            parts = dict(p.split("=", 1) for p in uri.split("/") if "=" in p)
            files.setdefault(date.fromisoformat(parts["date"]), set()).add(uri)
        return {day: frozenset(uris) for day, uris in files.items()}
    if "date" in source.partition_by:
        return values_per_day(handle)
    rows = lake.scan(source, handle.version()).group_by("date").len().collect()
    return dict(rows.iter_rows())


def values_per_day(handle: DeltaTable) -> dict[date, int]:
    """Rows per day of a table that is partitioned by day, from the log's statistics."""
    added = pl.DataFrame(handle.get_add_actions(flatten=True))
    if added.is_empty():
        return {}
    counts = added.group_by(pl.col("partition.date").cast(pl.Date)).agg(pl.col("num_records").sum())
    return dict(counts.iter_rows())
