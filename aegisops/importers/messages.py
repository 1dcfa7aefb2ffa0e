"""Readings → wire messages: small batches of one machine's values, in time order. Pure.

A message holds up to `per_message` values. Values of one channel and quality that are truly
equidistant become one block with a period; any other value is a block of its own. Both stay
scalar readings: whether a block is a waveform is decided by the channel's kind, not its length.
"""

from __future__ import annotations

import polars as pl

HOURS_IN_A_MESSAGE = 24

MESSAGES_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "machine_id": pl.String,
    "seq": pl.Int64,
    "sent_at": pl.Int64,
    "blocks": pl.List(
        pl.Struct(
            {
                "channel": pl.String,
                "start_us": pl.Int64,
                "period_us": pl.Int64,
                "quality": pl.Int32,
                "values": pl.List(pl.Float64),
            }
        )
    ),
}


def reading_messages(
    readings: pl.DataFrame, sent_at: int, per_message: int | None = None
) -> pl.DataFrame:
    """Messages of the fleet: `MESSAGES_SCHEMA` and `last_us`, ordered by time, then machine.

    Args:
        readings: machine_id, channel, ts (µs), value (null = no value), quality; no key twice.
        sent_at: µs since 1970 UTC, written into every message.
        per_message: most values in a message; absent = 24 per channel.

    `seq` counts each machine's messages from 0 in time order, so the same readings always give
    the same messages.
    """
    if per_message is None:
        per_message = HOURS_IN_A_MESSAGE * max(readings["channel"].n_unique(), 1)
    series = ["machine_id", "seq", "channel", "quality"]
    gap = pl.col("ts").diff().over(series)
    runs = (
        readings.sort("machine_id", "ts", "channel")
        .with_columns(seq=(pl.int_range(pl.len()).over("machine_id") // per_message).cast(pl.Int64))
        .sort(*series, "ts")
        # The median gap of a channel is its period when most of it is regular; a run of values
        # breaks wherever the gap is another one.
        .with_columns(gap=gap, period=gap.median().over("machine_id", "channel").cast(pl.Int64))
        .with_columns(breaks=(pl.col("gap") != pl.col("period")).fill_null(value=True))
        .with_columns(run=pl.col("breaks").cum_sum())
    )
    blocks = runs.group_by(*series, "run", maintain_order=True).agg(
        start_us=pl.col("ts").first(),
        last_us=pl.col("ts").last(),
        period=pl.col("period").first(),
        values=pl.col("value").fill_null(float("nan")),
    )
    block = pl.struct(
        pl.col("channel").cast(pl.String),
        "start_us",
        pl.when(pl.col("values").list.len() > 1).then("period").alias("period_us"),
        pl.col("quality").cast(pl.Int32),
        "values",
    )
    return (
        blocks.sort("machine_id", "seq", "start_us", "channel")
        .group_by("machine_id", "seq", maintain_order=True)
        .agg(
            sent_at=pl.lit(sent_at, dtype=pl.Int64),
            blocks=block,
            start_us=pl.col("start_us").min(),
            last_us=pl.col("last_us").max(),
        )
        .with_columns(pl.col("machine_id").cast(pl.String))
        .sort("start_us", "machine_id", "seq")
        .select([*MESSAGES_SCHEMA, "last_us"])
        .cast(MESSAGES_SCHEMA)  # type: ignore[arg-type]
    )
