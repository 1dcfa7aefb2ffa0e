"""Large history straight into bronze, past Kafka: same tables, same judgement, once.

Rows carry `_topic = import/<name>` and the running number of the message they would have been.
Each commit holds the last number as a Delta app transaction, whose name contains a digest of the
content: the same import again, or again after a crash, adds nothing; readings that are already in
the lake from elsewhere are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import polars as pl

from aegisops.importers.doubles import refuse_doubles
from aegisops.importers.messages import reading_messages
from aegisops.importers.reader import Imported
from aegisops.importers.registration import register
from aegisops.lake import Lake
from aegisops.quality import Counters, Fleet, Limits, judge_events, judge_readings
from aegisops.schemas.tables import DEAD_LETTERS, EVENTS, READINGS, Table

MESSAGES_PER_COMMIT = 20_000
LIMITS = Limits.of(max_future=timedelta(minutes=5), max_past=timedelta(days=400_000))
"""History is old by intention; only the future is refused."""
_US_PER_SECOND = 1_000_000
_UTC = pl.Datetime("us", "UTC")

Told = Callable[[str, int, int], None]
"""Progress for people: what, done, total."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Rows this call added; a repeated import adds none."""

    machines: int
    readings: int
    events: int
    rejected: int


def append_history(
    lake: Lake,
    imported: Imported,
    now_us: int,
    tell: Told | None = None,
    messages_per_commit: int = MESSAGES_PER_COMMIT,
) -> Appended:
    """Append a whole import to bronze and register its machines.

    Values outside a channel's limits, jumping counters and future times go to
    bronze/dead_letters with the reason, as they would from Kafka. `now_us`: arrival time, µs UTC.
    Raises `ConfigurationError` when the lake has these readings from elsewhere, and
    `Conflict` when another writer is at it: call again.
    """
    return _Append(lake, imported, now_us, tell or _silent, messages_per_commit).run()


class _Append:
    def __init__(
        self, lake: Lake, imported: Imported, now_us: int, tell: Told, per_commit: int
    ) -> None:
        self._lake = lake
        self._imported = imported
        self._now_us = now_us
        self._tell = tell
        self._per_commit = per_commit
        self._topic = f"import/{imported.name}"
        self._app = f"{self._topic}/{digest(imported)}"
        machines = imported.machines["machine_id"]
        self._fleet: Fleet = dict.fromkeys(machines, imported.machine_class)

    def run(self) -> Appended:
        if self._stored(READINGS) < 0:
            refuse_doubles(self._lake, self._imported)
        machines = register(self._lake, self._imported.machines, self._now_us)
        messages = reading_messages(self._imported.readings, self._now_us).with_columns(
            arrived_us=pl.lit(self._now_us), _offset=pl.int_range(pl.len(), dtype=pl.Int64)
        )
        readings, bad_readings = self._readings(messages)
        events, bad_events = self._events(messages.height)
        return Appended(machines, readings, events, bad_readings + bad_events)

    def _readings(self, messages: pl.DataFrame) -> tuple[int, int]:
        added = rejected = 0
        levels: Counters = {}
        for first in range(0, messages.height, self._per_commit):
            judged = judge_readings(
                messages.slice(first, self._per_commit), self._fleet, LIMITS, levels
            )
            levels |= judged.levels
            last = min(first + self._per_commit, messages.height) - 1
            rejected += self._commit(DEAD_LETTERS, self._letters(judged.rejected), last)
            added += self._commit(READINGS, judged.scalars, last)
            self._tell("readings", last + 1, messages.height)
        return added, rejected

    def _events(self, first_offset: int) -> tuple[int, int]:
        events = self._imported.events
        if not events.height:
            return 0, 0
        rows = judge_events(
            events.with_columns(arrived_us=pl.lit(self._now_us)), self._fleet, LIMITS
        ).with_columns(
            _offset=pl.int_range(first_offset, first_offset + pl.len(), dtype=pl.Int64),
            _index=pl.lit(0, pl.Int32),
            channel=pl.lit(None, pl.String),
            value=pl.lit(None, pl.Float64),
        )
        last = first_offset + events.height - 1
        bad = self._letters(rows.filter(pl.col("reason").is_not_null()))
        rejected = self._commit(DEAD_LETTERS, bad, last)
        added = self._commit(EVENTS, rows.filter(pl.col("reason").is_null()), last)
        self._tell("events", events.height, events.height)
        return added, rejected

    def _commit(self, table: Table, rows: pl.DataFrame, last: int) -> int:
        """One commit, unless it was made before; an empty one keeps the position."""
        if self._stored(table) >= last:
            return 0
        time = {} if table is DEAD_LETTERS else {"ts": pl.col("ts").cast(_UTC)}
        data = rows.with_columns(
            **time,
            _topic=pl.lit(self._topic),
            _partition=pl.lit(0, pl.Int32),
            _ingested_at=pl.lit(datetime.fromtimestamp(self._now_us / _US_PER_SECOND, UTC)),
        )
        handle = self._lake.ensure(table)
        self._lake.append(table, data, {f"{table.name}/{self._app}": last}, handle)
        return data.height

    def _stored(self, table: Table) -> int:
        handle = self._lake.ensure(table)
        version = handle.transaction_version(f"{table.name}/{self._app}")
        return -1 if version is None else version

    @staticmethod
    def _letters(rejected: pl.DataFrame) -> pl.DataFrame:
        """Rejected rows as dead letters; their bytes are the row as JSON."""
        kept = ["machine_id", "channel", "ts", "value"]
        raw = [orjson.dumps(row) for row in rejected.select(kept).iter_rows(named=True)]
        return rejected.with_columns(
            pl.col("why").alias("detail"),
            pl.Series("raw", raw, dtype=pl.Binary),
            schema_id=pl.lit(None, pl.Int32),
        )


def digest(imported: Imported) -> str:
    """16 hex digits over every reading and event, in order; equal for equal content."""
    content = hashlib.sha256()
    readings = imported.readings
    for name in ("machine_id", "channel"):
        words = readings[name].cast(pl.String)
        known = words.unique().sort()
        content.update("\0".join(known).encode())
        content.update(
            words.cast(pl.Enum(known)).to_physical().cast(pl.UInt32).to_numpy().tobytes()
        )
    for name, dtype in (("ts", np.int64), ("value", np.float64), ("quality", np.int8)):
        content.update(readings[name].to_numpy().astype(dtype).tobytes())
    content.update(imported.events.write_ndjson().encode())
    return content.hexdigest()[:16]


def _silent(_what: str, _done: int, _total: int) -> None:
    pass
