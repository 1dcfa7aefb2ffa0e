"""The gateway's store-and-forward spool: messages for Kafka in one SQLite file.

A message is in the file before its source hears of it and until Kafka has acknowledged it. One
thread at a time uses a spool. What a message means is not known here.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from aegisops.errors import ConfigurationError, Retryable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    spooled_at REAL NOT NULL
)
"""
# AUTOINCREMENT: an id is never used again, not even after everything was delivered and deleted, so
# it serves as the sender's running number.
_MARKS = """
CREATE TABLE IF NOT EXISTS marks (
    source TEXT NOT NULL,
    place TEXT NOT NULL,
    ts INTEGER NOT NULL,
    status INTEGER NOT NULL,
    PRIMARY KEY (source, place)
) WITHOUT ROWID
"""
_OVERHEAD = 64
"""Bytes a row costs beside its value."""
_CACHE_KIB = 8_192


class Message(NamedTuple):
    """One Kafka message."""

    id: int
    topic: str
    key: str
    value: bytes
    spooled_at: float
    """Seconds since 1970."""


class SpoolFull(Retryable):
    """No room: Kafka has been away for long, or the disk is full."""


class Spool:
    """Messages in the order they came. Durable when `write` returns, also over a power cut."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open or make the file. Raises `ConfigurationError` when it is not a spool."""
        self._path = path
        self._max_bytes = max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ConfigurationError(
                f"{path} is used by another gateway; each needs its own name in its mapping file"
            ) from error
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(
                "PRAGMA synchronous = FULL"
            )  # NORMAL would lose a commit to a power cut
            self._db.execute("PRAGMA journal_size_limit = 67108864")
            self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._db.execute(_SCHEMA)
            self._db.execute(_MARKS)
            row = self._db.execute(
                "SELECT count(*), coalesce(sum(length(value)), 0), min(spooled_at) FROM messages"
            ).fetchone()
            last = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'")
            self._last = (last.fetchone() or (0,))[0]
        except sqlite3.DatabaseError as error:
            self.close()
            raise ConfigurationError(
                f"{path} is not a spool that can be read ({error}); move it away to start with an "
                "empty one: what is in it is then not sent"
            ) from error
        self.depth: int = row[0]
        """Messages not yet acknowledged by Kafka."""
        self.bytes: int = row[1] + row[0] * _OVERHEAD
        """What they take, about."""

    @property
    def last_id(self) -> int:
        """Id of the newest message that was ever in the spool."""
        return self._last

    def write(
        self,
        new: Sequence[Message],
        delivered: Iterable[int] = (),
        marks: Iterable[tuple[str, str, int, int]] = (),
    ) -> None:
        """Add and remove messages in one transaction; on disk when this returns.

        `marks`: (source, place, ts, status) that are true once `new` is in.

        Raises `SpoolFull` when the new ones find no room; none of them is then in, and removing
        the delivered ones again does no harm.
        """
        size = sum(len(m.value) + _OVERHEAD for m in new)
        # One batch may pass the limit: an empty spool takes a batch of any size.
        is_full = bool(new) and self.bytes >= self._max_bytes
        try:
            self._db.execute("BEGIN IMMEDIATE")
            gone = removed = 0
            for number in delivered:
                for (length,) in self._db.execute(
                    "DELETE FROM messages WHERE id = ? RETURNING length(value)", (number,)
                ):
                    removed += length + _OVERHEAD
                    gone += 1
            if not is_full:
                self._db.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", new)
                self._db.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", marks)
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise SpoolFull(f"{self._path} cannot be written: {error}") from error
        self.depth -= gone
        self.bytes -= removed
        if is_full:
            raise SpoolFull(
                f"{self._path} is full ({self.bytes:,} bytes, {self.depth:,} messages): bring "
                "Kafka back, or raise AEGIS_GATEWAY__SPOOL_MAX_BYTES"
            )
        self.depth += len(new)
        self.bytes += size
        if new:
            self._last = new[-1].id

    def read(self, after: int, limit: int) -> list[Message]:
        """The oldest messages with an id above `after`."""
        rows = self._db.execute(
            "SELECT * FROM messages WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        )
        return [Message(*row) for row in rows]

    def marks(self, source: str) -> dict[str, tuple[int, int]]:
        """Place → (ts, status) that were written last."""
        rows = self._db.execute("SELECT place, ts, status FROM marks WHERE source = ?", (source,))
        return {place: (ts, status) for place, ts, status in rows}

    def oldest_at(self) -> float | None:
        """When the oldest message came, seconds since 1970; None when there is none."""
        row = self._db.execute("SELECT spooled_at FROM messages ORDER BY id LIMIT 1").fetchone()
        return None if row is None else row[0]

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._lock.close()
