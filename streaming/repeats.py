"""Records that were sent to Kafka a second time: known by the table they are already in.

Whoever died between a delivery and noting it sends again. The repeat has an offset of its own, but
the same key and so the same partition, whose rows are written by one writer at a time: what the
table holds at the commit decides, however late the repeat comes.
"""

from __future__ import annotations

import polars as pl

from aegisops.schemas.tables import Table


def without_repeats(
    table: Table, time: str, rows: pl.DataFrame, written: pl.LazyFrame
) -> pl.DataFrame:
    """The rows whose record is not in `written` and did not come earlier in `rows`, in order.

    Records are compared by `table.identity`. A repeat has the first one's `time`, so only files
    and days that reach into the time span of `rows` are read.
    """
    if rows.is_empty():
        return rows
    identity = list(table.identity)
    rows = rows.unique(identity, keep="first", maintain_order=True)
    first, last = rows[time].min(), rows[time].max()
    if "date" in table.partition_by:
        days = rows[time].dt.date()
        written = written.filter(pl.col("date").is_between(days.min(), days.max()))
    known = written.filter(pl.col(time).is_between(first, last)).select(identity).collect()
    return rows.join(known, on=identity, how="anti", nulls_equal=True, maintain_order="left")
