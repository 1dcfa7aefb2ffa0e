"""Kafka messages into Delta tables, each offset once.

One flush makes at most one commit per table for all owned partitions, and the last offsets are
inside that commit as Delta app transactions. What is stored at or below is dropped before writing,
on the very handle the commit is made with, so a crash at any point, a rewind or a second writer
changes nothing.

A flush fills several tables, and a crash may fall between two commits. Therefore
- dead letters are committed first: they are the record of the judgement. A replay of the flush
  takes its rejections from there, even if the fleet or a counter would now judge otherwise;
- each table compares its own stored offset;
- a record that is in its table already was sent twice and is dropped, see `repeats`;
- the topic's closing table is committed last, rows or not: up to its offset all is settled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import polars as pl

from aegisops.errors import Conflict
from aegisops.lake import Lake
from aegisops.quality import Counters, Limits
from aegisops.schemas.tables import DEAD_LETTERS, Table
from streaming import routes
from streaming.breaker import Breaker
from streaming.buffers import Messages, Taken
from streaming.decoding import Batch, Decode, decode, schema_id
from streaming.fleet import Fleet
from streaming.lake_metrics import LakeMetrics
from streaming.offsets import Ledger, Offsets
from streaming.repeats import without_repeats
from streaming.sink import BufferedSink
from streaming.warm_up import counter_levels

log = logging.getLogger(__name__)

ATTEMPTS = 5
LEVELS_SINCE = timedelta(days=7)
_KEY = ["_partition", "_offset", "_index"]
_US_PER_SECOND = 1_000_000

Parts = Mapping[int, Messages]
"""Partition → messages of one topic."""


class LakeSink(BufferedSink):
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
        max_bad_share: float = 1.0,
        circuit_opened: Callable[[str], None] = lambda _: None,
        check_topics: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`incarnations`: topic → cluster and topic id, the topic's identity beyond its name.

        `max_bad_share`, `circuit_opened`: see `Breaker`.
        """
        super().__init__(metrics, check_topics)
        self._lake = lake
        self._fleet = fleet
        self._decoder = decoder
        self._limits = limits
        self._ledger = Ledger(lake, incarnations)
        self._metrics: LakeMetrics = metrics
        self._breaker = Breaker(max_bad_share, metrics.circuit_open, circuit_opened)
        self._clock = clock
        self._levels: Counters = {}

    def setup(self) -> None:
        """Learn the fleet and where its counters stand; called once, at the start."""
        fleet = self._fleet.knowing([])
        since = datetime.fromtimestamp(self._clock(), UTC) - LEVELS_SINCE
        self._levels = counter_levels(self._lake, fleet, pl.col("date") >= since.date())

    def postponed(self) -> None:
        """Open the tables anew; nothing else here depends on what was not written."""
        self._ledger.forget()

    def write(self, taken: Taken) -> None:
        """Write these messages into the tables of their topics."""
        topics: dict[str, dict[int, Messages]] = {}
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
            table.name: self._ledger.stored(table, topic, parts)
            for table in (DEAD_LETTERS, *(t for t, _ in route.split))
        }
        settled = stored[route.closing.name]
        named = {(topic, partition): messages for partition, messages in parts.items()}
        fresh = self.count_skipped(named, lambda p: settled[p[1]])
        parts = {partition: messages for (_, partition), messages in fresh.items()}
        if not parts:
            return
        last = {partition: messages.last for partition, messages in parts.items()}
        now = self._clock()
        batch = decode(topic, parts, self._decoder, round(now * _US_PER_SECOND))
        fleet = (
            self._fleet.knowing(batch.records["machine_id"].unique())
            if batch.records.height
            else {}
        )
        judgement = route.judge(batch.records, fleet, self._limits, self._levels)
        decided = {p: max(s[p] for s in stored.values()) for p in parts}
        rows = judgement.rows
        if any(messages.offsets[0] <= decided[p] for p, messages in parts.items()):
            rows = self._as_recorded(topic, rows, decided)
        letters = self._letters(topic, parts, rows, batch)
        if not any(m.offsets[0] <= stored[DEAD_LETTERS.name][p] for p, m in parts.items()):
            # What is in the record was let through before: it must be finished now.
            self._breaker.check(topic, rows, batch.failures)
        ingested_at = datetime.fromtimestamp(now, UTC)

        def commit(table: Table, data: pl.DataFrame, *, always: bool = False) -> None:
            if table.identity:
                data = self._without_repeats(table, route.time, data)
            if data.height or always:
                data = data.with_columns(
                    _topic=pl.lit(self._ledger.label(topic)), _ingested_at=pl.lit(ingested_at)
                )
                written = self._ledger.append(table, data, topic, last, stored[table.name])
                self._count(table, written)

        commit(DEAD_LETTERS, letters, always=route.closing is DEAD_LETTERS)
        for table, pick in route.split:
            commit(table, pick(rows), always=table is route.closing)
        self._levels.update(judgement.levels)
        self._metrics.saw(routes.newest(topic, rows))

    def _without_repeats(self, table: Table, time: str, rows: pl.DataFrame) -> pl.DataFrame:
        # `append` refuses when a partition's offset is not the judged one any more. A record's
        # repeat is in the same partition, so what the handle shows now still holds at the commit.
        fresh = without_repeats(table, time, rows, self._ledger.scan(table))
        self._metrics.repeats.labels(table.name).inc(rows.height - fresh.height)
        return fresh

    def _count(self, table: Table, written: pl.DataFrame) -> None:
        self._metrics.rows.labels(table.name).inc(written.height)
        self._metrics.flush_rows.labels(table.name).observe(written.height)
        if table is DEAD_LETTERS:
            for reason, count in written["reason"].value_counts().iter_rows():
                self._metrics.dead_letters.labels(reason).inc(count)

    # --- the record of an earlier judgement -------------------------------------------------------

    def _as_recorded(self, topic: str, rows: pl.DataFrame, decided_to: Offsets) -> pl.DataFrame:
        """Rows with the reasons an interrupted flush gave them, where it got as far as a commit."""
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
            .filter(pl.col("_topic") == self._ledger.label(topic), pl.col("_offset") >= first)
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
        raw = [parts[p].at(o) for p, o in letters.select("_partition", "_offset").iter_rows()]
        return letters.with_columns(
            pl.Series("raw", raw, dtype=pl.Binary),
            pl.Series("schema_id", [schema_id(r) for r in raw], dtype=pl.Int32),
        ).rename({"why": "detail"})
