"""A durable queue in front of Kafka: SQLite-WAL first, then the broker, deleted once delivered.

An answer leaves the API only after its audit record is committed here, so a killed process or a
broker that is away loses none; the next start sends what is left. A record whose delivery report
was lost is sent twice: readers drop repeats by its id. WAL with `synchronous=NORMAL` survives the
death of the process without an fsync per request; losing power may lose the last moments.

One process per file: each takes the first free `outbox-<n>.db` of its folder by a lock.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Protocol

from aegisops.errors import ConfigurationError, Retryable

log = logging.getLogger(__name__)

_SLOTS = 64
_IN_FLIGHT = 5_000
_BATCH = 500
_IN_MEMORY = 5_000
"""Newest records that are also kept in memory, so that they need not be read from the file again
while Kafka keeps up."""


class OutboxFull(Retryable):
    """The queue holds as many undelivered records as allowed; nothing more may be promised."""


class Publisher(Protocol):
    """What the outbox needs of a Kafka producer. Reports may come on any thread."""

    def prepare(self) -> None:
        """Do what may block (the registry); `Retryable` while that is away."""

    def publish(
        self, topic: str, key: str, value: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        """Hand over one record; `Retryable` when the producer's own queue is full."""

    def poll(self) -> None:
        """Serve delivery reports without waiting."""

    def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class Message:
    """One record for Kafka: topic, key and value (already in its wire form)."""

    topic: str
    key: str
    value: bytes


class Outbox:
    """The queue's file and its pump. All methods but the delivery reports run on one thread."""

    def __init__(self, folder: Path, publisher: Publisher, capacity: int) -> None:
        """`capacity`: undelivered records after which `append` raises `OutboxFull`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._publisher = publisher
        self._capacity = capacity
        self._lock, path = _take_slot(folder)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=4000"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_SCHEMA)
        row = self._db.execute("SELECT min(id), max(id), count(*) FROM outbox").fetchone()
        self._sent = (row[0] or 1) - 1
        self._last = row[1] or self._sent
        self._depth: int = row[2]
        self._in_flight: set[int] = set()
        self._newest: deque[tuple[int, Message]] = deque()
        self._reports: deque[tuple[int, Exception | None]] = deque()
        self.failure: str | None = None
        """Why the last delivery failed; None after one that succeeded."""

    @property
    def depth(self) -> int:
        """Records not yet delivered."""
        return self._depth

    def load_state(self, name: str) -> str | None:
        """A value kept beside the queue, such as the head of the audit chain."""
        row = self._db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def append(self, messages: Sequence[Message], state: tuple[str, str] | None = None) -> None:
        """Commit messages (and one state value with them); `OutboxFull` leaves all unchanged."""
        if self._depth + len(messages) > self._capacity:
            raise OutboxFull(
                f"{self._depth} records wait for Kafka, the limit is {self._capacity}; "
                "check the broker"
            )
        first = self._last + 1
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO outbox VALUES (?, ?, ?, ?)",
                [(first + i, m.topic, m.key, m.value) for i, m in enumerate(messages)],
            )
            if state is not None:
                self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", state)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise OutboxFull(f"the outbox cannot be written: {error}; check the disk") from error
        self._newest.extend(enumerate(messages, first))
        if len(self._newest) > _IN_MEMORY:
            self._newest.clear()
        self._last += len(messages)
        self._depth += len(messages)

    def pump(self) -> None:
        """One round: take delivery reports, delete what arrived, hand over what waits."""
        self._publisher.poll()
        self._take_reports()
        room = min(_BATCH, _IN_FLIGHT - len(self._in_flight))
        if self._sent >= self._last or room <= 0:
            return
        for number, message in self._waiting(room):
            if number not in self._in_flight:
                try:
                    self._publisher.publish(
                        message.topic, message.key, message.value, self._reporter(number)
                    )
                except Retryable as error:
                    self.failure = str(error)
                    return
                self._in_flight.add(number)
            self._sent = number

    def _waiting(self, most: int) -> list[tuple[int, Message]]:
        """The next records to hand over, from memory when they are still there."""
        newest = self._newest
        while newest and newest[0][0] <= self._sent:
            newest.popleft()
        if newest and newest[0][0] == self._sent + 1:
            return list(islice(newest, most))
        rows = self._db.execute(
            "SELECT id, topic, key, value FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
            (self._sent, most),
        )
        return [(number, Message(*parts)) for number, *parts in rows]

    def close(self) -> None:
        """Take the last reports and free the file; what was not delivered stays for the next."""
        self._publisher.poll()
        self._take_reports()
        self._db.close()
        self._lock.close()

    def _reporter(self, number: int) -> Callable[[Exception | None], None]:
        return lambda error: self._reports.append((number, error))

    def _take_reports(self) -> None:
        delivered: list[int] = []
        failure: str | None = None
        while self._reports:
            number, error = self._reports.popleft()
            self._in_flight.discard(number)
            if error is None:
                delivered.append(number)
            else:
                failure = str(error)
                self._sent = min(self._sent, number - 1)
                self._newest.clear()  # only the file knows which of them were delivered
        if failure is not None and self.failure is None:
            log.error("records are not delivered and will be sent again: %s", failure)
        if failure is not None or delivered:
            self.failure = failure
        if delivered:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM outbox WHERE id BETWEEN ? AND ?", _runs(delivered))
            self._db.execute("COMMIT")
            self._depth -= len(delivered)


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers: mostly one, and one deletion."""
    numbers.sort()
    begins = [n for before, n in pairwise([numbers[0] - 2, *numbers]) if n != before + 1]
    ends = [n for n, after in pairwise([*numbers, numbers[-1] + 2]) if after != n + 1]
    return list(zip(begins, ends, strict=True))


_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def _take_slot(folder: Path) -> tuple[IO[str], Path]:
    for n in range(_SLOTS):
        lock = (folder / f"outbox-{n}.lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return lock, folder / f"outbox-{n}.db"
    raise ConfigurationError(f"{folder}: {_SLOTS} API processes share it; give each group its own")


def new_instance() -> str:
    """Name of a new audit chain: unique, and no host or person in it."""
    return f"api-{uuid.uuid4().hex[:12]}"
