"""The audit log in bronze/predictions: its check, its rows by time, one record by id.

The chain itself is `audit_chain`'s. A chain has no secret in it: whoever may write the table could
compute a whole new one, and nothing inside the table shows a tail that was cut off. Both show
against heads noted earlier and kept elsewhere, see `against`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from aegisops import prediction_ids
from aegisops.audit_chain import FIELDS, Fault, Walk
from aegisops.errors import Permanent
from aegisops.lake import Lake
from aegisops.schemas.tables import PREDICTIONS

_CHAINED = [*FIELDS, "previous_digest", "digest"]
_STRETCH = 50_000


class UnknownPrediction(Permanent):
    """The audit log has no prediction of this id."""

    def __init__(self, prediction_id: str) -> None:
        super().__init__(
            f"no prediction {prediction_id!r} in the audit log; a new one arrives there with the "
            "lake writer's next flush. List them: aegisops sql -c 'FROM bronze.predictions'"
        )


@dataclass(frozen=True, slots=True)
class Head:
    """The end of one instance's chain."""

    instance: str
    records: int
    """Records in the chain, each counted once."""
    repeats: int
    """Records that Kafka delivered a second time, unchanged."""
    chain_seq: int
    """Number of the last record; -1 = there is none."""
    digest: str
    """Digest of the last record."""


def check(lake: Lake) -> tuple[list[Head], list[Fault]]:
    """Walk every chain of the log from its first record on.

    Reads `_STRETCH` records at a time, so memory does not grow with the log.
    """
    rows = lake.scan(PREDICTIONS)
    heads: list[Head] = []
    faults: list[Fault] = []
    for instance in rows.select("instance").unique().collect()["instance"].sort():
        chain = rows.filter(pl.col("instance") == instance)
        numbers = chain.select("chain_seq").collect()["chain_seq"].unique().sort()
        walk = Walk(instance)
        for begin in range(0, len(numbers), _STRETCH):
            part = numbers[begin : begin + _STRETCH]
            stretch = chain.filter(pl.col("chain_seq").is_between(part[0], part[-1]))
            ordered = stretch.select(_CHAINED).sort("chain_seq", "digest").collect()
            for row in ordered.iter_rows(named=True):
                faults += walk.step(row)
        heads.append(Head(instance, walk.records, walk.repeats, numbers[-1], walk.head))
    return heads, faults


def against(lake: Lake, noted: Iterable[Mapping[str, Any]]) -> list[Fault]:
    """What an earlier head (instance, chain_seq, digest) promises and the log no longer has.

    Finds a tail that was cut off, a chain that was written anew and a chain that is gone.
    """
    faults = []
    for head in noted:
        at = lake.scan(PREDICTIONS).filter(
            pl.col("instance") == head["instance"], pl.col("chain_seq") == head["chain_seq"]
        )
        found = at.select("prediction_id", "digest").collect()
        if head["digest"] in found["digest"]:
            continue
        if found.is_empty():
            problem = "the record noted earlier is gone; the log ends before it or lost it"
        else:
            problem = "another record than the one noted earlier has this number"
        identity = "" if found.is_empty() else found["prediction_id"][0]
        faults.append(Fault(head["instance"], head["chain_seq"], identity, problem))
    return faults


def between(
    lake: Lake, begin: datetime, end: datetime, machines: Sequence[str] = ()
) -> pl.DataFrame:
    """Rows asked at `begin` or later and before `end` (aware times), as stored, in time order.

    `machines`: only these; empty = all.
    """
    rows = lake.scan(PREDICTIONS).filter(
        # The partition column first: it prunes whole days.
        pl.col("date").is_between(begin.date(), end.date()),
        pl.col("asked_at") >= begin,
        pl.col("asked_at") < end,
    )
    if machines:
        rows = rows.filter(pl.col("machine_id").is_in(list(machines)))
    return rows.sort("asked_at", "instance", "chain_seq").collect()


def record(lake: Lake, prediction_id: str) -> dict[str, Any]:
    """The record of one prediction. Raises `UnknownPrediction`.

    Several rows with one id are one record delivered again, or a forgery; `Permanent` for the
    latter.
    """
    rows = lake.scan(PREDICTIONS).filter(pl.col("prediction_id") == prediction_id)
    day = prediction_ids.day_of(prediction_id)
    if day is not None:
        rows = rows.filter(pl.col("date") == day)
    found = rows.select(_CHAINED).collect().to_dicts()
    if not found:
        raise UnknownPrediction(prediction_id)
    if len({row["digest"] for row in found}) > 1:
        raise Permanent(
            f"the audit log has {len(found)} different records of {prediction_id}; "
            "run: aegisops audit verify"
        )
    return found[0]
