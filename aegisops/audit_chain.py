"""The hash chain over audit records: canonical bytes, digests, and the check of a whole log. Pure.

Each record's digest is sha256 over its instance's previous digest and its own canonical bytes, so
a record that was altered, removed, inserted or moved breaks the chain at its place. The canonical
form is rebuilt from the Avro record and from the row in bronze/predictions alike.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

FIELDS = (
    "prediction_id",
    "machine_id",
    "asked_at",
    "subject",
    "served_by",
    "probability",
    "risk",
    "failure_mode",
    "model_version",
    "model_digest",
    "feature_set",
    "features_at",
    "vector",
    "source",
    "latency_us",
    "instance",
    "chain_seq",
)
"""Fields under the digest, in order: every field of predictions.avsc but the two digests."""

Value = None | str | float | int | datetime | Sequence[float]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def genesis(instance: str) -> str:
    """The `previous_digest` of an instance's first record."""
    return hashlib.sha256(f"aegisops audit chain of {instance}".encode()).hexdigest()


def digest(record: Mapping[str, Any], previous: str) -> str:
    """sha256 (hex) over `previous` and the record's canonical bytes."""
    return hashlib.sha256(previous.encode() + canonical(record)).hexdigest()


def canonical(record: Mapping[str, Any]) -> bytes:
    """Unambiguous bytes of FIELDS: a type letter, a length, the value; floats as IEEE-754 bits.

    Times may be int µs since 1970 or datetimes; every NaN is the same NaN.
    """
    return b"".join(_encode(record[name]) for name in FIELDS)


def _encode(value: Value) -> bytes:
    if value is None:
        return b"-"
    if isinstance(value, str):
        raw = value.encode()
        return b"s%d:" % len(raw) + raw
    if isinstance(value, float):
        return b"f" + _floats((value,))
    if isinstance(value, int):
        return b"i%d;" % value
    if isinstance(value, datetime):
        return b"i%d;" % ((value - _EPOCH) // timedelta(microseconds=1))
    return b"v%d:" % len(value) + _floats(value)


def _floats(values: Sequence[float]) -> bytes:
    if any(map(math.isnan, values)):
        values = [math.nan if math.isnan(v) else v for v in values]
    return struct.pack(f"<{len(values)}d", *values)


@dataclass(frozen=True, slots=True)
class Fault:
    """A place where a chain does not hold."""

    instance: str
    chain_seq: int
    prediction_id: str
    problem: str


def verify(records: Iterable[Mapping[str, Any]], *, from_start: bool = True) -> list[Fault]:
    """Every fault in the chains of these records (any order); empty when all hold.

    A record that was delivered twice (same digest) counts once. With `from_start=False` the
    records are a stretch of the log: the first of each instance may follow one not given.
    """
    chains: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        chains[record["instance"]].append(record)
    faults: list[Fault] = []
    for instance, rows in chains.items():
        rows.sort(key=lambda row: (row["chain_seq"], row["digest"]))
        if from_start:
            walk = Walk(instance)
        else:
            walk = Walk(instance, rows[0]["chain_seq"], rows[0]["previous_digest"])
        for row in rows:
            faults += walk.step(row)
    return faults


class Walk:
    """Checks one instance's chain record by record, in constant memory."""

    def __init__(self, instance: str, start: int = 0, previous: str | None = None) -> None:
        """`start`, `previous`: number of the first record and the digest it must follow."""
        self.instance = instance
        self.records = 0
        """Different records seen so far."""
        self.repeats = 0
        """Records that came again unchanged."""
        self.head = previous or genesis(instance)
        """Digest of the last record."""
        self._expected = start
        self._last: str | None = None

    def step(self, row: Mapping[str, Any]) -> list[Fault]:
        """Faults at the next record; records must come sorted by `chain_seq`, then `digest`."""
        problem = ""
        if row["digest"] == self._last:
            # The same digest over other content is no second delivery.
            if row["digest"] == digest(row, row["previous_digest"]):
                self.repeats += 1
            else:
                problem = _ALTERED
        else:
            problem = _problem(row, self._expected, self.head)
            self.records += 1
            self._last = self.head = row["digest"]
            self._expected = row["chain_seq"] + 1
        if not problem:
            return []
        return [Fault(self.instance, row["chain_seq"], row["prediction_id"], problem)]


_ALTERED = "the record was altered"


def _problem(row: Mapping[str, Any], expected: int, previous: str) -> str:
    if row["chain_seq"] > expected:
        return f"records {expected}–{row['chain_seq'] - 1} are missing"
    if row["chain_seq"] < expected:
        return "a second record has this number"
    if row["digest"] != digest(row, row["previous_digest"]):
        return _ALTERED
    if row["previous_digest"] != previous:
        return "the record does not follow the one before it"
    return ""
