"""Reading messages → one row per scalar value or capture, its channel's declaration beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from aegisops.machines.model import ChannelKind, MachineClass

Fleet = Mapping[str, MachineClass]
"""Machine id → its class, for every registered machine."""

WAVEFORM = str(ChannelKind.WAVEFORM)
SCRATCH = [
    "machine_class", "clock", "limit_low", "limit_high", "channel_period", "max_rate",
    "size", "sum", "low", "high", "end",
]  # fmt: skip


def explode(messages: pl.DataFrame, fleet: Fleet) -> pl.DataFrame:
    """One row per scalar value or capture, with the channel's declaration beside it.

    `_index` counts values from the message's first, whatever the fleet knows, so that it is a
    reading's identity; a capture has the index of its first sample.
    """
    classes, channels = _declarations(messages["machine_id"].unique(), fleet)
    size = pl.col("values").list.len().cast(pl.Int64)
    blocks = (
        messages.with_row_index("_message")
        .explode("blocks")
        .unnest("blocks")
        .with_columns(size=pl.max_horizontal(size, 1))
        .with_columns(first=pl.col("size").cum_sum().over("_message") - pl.col("size"))
        .with_row_index("_block")
        .join(classes, on="machine_id", how="left", maintain_order="left")
        .join(channels, on=["machine_class", "channel"], how="left", maintain_order="left")
    )
    is_waveform = pl.col("kind").eq_missing(pl.lit(WAVEFORM))
    captures = blocks.filter(is_waveform).with_columns(
        value=pl.lit(None, pl.Float64),
        period_us=pl.coalesce("period_us", "sample_period"),
        ts=pl.col("start_us"),
        _index=pl.col("first"),
        sum=pl.when(size > 0).then(pl.col("values").list.sum()),
        low=pl.col("values").list.min(),
        high=pl.col("values").list.max(),
    )
    # A block without values is one reading without a value: the sensor said "bad", nothing else.
    values = pl.when(size > 0).then("values").otherwise(pl.lit([None], pl.List(pl.Float64)))
    scalars = (
        blocks.filter(~is_waveform)
        .with_columns(value=values, i=pl.int_ranges(0, pl.col("size")))
        .explode("value", "i")
        .with_columns(
            ts=pl.col("start_us") + pl.col("i") * pl.col("period_us").fill_null(0),
            _index=pl.col("first") + pl.col("i"),
            values=pl.lit(None, pl.List(pl.Float64)),
            sum=pl.col("value"),
            low=pl.col("value"),
            high=pl.col("value"),
        )
    )
    # The end as a float: a wild period overflows the integer time, and must then be rejected.
    last = pl.col("size") if scalars.is_empty() else pl.coalesce(pl.col("i") + 1, "size")
    end = pl.col("start_us").cast(pl.Float64) + (last - 1) * pl.col("period_us").fill_null(0).cast(
        pl.Float64
    )
    return (
        pl.concat([scalars, captures], how="diagonal")
        .with_columns(end=end, _index=pl.col("_index").cast(pl.Int32))
        .sort("_block", "_index")
        .drop("i", "first", "start_us", "sample_period", "_message", "_block")
    )


def _declarations(machines: Iterable[str], fleet: Fleet) -> tuple[pl.DataFrame, pl.DataFrame]:
    known = {machine: fleet[machine] for machine in machines if machine in fleet}
    classes = pl.DataFrame(
        [(machine, c.name, str(c.clock)) for machine, c in known.items()],
        schema={"machine_id": pl.String, "machine_class": pl.String, "clock": pl.String},
        orient="row",
    )
    channels = pl.DataFrame(
        [
            (c.name, name, str(d.kind), *d.limits, d.period, d.sample_period, d.max_rate)
            for c in {c.name: c for c in known.values()}.values()
            for name, d in c.channels.items()
        ],
        schema={
            "machine_class": pl.String,
            "channel": pl.String,
            "kind": pl.String,
            "limit_low": pl.Float64,
            "limit_high": pl.Float64,
            "channel_period": pl.Int64,
            "sample_period": pl.Int64,
            "max_rate": pl.Float64,
        },
        orient="row",
    )
    return classes, channels
