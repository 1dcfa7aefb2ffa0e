"""Kafka messages into Delta tables, each offset once.

One flush makes at most one commit per table for all owned partitions, and the last offsets are
inside that commit as Delta app transactions. What is stored at or below is dropped before writing,
on the very handle the commit is made with, so a crash at any point, a rewind or a second writer
changes nothing.

A flush fills several tables, and a crash may fall between two commits. Therefore
- dead letters are committed first: they are the record of the judgement. A replay of the flush
  takes its rejections from there, even if the fleet or a counter would now judge otherwise;
- each table compares its own stored offset;
- the topic's closing table is committed last, rows or not: up to its offset all is settled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from quixstreams.sinks.base import BaseSink, SinkBackpressureError

from aegisops.errors import Conflict, Retryable
from aegisops.lake import Lake
from aegisops.quality import Counters, Limits
from aegisops.schemas.tables import DEAD_LETTERS, Table
from streaming import routes
from streaming.buffers import Buffers, Message, Taken
from streaming.decoding import Batch, Decode, decode, schema_id
from streaming.fleet import Fleet
from streaming.lake_metrics import LakeMetrics
from streaming.offsets import NOTHING, app_id, topic_label
from streaming.warm_up import counter_levels

log = logging.getLogger(__name__)

ATTEMPTS = 5
RETRY_SECONDS = 5.0
LEVELS_SINCE = timedelta(days=7)
_KEY = ["_partition", "_offset", "_index"]
_US_PER_SECOND = 1_000_000

Parts = Mapping[int, list[Message]]
"""Partition → messages of one topic."""
Offsets = Mapping[int, int]
"""Partition → offset; -1 = nothing yet."""


class LakeSink(BaseSink):
    """Writes every route's topics into its tables and bronze/dead_letters."""

    def __init__(
        self,
        lake: Lake,
        *,
        fleet: Fleet,
        decoder: Decode,
        limits: Limits,
        incarnations: Mapping[str, str],
        metrics: LakeMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`incarnations`: topic → cluster and topic id, the topic's identity beyond its name."""
        super().__init__()
        self._lake = lake
        self._fleet = fleet
        self._decoder = decoder
        self._limits = limits
        self._incarnations = incarnations
        self._metrics = metrics
        self._clock = clock
        self._buffers = Buffers()
        self._handles: dict[str, DeltaTable] = {}
        self._levels: Counters = {}
        # A flush that overran a rebalance may still be writing in its own thread.
        self._writing = threading.Lock()

    def setup(self) -> None:
        """Learn the fleet and where its counters stand; called once, at the start."""
        fleet = self._fleet.knowing([])
        since = datetime.fromtimestamp(self._clock(), UTC) - LEVELS_SINCE
        self._levels = counter_levels(self._lake, fleet, pl.col("date") >= since.date())

    def add(  # noqa: PLR0917 - Quix's signature
        self,
        value: bytes | None,
        key: object,  # noqa: ARG002
        timestamp: int,
        headers: object,  # noqa: ARG002
        topic: str,
        partition: int,
        offset: int,
    ) -> None:
        """Keep one raw message until the next flush."""
        self._buffers.add((topic, partition), Message(offset, timestamp, value or b""))

    def on_paused(self) -> None:
        """Another sink is away: Kafka will send everything again."""
        self._buffers.clear()

    def flush(self) -> None:
        """Write what was added. A store or registry that is away pauses the application."""
        taken = self._buffers.swap()
        if not taken:
            return
        with self._writing, self._metrics.flush_seconds.time():
            try:
                self._write(taken)
            except (Retryable, DeltaError, OSError) as error:
                self._handles.clear()
                self._metrics.backpressure.inc()
                log.warning("flush postponed by %s s: %s", RETRY_SECONDS, error)
                raise SinkBackpressureError(RETRY_SECONDS) from error

    def _write(self, taken: Taken) -> None:
        topics: dict[str, dict[int, list[Message]]] = {}
        for (topic, partition), messages in taken.items():
            topics.setdefault(topic, {})[partition] = messages
        for topic, parts in topics.items():
            for attempt in range(ATTEMPTS):
                try:
                    self._write_topic(topic, parts)
                    break
                except Conflict:
                    # Someone else moved on with these partitions: look again at what is stored.
                    self._metrics.conflicts.inc()
                    if attempt == ATTEMPTS - 1:
                        raise

    def _write_topic(self, topic: str, parts: Parts) -> None:
        route = routes.ROUTES[topic]
        stored = {
            table.name: self._stored(table, topic, parts)
            for table in (DEAD_LETTERS, *(t for t, _ in route.split))
        }
        parts = self._unsettled(parts, stored[route.closing.name])
        if not parts:
            return
        last = {partition: messages[-1].offset for partition, messages in parts.items()}
        now = self._clock()
        batch = decode(topic, parts, self._decoder, round(now * _US_PER_SECOND))
        fleet = (
            self._fleet.knowing(batch.records["machine_id"].unique())
            if batch.records.height
            else {}
        )
        judgement = route.judge(batch.records, fleet, self._limits, self._levels)
        rows = self._as_recorded(topic, judgement.rows, stored)
        letters = self._letters(topic, parts, rows, batch)
        ingested_at = datetime.fromtimestamp(now, UTC)

        def commit(table: Table, data: pl.DataFrame, *, always: bool = False) -> None:
            if data.height or always:
                data = data.with_columns(
                    _topic=pl.lit(self._label(topic)), _ingested_at=pl.lit(ingested_at)
                )
                self._append(table, data, topic, last, stored[table.name])

        commit(DEAD_LETTERS, letters)
        for table, pick in route.split:
            commit(table, pick(rows), always=table is route.closing)
        self._levels.update(judgement.levels)

    def _unsettled(self, parts: Parts, settled: Offsets) -> Parts:
        fresh = {
            partition: [m for m in messages if m.offset > settled[partition]]
            for partition, messages in parts.items()
        }
        skipped = sum(map(len, parts.values())) - sum(map(len, fresh.values()))
        self._metrics.skipped.inc(skipped)
        for partition, messages in fresh.items():
            missing = messages[-1].offset - settled[partition] - len(messages) if messages else 0
            if missing:
                # Our producers leave no gaps, so the broker dropped what was not read in time.
                self._metrics.missing.inc(missing)
                log.error(
                    "partition %s: %s offsets after %s never came; the broker dropped them",
                    partition,
                    missing,
                    settled[partition],
                )
        return {partition: messages for partition, messages in fresh.items() if messages}

    # --- the record of an earlier judgement -------------------------------------------------------

    def _as_recorded(
        self, topic: str, rows: pl.DataFrame, stored: Mapping[str, Offsets]
    ) -> pl.DataFrame:
        """Rows with the reasons an interrupted flush gave them, where it got as far as a commit."""
        recorded_to = stored[DEAD_LETTERS.name]
        decided_to = {p: max(s[p] for s in stored.values()) for p in recorded_to}
        decided = pl.DataFrame(
            {"_partition": list(decided_to), "decided": list(decided_to.values())},
            schema={"_partition": pl.Int32, "decided": pl.Int64},
        )
        rows = rows.join(decided, on="_partition", how="left", maintain_order="left")
        is_decided = pl.col("_offset") <= pl.col("decided")
        if rows.filter(is_decided).is_empty():
            return rows.drop("decided")
        first = rows.filter(is_decided)["_offset"].min()
        record = (
            self._lake.scan(DEAD_LETTERS)
            .filter(pl.col("_topic") == self._label(topic), pl.col("_offset") >= first)
            .select(*_KEY, pl.col("reason").alias("recorded"), whole=pl.col("channel").is_null())
            .collect()
        )
        per_message = record.filter("whole").select(*_KEY[:2], pl.col("recorded").alias("message"))
        # A machine unknown by now was known then, or its message would be in the record.
        judged_again = pl.col("reason") == routes.UNKNOWN_MACHINE
        reason = pl.coalesce(
            "message", "recorded", pl.when(judged_again).then("reason"), pl.lit(None, pl.String)
        )
        return (
            rows.join(per_message, on=_KEY[:2], how="left", maintain_order="left")
            .join(record.drop("whole"), on=_KEY, how="left", maintain_order="left")
            .with_columns(reason=pl.when(is_decided).then(reason).otherwise("reason"))
            .drop("decided", "message", "recorded")
        )

    def _letters(self, topic: str, parts: Parts, rows: pl.DataFrame, batch: Batch) -> pl.DataFrame:
        """Rows of bronze/dead_letters for rejected readings and undecodable messages."""
        letters = pl.concat(
            [
                routes.rejected(topic, rows),
                batch.failures.with_columns(_index=pl.lit(0, pl.Int32)),
            ],
            how="diagonal",
        )
        payloads = {(p, m.offset): m.value for p, messages in parts.items() for m in messages}
        raw = [payloads[key] for key in letters.select("_partition", "_offset").iter_rows()]
        return letters.with_columns(
            pl.Series("raw", raw, dtype=pl.Binary),
            pl.Series("schema_id", [schema_id(r) for r in raw], dtype=pl.Int32),
        ).rename({"why": "detail"})

    # --- offsets inside the commits ---------------------------------------------------------------

    def _append(
        self, table: Table, rows: pl.DataFrame, topic: str, last: Offsets, judged_on: Offsets
    ) -> None:
        """One commit with the rows above the stored offsets; nothing if they are all there."""
        handle = self._handle(table)
        handle.update_incremental()
        stored = self._versions(handle, table, topic, last)
        if any(stored[p] != judged_on[p] for p in last):
            raise Conflict(f"{table.name}: another writer has moved on with {topic}")
        ahead = {p: offset for p, offset in last.items() if offset > stored[p]}
        if not ahead:
            return
        bounds = pl.DataFrame(
            {"_partition": list(stored), "stored": list(stored.values())},
            schema={"_partition": pl.Int32, "stored": pl.Int64},
        )
        fresh = (
            rows.join(bounds, on="_partition", how="left", maintain_order="left")
            .filter(pl.col("_offset") > pl.col("stored"))
            .drop("stored")
        )
        transactions = {self._app_id(table, topic, p): offset for p, offset in ahead.items()}
        self._lake.append(table, fresh, transactions, handle)
        self._metrics.rows.labels(table.name).inc(fresh.height)
        if table is DEAD_LETTERS:
            for reason, count in fresh["reason"].value_counts().iter_rows():
                self._metrics.dead_letters.labels(reason).inc(count)

    def _stored(self, table: Table, topic: str, partitions: Iterable[int]) -> Offsets:
        handle = self._handle(table)
        handle.update_incremental()
        return self._versions(handle, table, topic, partitions)

    def _versions(
        self,
        handle: DeltaTable,
        table: Table,
        topic: str,
        partitions: Iterable[int],
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

    def _label(self, topic: str) -> str:
        return topic_label(topic, self._incarnations[topic])
