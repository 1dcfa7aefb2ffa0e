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
    return struct.pack(f"<{len(values)}d", *(math.nan if math.isnan(v) else v for v in values))


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
        expected = 0 if from_start else rows[0]["chain_seq"]
        previous = genesis(instance) if expected == 0 else rows[0]["previous_digest"]
        last: str | None = None
        for row in rows:
            if row["digest"] == last:
                continue
            last = row["digest"]
            problem = _problem(row, expected, previous)
            if problem:
                faults.append(Fault(instance, row["chain_seq"], row["prediction_id"], problem))
            expected, previous = row["chain_seq"] + 1, row["digest"]
    return faults


def _problem(row: Mapping[str, Any], expected: int, previous: str) -> str:
    if row["chain_seq"] > expected:
        return f"records {expected}–{row['chain_seq'] - 1} are missing"
    if row["chain_seq"] < expected:
        return "a second record has this number"
    if row["digest"] != digest(row, row["previous_digest"]):
        return "the record was altered"
    if row["previous_digest"] != previous:
        return "the record does not follow the one before it"
    return ""
