"""What is new between two versions of a Delta table: the days its new files hold.

A step records the versions it has processed as app transactions of its own table, in the same
commit as the rows, so that a crash can neither skip nor repeat a change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
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
    before: frozenset[str] = frozenset()
    if processed >= 0 and not full:
        try:
            before = frozenset(lake.open(source, processed).file_uris())
        except DeltaError:
            before = frozenset()  # vacuumed away: everything counts as new
    fresh = [uri for uri in now.file_uris() if uri not in before]
    return Changes(now.version(), frozenset(_days(fresh, source)))


def values_per_day(handle: DeltaTable) -> dict[date, int]:
    """Rows per day of a table that is partitioned by day, from the log's statistics."""
    added = pl.DataFrame(handle.get_add_actions(flatten=True))
    if added.is_empty():
        return {}
    counts = added.group_by(pl.col("partition.date").cast(pl.Date)).agg(pl.col("num_records").sum())
    return dict(counts.iter_rows())


def _days(files: Iterable[str], source: Table) -> set[date]:
    days: set[date] = set()
    unpartitioned = []
    for uri in files:
        parts = dict(p.split("=", 1) for p in uri.split("/") if "=" in p)
        if "date" in parts:
            days.add(date.fromisoformat(parts["date"]))
        else:
            unpartitioned.append(uri)
    if unpartitioned and "date" in source.columns:
        found = pl.scan_parquet(unpartitioned).select(pl.col("date").unique()).collect()
        days.update(found["date"].to_list())
    return days
