"""History in bulk: bronze rows of every machine, as they would have arrived through Kafka.

`_offset` is (machine index << 32) + step: unique in the fleet and independent of its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from aegisops.machines import ChannelKind
from aegisops.simulator import sensors
from aegisops.simulator.fleet import TOPIC, FleetPlan, Ints, Machine, fleet_of
from aegisops.simulator.sensors import Measured

OFFSET_BITS = 32
ARRIVAL_US = 1_500_000
"""From a reading's source time to its arrival."""


class Chunk(NamedTuple):
    """Rows of one machine over some days; frames as schemas/tables.py declares them."""

    machine: Machine
    first_day: int
    days: int
    readings: pl.DataFrame
    waveforms: pl.DataFrame
    events: pl.DataFrame


def history(
    plan: FleetPlan, chunk_days: int = 28, machines: Sequence[Machine] | None = None
) -> Iterator[Chunk]:
    """Bronze rows, machine by machine and at most `chunk_days` days at a time.

    Memory is bounded by one machine's chunk: about 25 MB for 28 days of 32-sample captures.
    """
    for machine in machines if machines is not None else fleet_of(plan):
        yield from machine_history(plan, machine, chunk_days)


def machine_history(plan: FleetPlan, machine: Machine, chunk_days: int) -> Iterator[Chunk]:
    """One machine's rows in time order."""
    station, blocks = sensors.start(plan, machine), -(-plan.steps // plan.block_steps)
    opened = 0  # events have a running number of their own
    for first in range(0, blocks, chunk_days):
        days: list[Measured] = []
        for _ in range(first, min(first + chunk_days, blocks)):
            measured, station = sensors.measure(plan, machine, station)
            days.append(measured)
        readings = pl.concat([_readings(plan, d) for d in days])
        waveforms = pl.concat([_waveforms(plan, d) for d in days])
        events = _events(plan, machine, days, opened)
        opened += events.height
        yield Chunk(machine, first, len(days), readings, waveforms, events)


def _kept(plan: FleetPlan, day: Measured) -> int:
    """Steps of the day that belong to the history: the last day may be cut."""
    return min(len(day.ts), plan.steps - day.first)


def _readings(plan: FleetPlan, day: Measured) -> pl.DataFrame:
    cut, index, parts = _kept(plan, day), 0, []
    for name, signal in day.signals.items():
        declared = plan.machine_class.channels[name]
        if declared.kind is ChannelKind.WAVEFORM:
            index += declared.samples
            continue
        row = np.flatnonzero(signal.is_sent[:cut])
        frame = pl.DataFrame({"value": signal.values[row], "quality": signal.quality[row]})
        frame = frame.with_columns(
            pl.when(pl.col("value").is_not_nan()).then("value").alias("value")
        )
        parts.append(_framed(day, name, row, index, frame))
        index += 1
    parts.sort(key=lambda part: part.item(0, "channel") if part.height else "")
    return pl.concat(parts).select(
        "machine_id", "channel", "ts", "value", "quality", "seq", *_SOURCE
    )


def _waveforms(plan: FleetPlan, day: Measured) -> pl.DataFrame:
    cut, parts = _kept(plan, day), []
    for name, signal in day.signals.items():
        declared = plan.machine_class.channels[name]
        if declared.kind is not ChannelKind.WAVEFORM:
            continue
        row = np.flatnonzero(signal.is_sent[:cut])
        captures = pl.Series("values", signal.values[row]).cast(pl.List(pl.Float64))
        frame = pl.DataFrame({"values": captures, "quality": signal.quality[row]}).with_columns(
            pl.lit(declared.sample_period, pl.Int64).alias("period_us")
        )
        parts.append(_framed(day, name, row, 0, frame))
    return pl.concat(parts).select(
        "machine_id", "channel", "ts", "period_us", "values", "quality", "seq", *_SOURCE
    )


def _events(plan: FleetPlan, machine: Machine, days: list[Measured], opened: int) -> pl.DataFrame:
    rows = [e for d in days for e in d.events if e.step < plan.steps]
    frame = pl.DataFrame(
        {
            "ts": [e.ts for e in rows],
            "type": [str(e.type) for e in rows],
            "code": [e.code for e in rows],
            "detail": [e.detail for e in rows],
            "_offset": [(machine.index << OFFSET_BITS) + opened + i for i in range(len(rows))],
        },
        schema={"ts": pl.Int64, "type": pl.String, "code": pl.String, "detail": pl.String,
                "_offset": pl.Int64},
    )  # fmt: skip
    framed = _stamped(frame, machine).with_columns(pl.lit(0, pl.Int32).alias("_index"))
    return framed.select("machine_id", "ts", "type", "code", "detail", *_SOURCE)


_SOURCE = ("date", "_topic", "_partition", "_offset", "_index", "_ingested_at")


def _framed(
    day: Measured, channel: str, row: Ints, index: int, frame: pl.DataFrame
) -> pl.DataFrame:
    seq = day.first + row
    offset = (day.machine.index << OFFSET_BITS) + seq
    frame = frame.with_columns(
        pl.Series("ts", day.ts[row]),
        pl.Series("seq", seq, pl.Int64),
        pl.Series("_offset", offset, pl.Int64),
        pl.lit(index, pl.Int32).alias("_index"),
        pl.lit(channel).alias("channel"),
    )
    return _stamped(frame, day.machine)


def _stamped(frame: pl.DataFrame, machine: Machine) -> pl.DataFrame:
    time = pl.Datetime("us", "UTC")
    return frame.with_columns(
        pl.lit(machine.machine_id).alias("machine_id"),
        pl.lit(TOPIC).alias("_topic"),
        pl.lit(0, pl.Int32).alias("_partition"),
        pl.col("ts").cast(time).alias("ts"),
        pl.col("ts").cast(time).dt.date().alias("date"),
        (pl.col("ts") + ARRIVAL_US).cast(time).alias("_ingested_at"),
    )
