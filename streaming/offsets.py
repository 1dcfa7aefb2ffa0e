"""Kafka offsets inside Delta commits: how they are named, compared and moved on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from aegisops.errors import Conflict
from aegisops.lake import Lake
from aegisops.schemas.tables import Table
from streaming.buffers import TopicPartition
from streaming.routes import ROUTES

NOTHING = -1

Offsets = Mapping[int, int]
"""Partition → offset; `NOTHING` = none yet."""


def app_id(table: Table, topic: str, incarnation: str, partition: int) -> str:
    """Name of a partition's stored offset in a table's log.

    Without the incarnation (cluster and topic id) a recreated topic, which starts at offset 0
    again, would be discarded as already written.
    """
    return f"{table.name}/{incarnation}/{topic}/{partition}"


def topic_label(topic: str, incarnation: str) -> str:
    """`_topic` of rows: offsets are unique only within one incarnation of a topic."""
    return f"{topic}@{incarnation}"


def settled(
    lake: Lake, incarnations: Mapping[str, str], partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Last offset of each partition that is in every table of its route; -1 = none."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in partitions:
        by_topic.setdefault(topic, []).append(partition)
    offsets: dict[TopicPartition, int] = {}
    for topic, wanted in by_topic.items():
        table = ROUTES[topic].closing
        try:
            handle = lake.open(table)
        except TableNotFoundError:
            offsets |= {(topic, partition): NOTHING for partition in wanted}
            continue
        for partition in wanted:
            version = handle.transaction_version(
                app_id(table, topic, incarnations[topic], partition)
            )
            offsets[topic, partition] = NOTHING if version is None else version
    return offsets


class Ledger:
    """The stored offsets of all tables, and commits that move them on.

    Rows and offsets are in one commit, made on the very handle the offsets were compared on, so
    that delta-rs refuses the commit of whoever compared too early.
    """

    def __init__(self, lake: Lake, incarnations: Mapping[str, str]) -> None:
        """`incarnations`: topic → cluster and topic id, the topic's identity beyond its name."""
        self._lake = lake
        self._incarnations = incarnations
        self._handles: dict[str, DeltaTable] = {}

    def label(self, topic: str) -> str:
        """`_topic` of the topic's rows."""
        return topic_label(topic, self._incarnations[topic])

    def forget(self) -> None:
        """Open every table anew: after an error a handle may be anything."""
        self._handles.clear()

    def stored(self, table: Table, topic: str, partitions: Iterable[int]) -> Offsets:
        """Last offset of each partition that the table has."""
        handle = self._handle(table)
        handle.update_incremental()
        return self._versions(handle, table, topic, partitions)

    def scan(self, table: Table) -> pl.LazyFrame:
        """The table's rows as of the last question for its stored offsets."""
        return self._lake.rows(self._handle(table))

    def append(
        self, table: Table, rows: pl.DataFrame, topic: str, last: Offsets, judged_on: Offsets
    ) -> pl.DataFrame:
        """Commit the rows above the stored offsets and move those to `last`; returns the rows.

        Raises `Conflict` when the stored offsets are not `judged_on` any more: another writer has
        moved on with these partitions.
        """
        handle = self._handle(table)
        stored = self.stored(table, topic, last)
        if any(stored[p] != judged_on[p] for p in last):
            raise Conflict(f"{table.name}: another writer has moved on with {topic}")
        ahead = {p: offset for p, offset in last.items() if offset > stored[p]}
        if not ahead:
            return rows.clear()
        if rows.height and any(stored[p] >= 0 for p in last):
            known = np.full(max(stored) + 1, NOTHING, np.int64)
            known[list(stored)] = list(stored.values())
            rows = rows.filter(
                pl.Series(rows["_offset"].to_numpy() > known[rows["_partition"].to_numpy()])
            )
        transactions = {self._app_id(table, topic, p): offset for p, offset in ahead.items()}
        self._lake.append(table, rows, transactions, handle)
        return rows

    def _versions(
        self, handle: DeltaTable, table: Table, topic: str, partitions: Iterable[int]
    ) -> Offsets:
        versions = {
            p: handle.transaction_version(self._app_id(table, topic, p)) for p in partitions
        }
        return {p: NOTHING if version is None else version for p, version in versions.items()}

    def _handle(self, table: Table) -> DeltaTable:
        if table.name not in self._handles:
            self._handles[table.name] = self._lake.ensure(table)
        return self._handles[table.name]

    def _app_id(self, table: Table, topic: str, partition: int) -> str:
        return app_id(table, topic, self._incarnations[topic], partition)
