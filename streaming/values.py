"""Judged records → long values for the feature algebra, in arrival order."""

from __future__ import annotations

import polars as pl

from aegisops.machines.model import MachineClass
from aegisops.names import Quality
from aegisops.quality import Judged

COLUMNS = ("machine_id", "channel", "ts", "value", "quality")
_ORDER = ("_partition", "_offset", "_index")


def reading_values(judged: Judged) -> pl.DataFrame:
    """Good readings [machine_id, channel, ts (µs), value, quality], captures as their samples."""
    captures = (
        judged.waveforms.with_columns(
            value=pl.col("values"), _sample=pl.int_ranges(pl.col("values").list.len())
        )
        .explode("value", "_sample")
        .with_columns(ts=pl.col("ts") + pl.col("_sample") * pl.col("period_us"))
        .select(*COLUMNS, *_ORDER)
    )
    return (
        pl.concat([judged.scalars.select(*COLUMNS, *_ORDER), captures])
        .sort(*_ORDER, maintain_order=True)
        .select(pl.col("quality").cast(pl.Int8) if c == "quality" else c for c in COLUMNS)
    )


def event_values(events: pl.DataFrame, machine_class: MachineClass) -> pl.DataFrame:
    """Good events as the value 1 on each event channel of the class that they match."""
    parts = []
    for name, event in machine_class.events.items():
        matches = pl.col("type") == event.type
        if event.code is not None:
            matches &= pl.col("code") == event.code
        parts.append(
            events.filter(matches).select(
                "machine_id",
                pl.lit(name).alias("channel"),
                pl.col("ts").cast(pl.Int64),
                pl.lit(1.0).alias("value"),
                pl.lit(int(Quality.GOOD), pl.Int8).alias("quality"),
            )
        )
    return pl.concat(parts) if parts else _none()


def _none() -> pl.DataFrame:
    types = (pl.String, pl.String, pl.Int64, pl.Float64, pl.Int8)
    return pl.DataFrame(schema=dict(zip(COLUMNS, types, strict=True)))
