"""The Delta edge: the one module that opens, creates and commits tables.

Exactly-once writers pass `transactions` (app id → last position inside the commit) together with
the handle they compared those positions on; delta-rs then refuses a stale writer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from aegisops.errors import Conflict
from aegisops.schemas.tables import Table

Rows = pl.DataFrame | pa.Table
Partition = tuple[tuple[str, str], ...]
"""Partition columns with their values, as text."""


class Lake:
    """Tables under one root: a local folder or an object-store URL."""

    def __init__(self, root: str | Path, storage_options: dict[str, str] | None = None) -> None:
        self.root = str(root)
        self._options = storage_options

    def uri(self, table: Table) -> str:
        """Address of the table."""
        return f"{self.root.rstrip('/')}/{table.name}"

    def exists(self, table: Table) -> bool:
        """Whether the table has been created."""
        return DeltaTable.is_deltatable(self.uri(table), self._options)

    def ensure(self, table: Table) -> DeltaTable:
        """A fresh handle; the table is created with its declared schema when absent."""
        if not self.exists(table):
            DeltaTable.create(
                self.uri(table),
                table.schema,
                mode="ignore",
                partition_by=list(table.partition_by) or None,
                name=table.name,
                description=table.doc,
                configuration=dict(table.properties),
                storage_options=self._options,
            )
        return self.open(table)

    def open(self, table: Table, version: int | None = None) -> DeltaTable:
        """A handle at the latest (or the given) version; `TableNotFoundError` when absent."""
        return DeltaTable(self.uri(table), version=version, storage_options=self._options)

    def version(self, table: Table) -> int:
        """Latest version, or -1 when the table does not exist."""
        try:
            return self.open(table).version()
        except TableNotFoundError:
            return -1

    def version_at(self, table: Table, time: datetime) -> int:
        """Newest version that was committed at or before `time`; -1 when there was none yet."""
        handle = self.open(table)
        handle.load_as_version(time)
        if handle.version() > 0:
            return handle.version()
        # Asked for a time before the table was there, delta-rs gives its first version.
        commits = (c for c in handle.history() if c.get("version") == 0)
        first = next(commits, {"timestamp": 0})
        return 0 if first["timestamp"] <= time.timestamp() * 1000 else -1

    def append(
        self,
        table: Table,
        rows: Rows,
        transactions: Mapping[str, int] | None = None,
        handle: DeltaTable | None = None,
    ) -> int:
        """Append rows in one commit; returns the new version.

        Raises `Conflict` when another writer moved one of `transactions` since `handle` was read.
        """
        handle = handle or self.ensure(table)
        return self._write(handle, table, rows, mode="append", transactions=transactions)

    def overwrite(
        self,
        table: Table,
        rows: Rows | Iterator[pl.DataFrame],
        predicate: str | None = None,
        transactions: Mapping[str, int] | None = None,
    ) -> int:
        """Replace the whole table, or only the rows where the SQL `predicate` holds.

        Parts from an iterator are written as they come, in one commit; each is sorted by itself.
        An error of the iterator is raised as it is, and nothing is committed.
        """
        handle = self.ensure(table)
        return self._write(
            handle, table, rows, mode="overwrite", predicate=predicate, transactions=transactions
        )

    def scan(self, table: Table, version: int | None = None) -> pl.LazyFrame:
        """Lazy rows of one snapshot; an empty frame of the declared schema when absent."""
        try:
            handle = self.open(table, version)
        except TableNotFoundError:
            return pl.from_arrow(table.schema.empty_table()).lazy()  # type: ignore[union-attr]
        return self.rows(handle)

    def rows(self, handle: DeltaTable) -> pl.LazyFrame:
        """Lazy rows of the snapshot that a handle stands at."""
        if "%" in handle.table_uri:
            # delta-rs percent-encodes paths such as "My lake"; polars 2.1 then finds no file.
            return pl.scan_pyarrow_dataset(handle.to_pyarrow_dataset())
        return pl.scan_delta(handle)

    def compact(self, table: Table, partition: Partition = ()) -> int:
        """Merge small files of the table, or of one partition; returns files that are gone.

        Safe beside an appending writer. Raises `Conflict` when a file was replaced meanwhile.
        """
        return self._optimize(
            table,
            lambda handle: handle.optimize.compact(
                partition_filters=_filters(partition), writer_properties=_writer_properties(table)
            ),
        )

    def cluster(self, table: Table, partition: Partition = ()) -> int:
        """Write a partition's rows again, Z-ordered by `cluster_by`; returns files that are gone.

        As `compact` does; for a partition that is finished, because all of it is rewritten.
        """
        return self._optimize(
            table,
            lambda handle: handle.optimize.z_order(
                table.cluster_by,
                partition_filters=_filters(partition),
                writer_properties=_writer_properties(table),
            ),
        )

    def _optimize(self, table: Table, work: Callable[[DeltaTable], dict[str, Any]]) -> int:
        try:
            done = work(self.open(table))
        except CommitFailedError as error:
            raise Conflict(f"{table.name}: another writer committed first: {error}") from error
        return int(done["numFilesRemoved"])

    def checkpoint(self, table: Table) -> None:
        """Fold the log into a checkpoint and drop entries older than the table keeps."""
        handle = self.open(table)
        handle.create_checkpoint()
        handle.cleanup_metadata()

    def vacuum(self, table: Table, keep: timedelta, versions: Collection[int] = ()) -> list[str]:
        """Delete files no version younger than `keep`, nor one of `versions`, needs; their names.

        Files of writers that have not committed yet are never touched.
        """
        hours = int(keep.total_seconds() // 3600)
        return self.open(table).vacuum(
            hours,
            dry_run=False,
            enforce_retention_duration=False,
            keep_versions=sorted(versions) or None,
        )

    def _write(
        self,
        handle: DeltaTable,
        table: Table,
        rows: Rows | Iterator[pl.DataFrame],
        *,
        mode: Literal["append", "overwrite"],
        predicate: str | None = None,
        transactions: Mapping[str, int] | None = None,
    ) -> int:
        app_transactions = [Transaction(app, last) for app, last in (transactions or {}).items()]
        commit = CommitProperties(app_transactions=app_transactions or None)
        stream = None if isinstance(rows, pl.DataFrame | pa.Table) else _Stream(table, rows)
        data = conform(table, rows) if stream is None else stream.reader()  # type: ignore[arg-type]
        properties = _writer_properties(table)
        try:
            if mode == "append":
                write_deltalake(
                    handle,
                    data,
                    mode="append",
                    writer_properties=properties,
                    commit_properties=commit,
                )
            else:
                write_deltalake(
                    handle,
                    data,
                    mode="overwrite",
                    predicate=predicate,
                    writer_properties=properties,
                    commit_properties=commit,
                )
        except CommitFailedError as error:
            raise Conflict(f"{table.name}: another writer committed first: {error}") from error
        except Exception:
            if stream is not None and stream.error is not None:
                raise stream.error from None
            raise
        return handle.version()


class _Stream:
    """Parts of a table as Arrow batches; remembers the error that ended them."""

    def __init__(self, table: Table, parts: Iterator[pl.DataFrame]) -> None:
        self._table = table
        self._parts = parts
        self.error: Exception | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._table.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        # The writer asks from inside its asynchronous runtime, where reading another Delta table
        # would panic; in a thread of its own a part may do what it likes.
        with ThreadPoolExecutor(max_workers=1) as thread:
            while True:
                try:
                    part = thread.submit(next, self._parts, None).result()
                except Exception as error:
                    self.error = error
                    raise
                if part is None:
                    return
                yield from conform(self._table, part).to_batches()


def _filters(partition: Partition) -> list[tuple[str, str, Any]] | None:
    return [(name, "=", value) for name, value in partition] or None


@cache
def _writer_properties(table: Table) -> WriterProperties:
    # Measured values hardly repeat: a dictionary costs 40 % of the writing and saves no space.
    plain = ColumnProperties(dictionary_enabled=False)
    measured = {n: plain for n, c in table.columns.items() if pa.types.is_floating(c.type)}
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        max_row_group_size=table.row_group,
        column_properties=measured or None,
    )


def _in_order(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Row numbers in the order of the columns; texts compared as numbers, a third cheaper."""
    keys = (
        frame[c].cast(pl.Enum(frame[c].unique().sort()))
        if frame[c].dtype == pl.String
        else frame[c]
        for c in columns
    )
    return (
        pl.DataFrame(list(keys)).select(pl.arg_sort_by(*columns, maintain_order=True)).to_series()
    )


def conform(table: Table, rows: Rows) -> pa.Table:
    """Rows with exactly the declared columns, types and order, sorted as the table wants.

    A missing `date` is taken from `ts`, `asked_at`, `scored_at` or `changed_at`; any other missing
    column is an error of the caller and raises `ValueError`.
    """
    frame = rows if isinstance(rows, pl.DataFrame) else pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a Table never becomes a Series
    if "date" in table.columns and "date" not in frame.columns:
        times = ("ts", "asked_at", "scored_at", "changed_at")
        time = next(name for name in times if name in frame.columns)
        frame = frame.with_columns(
            pl.col(time).cast(pl.Datetime("us", "UTC")).dt.date().alias("date")
        )
    missing = [name for name in table.columns if name not in frame.columns]
    if missing:
        raise ValueError(f"{table.name}: rows lack the columns {missing}")
    if table.order:
        frame = frame[_in_order(frame, table.order)]
    return frame.select(list(table.columns)).to_arrow().cast(table.schema)
