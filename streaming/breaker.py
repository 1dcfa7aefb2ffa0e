"""The circuit breaker: a flush that is mostly bad is a fault of ours, not of its readings.

A missing class file, a wrong clock on this computer or a registry that lost its schemas would turn
a whole plant's readings into dead letters. So nothing is written and nothing is lost: the offsets
stay where they are, Kafka keeps the messages, and they are judged anew until it is put right.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from prometheus_client import Gauge

from aegisops.errors import Retryable

LEAST_RECORDS = 200
"""In a smaller flush a share says nothing; its bad records become dead letters."""
_REASONS = 3


class TooManyBad(Retryable):
    """Too large a share of a flush is bad; somebody must look."""


class Breaker:
    """Opens when more than a share of a topic's flush is bad, closes with the first that is not."""

    def __init__(
        self, max_share: float, is_open: Gauge, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        """`max_share` 1 never opens. `is_open` is labelled by topic. `tell` hears why it opens."""
        self._tell = tell
        self._max_share = max_share
        self._is_open = is_open

    def check(self, topic: str, rows: pl.DataFrame, failures: pl.DataFrame) -> None:
        """Raise `TooManyBad` when the rows' reasons and the undecodable messages are too many."""
        total = rows.height + failures.height
        bad = rows.height - rows["reason"].null_count() + failures.height
        opens = total >= LEAST_RECORDS and bad > self._max_share * total
        self._is_open.labels(topic).set(opens)
        if not opens:
            return
        reasons = pl.concat(
            [rows.select(pl.col("reason").cast(pl.String)), failures.select("reason")]
        )["reason"].drop_nulls()
        most = reasons.value_counts(sort=True).head(_REASONS)
        named = ", ".join(f"{reason} {count:,}" for reason, count in most.iter_rows())
        self._tell(f"{topic}: {bad:,} of {total:,} records are bad ({named})")
        raise TooManyBad(
            f"ALERT: {bad:,} of {total:,} records of {topic} are bad ({named}); nothing of it is "
            "written until this is put right (class files, fleet, clock, schema registry). If the "
            "records themselves are bad, restart with AEGIS_STREAM__MAX_BAD_SHARE=1: they become "
            "dead letters, to be sent again with `aegisops dlq replay` once mended"
        )
