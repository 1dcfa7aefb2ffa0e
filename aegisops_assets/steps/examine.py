"""Whether a table keeps what its declaration says, looking only at what is new since a version.

Nulls and ranges are read from the file statistics in the Delta log; a file is opened only when it
lacks them or breaks a rule. Uniqueness looks at the partitions that have new files, one at a time,
and holds eight bytes per row. Nothing here knows Dagster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from aegisops.lake import Lake
from aegisops.names import Quality
from aegisops.schemas.tables import Column, Table

Partition = tuple[tuple[str, Any], ...]
"""Partition columns with the values of one partition; empty for a table without."""
TRUSTED = "schema", "keys_unique", "no_nulls", "ranges"
"""Rules that a row breaks or keeps; breaking one is an error."""
WATCHED = "fresh", "quality_share"
"""What operation may break without anybody writing a wrong row; a warning."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Outcome of one rule. `violations` names what breaks it; empty = kept."""

    rule: str
    violations: Mapping[str, float | str]
    looked_at: Mapping[str, float | str | int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the rule holds."""
        return not self.violations


def rules(table: Table) -> tuple[str, ...]:
    """Names of the rules that apply to a table."""
    watched = {"fresh": table.fresh_within, "quality_share": table.worst_bad_share}
    return (*TRUSTED, *(name for name in WATCHED if watched[name] is not None))


def examine(
    lake: Lake, table: Table, since: int = -1, *, now: datetime | None = None
) -> tuple[int, list[Finding]]:
    """Version that was examined, and a finding per rule; versions up to `since` are known good.

    When `since` can no longer be read (vacuumed away), everything is examined.
    """
    handle = lake.ensure(table)
    files = _new_files(lake, table, handle, since)
    partitions = _partitions(table, files)
    found = [
        Finding("schema", _schema(handle, table)),
        _keys_unique(lake, table, handle, partitions),
        _no_nulls(lake, table, handle, files),
        _ranges(lake, table, handle, files),
    ]
    if table.fresh_within is not None:
        found.append(_fresh(table, handle, now or datetime.now(UTC)))
    if table.worst_bad_share is not None:
        found.append(_quality_share(lake, table, handle, partitions))
    return handle.version(), found


def _new_files(lake: Lake, table: Table, handle: DeltaTable, since: int) -> pl.DataFrame:
    """Add actions of files that the version `since` did not have."""
    added = pl.DataFrame(handle.get_add_actions(flatten=True))
    if since < 0 or added.is_empty():
        return added
    try:
        before = pl.DataFrame(lake.open(table, since).get_add_actions(flatten=True))
    except DeltaError:
        return added
    return added.filter(~pl.col("path").is_in(before["path"].to_list()))


def _partitions(table: Table, files: pl.DataFrame) -> list[Partition]:
    if files.is_empty():
        return []
    if not table.partition_by:
        return [()]
    columns = [f"partition.{name}" for name in table.partition_by]
    values = files.select(columns).unique().sort(columns)
    return [tuple(zip(table.partition_by, row, strict=True)) for row in values.iter_rows()]


def _scan(
    lake: Lake, table: Table, handle: DeltaTable, partition: Iterable[tuple[str, Any]]
) -> pl.LazyFrame:
    frame = lake.scan(table, handle.version())
    for name, value in partition:
        frame = frame.filter(pl.col(name) == pl.lit(value).cast(frame.collect_schema()[name]))
    return frame


def _files(
    lake: Lake, table: Table, handle: DeltaTable, files: pl.DataFrame, columns: list[str]
) -> pl.LazyFrame:
    """Rows of some of the table's files."""
    wanted = _partitions(table, files)
    frames = [_scan(lake, table, handle, partition).select(columns) for partition in wanted]
    return (
        pl.concat(frames) if frames else lake.scan(table, handle.version()).select(columns).head(0)
    )


def _schema(handle: DeltaTable, table: Table) -> dict[str, str]:
    # Arrow's stubs do not know schemas of other libraries.
    stored = pa.schema(cast("Any", handle.schema()))
    wrong = {
        name: f"{stored.field(name).type}, declared {column.type}"
        for name, column in table.columns.items()
        if name in stored.names and stored.field(name).type != column.type
    }
    missing = {name: "missing" for name in table.columns if name not in stored.names}
    extra = {name: "not declared" for name in stored.names if name not in table.columns}
    return wrong | missing | extra


def _keys_unique(
    lake: Lake, table: Table, handle: DeltaTable, partitions: list[Partition]
) -> Finding:
    keys, rows, twice = list(table.keys), 0, 0
    for partition in partitions:
        frame = _scan(lake, table, handle, partition).select(keys)
        # A hash per row is all that is held; two rows share one by chance once in 10^7 days.
        hashes = frame.select(pl.struct(keys).hash()).collect(engine="streaming").to_series()
        rows += hashes.len()
        sorted_hashes = hashes.to_numpy(writable=True)
        sorted_hashes.sort()
        same = int(np.count_nonzero(sorted_hashes[1:] == sorted_hashes[:-1]))
        if same:
            suspects = sorted_hashes[1:][sorted_hashes[1:] == sorted_hashes[:-1]]
            again = frame.filter(pl.struct(keys).hash().is_in(np.unique(suspects).tolist()))
            kept = again.collect()
            twice += kept.height - kept.n_unique(keys)
    looked_at = {"rows": rows, "partitions": len(partitions)}
    return Finding("keys_unique", {"repeated": twice} if twice else {}, looked_at)


def _no_nulls(lake: Lake, table: Table, handle: DeltaTable, files: pl.DataFrame) -> Finding:
    required = [
        name
        for name, column in table.columns.items()
        if not column.nullable and name not in table.partition_by
    ]
    unknown, counts = [], dict[str, int]()
    for name in required:
        statistic = f"null_count.{name}"
        if statistic in files.columns and not files[statistic].null_count():
            counts[name] = int(files[statistic].sum())
        elif not files.is_empty():
            unknown.append(name)
    if unknown:
        nulls = _files(lake, table, handle, files, unknown).select(pl.all().is_null().sum())
        counts |= nulls.collect(engine="streaming").row(0, named=True)
    violations = {name: int(n) for name, n in counts.items() if n}
    return Finding("no_nulls", violations, {"files": files.height, "read": len(unknown)})


def _ranges(lake: Lake, table: Table, handle: DeltaTable, files: pl.DataFrame) -> Finding:
    violations: dict[str, float | str] = {}
    read = 0
    for name, column in table.columns.items():
        if column.low is None and column.high is None:
            continue
        suspects = _suspects(name, column, files)
        if suspects.is_empty():
            continue
        read += suspects.height
        outside = _outside(pl.col(name), column).sum()
        frame = _files(lake, table, handle, suspects, [name]).select(outside)
        wrong = int(frame.collect(engine="streaming").item())
        if wrong:
            violations[name] = wrong
    return Finding("ranges", violations, {"files": files.height, "read": read})


def _suspects(name: str, column: Column, files: pl.DataFrame) -> pl.DataFrame:
    """Files whose statistics do not show that every value is inside."""
    low, high = f"min.{name}", f"max.{name}"
    if low not in files.columns or high not in files.columns:
        return files
    shown = pl.lit(value=True)
    if column.low is not None:
        shown &= pl.col(low) >= column.low
    if column.high is not None:
        shown &= pl.col(high) <= column.high
    # Only nulls: nothing to be outside.
    empty = pl.col(f"null_count.{name}") == pl.col("num_records")
    return files.filter(~(shown.fill_null(value=False) | empty.fill_null(value=False)))


def _outside(value: pl.Expr, column: Column) -> pl.Expr:
    outside = pl.lit(value=False)
    if column.low is not None:
        outside |= value < column.low
    if column.high is not None:
        outside |= value > column.high
    return outside.fill_null(value=False)


def _fresh(table: Table, handle: DeltaTable, now: datetime) -> Finding:
    assert table.fresh_within is not None  # noqa: S101 - asked for by the caller
    arrived = newest(handle, "_ingested_at")
    if arrived is None:
        return Finding("fresh", {}, {"newest": "no rows yet"})
    age = now - arrived
    minutes = round(age.total_seconds() / 60, 1)
    said: dict[str, float | str | int] = {
        "newest": arrived.isoformat(timespec="seconds"),
        "minutes_old": minutes,
    }
    return Finding("fresh", {"minutes_old": minutes} if age > table.fresh_within else {}, said)


def newest(handle: DeltaTable, column: str) -> datetime | None:
    """Largest value of a time column, from the log; None without rows or statistics."""
    added = pl.DataFrame(handle.get_add_actions(flatten=True))
    statistic = f"max.{column}"
    if statistic not in added.columns:
        return None
    value = added[statistic].cast(pl.Datetime("us", "UTC")).max()
    return value if isinstance(value, datetime) else None


def _quality_share(
    lake: Lake, table: Table, handle: DeltaTable, partitions: list[Partition]
) -> Finding:
    """Share of values that were not good, per channel, over the partitions with new files."""
    assert table.worst_bad_share is not None  # noqa: S101 - asked for by the caller
    if "n_bad" in table.columns:
        bad, everything = pl.col("n_bad").sum(), (pl.col("n") + pl.col("n_bad")).sum()
    else:
        bad, everything = (pl.col("quality") != Quality.GOOD).sum(), pl.len()
    counts: dict[str, tuple[float, float]] = {}
    for partition in partitions:
        frame = _scan(lake, table, handle, partition)
        per_channel = frame.group_by("channel").agg(bad.alias("bad"), everything.alias("all"))
        for name, b, n in per_channel.collect(engine="streaming").iter_rows():
            before = counts.get(str(name), (0.0, 0.0))
            counts[str(name)] = (before[0] + b, before[1] + n)
    shares = {name: round(b / n, 4) for name, (b, n) in sorted(counts.items()) if n}
    worse = {name: share for name, share in shares.items() if share > table.worst_bad_share}
    return Finding("quality_share", worse, shares)
