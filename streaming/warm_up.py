"""Rebuilds the feature worker's memory from the lake: live tiles, lifetime totals, counter levels.

Rows beyond the given Kafka positions are left out: those come from Kafka again, so that nothing is
applied twice and nothing is missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from aegisops.features import windows
from aegisops.features.batch import tiles_from_values, values_from_bronze
from aegisops.features.online import OnlineFeatures
from aegisops.lake import Lake
from aegisops.machines.model import MachineClass, Statistic
from aegisops.names import Quality
from aegisops.quality import Counters, Level
from aegisops.schemas.tables import EVENTS, READINGS, WAVEFORMS, Table
from streaming.buffers import TopicPartition
from streaming.fleet import Attributes, Fleet
from streaming.offsets import settled, topic_label


def engine_from_lake(
    lake: Lake,
    machine_class: MachineClass,
    attributes: Mapping[str, Attributes],
    machine_ids: Sequence[str],
    *,
    within: pl.Expr,
) -> OnlineFeatures:
    """Features of some machines of one class, from the lake's rows that lie `within`.

    Only the tail inside the longest window is read as values; older counter readings enter as tiles
    and events in full, because lifetime statistics need all history.
    """
    engine = OnlineFeatures(machine_class, attributes)
    known = within & pl.col("machine_id").is_in(list(machine_ids))
    readings, captures, events = (_scan(lake, t, known) for t in (READINGS, WAVEFORMS, EVENTS))
    newest = (
        pl.concat([f.select("machine_id", "ts") for f in (readings, captures, events)])
        .group_by("machine_id")
        .agg(pl.col("ts").max().cast(pl.Int64))
        .collect()
    )
    if newest.is_empty():
        return engine
    # Times before 1970 are quarantined; a class without windows has no oldest time at all.
    oldest = np.maximum(windows.oldest_counted(newest["ts"].to_numpy(), machine_class), 0)
    cut = newest.lazy().select("machine_id", cut=pl.Series(oldest))
    grid = {channel: machine_class.base_tile(channel) for channel in machine_class.channels}
    tile = pl.col("channel").replace_strict(grid, default=1, return_dtype=pl.Int64)
    is_recent = pl.col("ts").cast(pl.Int64) >= pl.col("cut").floordiv(tile) * tile
    from_day = pl.col("date") >= _day(int(oldest.min()) - max(grid.values()))
    if lifetime := _lifetime_counters(machine_class):
        counters = readings.filter(pl.col("channel").is_in(lifetime))
        old = counters.join(cut, on="machine_id").filter(~is_recent)
        _restore_totals(engine, old)
    tail = values_from_bronze(
        readings.filter(from_day).join(cut, on="machine_id").filter(is_recent),
        captures.filter(from_day).join(cut, on="machine_id").filter(is_recent),
        events,
        machine_class,
    )
    engine.update(tail.sort("ts"))
    return engine


def counter_levels(
    lake: Lake, fleet: Mapping[str, MachineClass], wanted: pl.Expr | None = None
) -> Counters:
    """Newest good reading of each counter that has a `max_rate`, among the `wanted` rows."""
    classes = {c.name: c for c in fleet.values()}.values()
    limited = {n for c in classes for n, d in c.channels.items() if d.max_rate is not None}
    if not limited:
        return {}
    is_counter = pl.col("channel").is_in(sorted(limited)) & (pl.col("quality") != Quality.BAD)
    newest = pl.col("value").sort_by("ts", "_offset", "_index").last()
    rows = (
        lake.scan(READINGS)
        .filter(is_counter, pl.col("machine_id").is_in(sorted(fleet)))
        .filter(pl.lit(value=True) if wanted is None else wanted)
        .group_by("machine_id", "channel")
        .agg(pl.col("ts").max().cast(pl.Int64), newest)
        .collect()
    )
    return {(m, c): Level(ts, value) for m, c, ts, value in rows.iter_rows()}


class LakeHistory:
    """`feature_sink.History` on Delta."""

    def __init__(self, lake: Lake, fleet: Fleet, incarnations: Mapping[str, str]) -> None:
        """`incarnations`: topic → cluster and topic id."""
        self._lake = lake
        self._fleet = fleet
        self._incarnations = incarnations
        self._labels = {t: topic_label(t, i) for t, i in incarnations.items()}

    def settled(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Last offset of each partition that is in the lake as a whole; -1 = none."""
        return settled(self._lake, self._incarnations, partitions)

    def memory(
        self,
        machine_class: MachineClass,
        machine_ids: Sequence[str],
        upto: Mapping[TopicPartition, int],
    ) -> tuple[OnlineFeatures, Counters]:
        """Features and counter levels of the machines, up to the given offsets."""
        within = _within(upto, self._labels)
        engine = engine_from_lake(
            self._lake, machine_class, self._fleet.attributes, machine_ids, within=within
        )
        return engine, counter_levels(self._lake, dict.fromkeys(machine_ids, machine_class), within)

    def came_by_kafka(
        self, machine_ids: Sequence[str], upto: Mapping[TopicPartition, int]
    ) -> set[str]:
        """Which of the machines have rows in the lake from Kafka, up to the given offsets."""
        mine = pl.col("machine_id").is_in(list(machine_ids))
        by_kafka = pl.any_horizontal(
            [
                (pl.col("_topic") == self._labels[topic])
                & (pl.col("_partition") == partition)
                & (pl.col("_offset") <= offset)
                for (topic, partition), offset in upto.items()
            ]
        )
        frames = [_scan(self._lake, t, mine & by_kafka) for t in (READINGS, WAVEFORMS, EVENTS)]
        found = pl.concat([f.select("machine_id") for f in frames]).unique().collect()
        return set(found["machine_id"])


def _restore_totals(engine: OnlineFeatures, readings: pl.LazyFrame) -> None:
    values = readings.select(
        "machine_id", "channel", pl.col("ts").cast(pl.Int64), "value", "quality"
    ).collect()
    tiles = tiles_from_values(values, engine.machine_class)
    engine.restore_counters(tiles.filter(pl.col("n") > 0))


def _lifetime_counters(machine_class: MachineClass) -> list[str]:
    return sorted(
        {s.channel for s in machine_class.features if s.statistic is Statistic.CUMULATIVE}
    )


def _scan(lake: Lake, table: Table, wanted: pl.Expr) -> pl.LazyFrame:
    return lake.scan(table).filter(wanted)


def _within(upto: Mapping[TopicPartition, int], labels: Mapping[str, str]) -> pl.Expr:
    beyond = pl.lit(value=False)
    for (topic, partition), offset in upto.items():
        beyond |= (
            (pl.col("_topic") == labels[topic])
            & (pl.col("_partition") == partition)
            & (pl.col("_offset") > offset)
        )
    return ~beyond


def _day(us: int) -> pl.Expr:
    day = np.clip(us // 86_400_000_000, -719_162, 2_932_896)
    return pl.lit(int(day), pl.Int32).cast(pl.Date)
