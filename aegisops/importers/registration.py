"""Registers machines in bronze/machines: one row per machine, the newest registration wins."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from aegisops.importers.fleet import MACHINES_SCHEMA
from aegisops.lake import Lake
from aegisops.schemas.tables import MACHINES

_US_PER_SECOND = 1_000_000


def register(lake: Lake, machines: pl.DataFrame, now_us: int) -> int:
    """Write the registrations that are new or changed; returns how many.

    Args:
        lake: where bronze/machines is.
        machines: machine_id, machine_class, site, area, attributes (JSON object).
        now_us: the time of the registration, µs since 1970 UTC.

    Raises `Conflict` when another writer registers at the same moment: call again.
    """
    columns = list(MACHINES_SCHEMA)
    known = lake.scan(MACHINES).select(columns).collect()
    changed = machines.select(columns).join(known, on=columns, how="anti")
    if not changed.height:
        return 0
    rows = changed.with_columns(
        registered_at=pl.lit(datetime.fromtimestamp(now_us / _US_PER_SECOND, UTC)).cast(
            pl.Datetime("us", "UTC")
        )
    )
    replaced = changed.filter(pl.col("machine_id").is_in(known["machine_id"].implode()))
    if replaced.height:
        listed = ", ".join(
            "'" + machine.replace("'", "''") + "'" for machine in changed["machine_id"]
        )
        lake.overwrite(MACHINES, rows, predicate=f"machine_id IN ({listed})")
    else:
        lake.append(MACHINES, rows)
    return changed.height
