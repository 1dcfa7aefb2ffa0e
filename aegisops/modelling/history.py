"""What happened to machines, as points in time, and the point nearest to each row. Pure.

Which label follows from it is not decided here; see `labels`.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from aegisops.machines import MachineClass
from aegisops.names import EventType, Outcome

EVENT_COLUMNS: Final = {
    "machine_id": pl.String,
    "ts": pl.Int64,
    "type": pl.String,
    "code": pl.String,
}
FEEDBACK_COLUMNS: Final = {
    "machine_id": pl.String,
    "ts": pl.Int64,
    "outcome": pl.String,
    "failure_mode": pl.String,
}
_KEY = "_key"


def select(frame: pl.DataFrame | None, columns: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """The frame with these columns and types alone; an empty one for none."""
    if frame is None:
        return pl.DataFrame(schema=columns)
    return frame.select(pl.col(name).cast(kind) for name, kind in columns.items())


def record_end(
    rows: pl.DataFrame, events: pl.DataFrame, observed_until: int | None
) -> pl.DataFrame:
    """Column record_end: the machine's last feature row or event, at latest `observed_until`."""
    seen = pl.concat([rows.select("machine_id", "ts"), events.select("machine_id", "ts")])
    end = seen.group_by("machine_id").agg(pl.col("ts").max().alias("record_end"))
    if observed_until is not None:
        end = end.with_columns(pl.min_horizontal("record_end", pl.lit(observed_until)))
    return rows.join(end, on="machine_id", how="left", maintain_order="left")


def failures(events: pl.DataFrame, said: pl.DataFrame) -> pl.DataFrame:
    """machine_id, ts, code of failures: recorded ones, and alerts confirmed by people."""
    recorded = events.filter(pl.col("type") == EventType.FAILURE).select("machine_id", "ts", "code")
    confirmed = said.filter(pl.col("outcome") == Outcome.CONFIRMED).select(
        "machine_id", "ts", pl.col("failure_mode").fill_null("").alias("code")
    )
    return pl.concat([recorded, confirmed]).unique().sort("ts", "machine_id", "code")


def nearest(
    rows: pl.DataFrame, points: pl.DataFrame, name: str, *, after: bool, strict: bool = True
) -> pl.DataFrame:
    """Column `name`: time of the machine's next (or last) point, strictly after (before) ts."""
    shift = (1 if after else -1) if strict else 0
    keyed = points.select("machine_id", pl.col("ts").alias(_KEY), pl.col("ts").alias(name))
    # join_asof on unsorted sides returns nulls with only a warning: both are sorted here.
    return (
        rows.with_columns((pl.col("ts") + shift).alias(_KEY))
        .sort(_KEY)
        .join_asof(
            keyed.unique().sort(_KEY),
            on=_KEY,
            by="machine_id",
            strategy="forward" if after else "backward",
            check_sortedness=False,
        )
        .drop(_KEY)
        .sort("machine_id", "ts")
    )


def repairs(
    events: pl.DataFrame, failures: pl.DataFrame, horizon: int, machine_class: MachineClass
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Maintenance frames (repairs with column `failed` = time of their failure, other work).

    Work is the repair of the machine's last failure when it happens at or within one horizon after
    it and is of the failed mode, or of no particular mode.
    """
    work = events.filter(pl.col("type") == EventType.MAINTENANCE).select("machine_id", "ts", "code")
    matched = work.sort("ts").join_asof(
        failures.select("machine_id", "ts", pl.col("ts").alias("failed")).unique().sort("ts"),
        on="ts",
        by="machine_id",
        strategy="backward",
        check_sortedness=False,
    )
    same = matched.join(
        failures.select("machine_id", pl.col("ts").alias("failed"), "code").with_columns(
            pl.lit(value=True).alias("_same")
        ),
        on=["machine_id", "failed", "code"],
        how="left",
    )
    general = ~pl.col("code").is_in(list(machine_class.failure_modes))
    is_repair = ((pl.col("ts") - pl.col("failed")) <= horizon) & (
        general | pl.col("_same").fill_null(value=False)
    )
    same = same.with_columns(is_repair.fill_null(value=False).alias("_repair"))
    return same.filter("_repair"), same.filter(~pl.col("_repair"))
