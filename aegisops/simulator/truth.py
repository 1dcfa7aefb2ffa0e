"""The ground truth nobody on the shop floor knows; for tests and evaluation, never for features."""

from __future__ import annotations

import numpy as np
import polars as pl

from aegisops.names import EventType
from aegisops.simulator import faults, physics
from aegisops.simulator.fleet import MODES, FleetPlan, Machine, fleet_of

_TIME = pl.Datetime("us", "UTC")
LOOK_AHEAD_DAYS = 7


def truth(plan: FleetPlan, machine: Machine) -> pl.DataFrame:
    """One row per step of the history: what the machine was like and how it would go on.

    Columns: machine_id, ts, is_up, load (0…1.2), wear (0…1), temperature (°C), power (kW),
    level (vibration RMS, m/s²), `severity_<mode>` (0…1), next_failure and next_mode (the machine's
    next failure, also one after the history's end; null if none within seven days of it).
    """
    state, days = physics.first_state(plan, machine), []
    for _ in range(-(-plan.steps // plan.block_steps) + LOOK_AHEAD_DAYS):
        day, state = physics.advance(plan, machine, state)
        days.append(day)
    ts = np.concatenate([d.ts for d in days])
    failures = [e for d in days for e in d.events if e.type is EventType.FAILURE]
    times = np.array([e.ts for e in failures], dtype=np.int64)
    following = np.searchsorted(times, ts, side="left")
    severity = np.concatenate([d.course.severity for d in days], axis=1)
    columns = {
        "ts": ts,
        "is_up": np.concatenate([d.course.up for d in days]),
        "load": np.concatenate([d.load for d in days]),
        "wear": np.concatenate([d.course.wear for d in days]),
        "temperature": np.concatenate([d.temperature for d in days]),
        "power": np.concatenate([d.power for d in days]),
        "level": np.concatenate([d.level for d in days]),
        **{f"severity_{mode}": severity[i] for i, mode in enumerate(MODES)},
        "following": following,
    }
    upcoming = pl.DataFrame(
        {
            "following": list(range(len(failures))),
            "next_failure": [e.ts for e in failures],
            "next_mode": [e.code for e in failures],
        },
        schema={"following": pl.Int64, "next_failure": pl.Int64, "next_mode": pl.String},
    )
    return (
        pl.DataFrame(columns)
        .head(plan.steps)
        .join(upcoming, on="following", how="left", maintain_order="left")
        .with_columns(pl.col("ts").cast(_TIME), pl.col("next_failure").cast(_TIME))
        .select(pl.lit(machine.machine_id).alias("machine_id"), pl.exclude("following"))
    )


def sensor_faults(plan: FleetPlan) -> pl.DataFrame:
    """Every episode of an instrument fault: machine_id, channel, fault, first, last (times)."""
    rows = []
    for machine in fleet_of(plan):
        for block in range(-(-plan.steps // plan.block_steps)):
            for e in faults.draw(plan, machine, block):
                first, last = (int(plan.times(machine, s, 1)[0]) for s in (e.first, e.last))
                rows.append((machine.machine_id, e.channel, str(e.fault), first, last))
    schema = {"machine_id": pl.String, "channel": pl.String, "fault": pl.String,
              "first": pl.Int64, "last": pl.Int64}  # fmt: skip
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.col("first", "last").cast(_TIME))
