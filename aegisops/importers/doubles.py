"""Keeps readings that are already in the lake from being imported a second time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from aegisops.errors import ConfigurationError
from aegisops.importers.reader import Imported
from aegisops.lake import Lake
from aegisops.schemas.tables import READINGS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


def refuse_doubles(lake: Lake, imported: Imported) -> None:
    """Raise `ConfigurationError` if the lake has readings of these machines, channels and times.

    Kafka cannot know that a row was sent before under another offset: it would count twice.
    """
    times = pl.col("ts").cast(pl.Int64)
    first, last = imported.readings.select(pl.min("ts"), pl.max("ts").alias("last")).row(0)
    days = [_EPOCH.date() + (t // 86_400_000_000) * _DAY for t in (first, last)]
    machines = imported.readings["machine_id"].cast(pl.String).unique()
    channels = imported.readings["channel"].cast(pl.String).unique()
    there = (
        lake.scan(READINGS)
        .filter(pl.col("date").is_between(*days))
        .filter(
            pl.col("machine_id").is_in(machines.implode()),
            pl.col("channel").is_in(channels.implode()),
            times.is_between(first, last),
        )
        .select(pl.len(), pl.col("machine_id").first())
        .collect()
    )
    count, machine = there.row(0)
    if count:
        raise ConfigurationError(
            f"the lake already holds {count:,} readings of these machines, channels and times "
            f"(machine {machine!r} among them); importing again would count them twice. "
            "Import other machines (format in [machine] makes ids unique) or other times"
        )
