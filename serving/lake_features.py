"""Features computed on demand from the lake, when the online store has none or a stale one.

Slow beside a cache hit (tens to hundreds of milliseconds): callers bound the time.

Only here does the API touch Delta, and it is imported at the first miss, not at the start.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from aegisops.machines import MachineClass
from aegisops.machines.model import US_PER_HOUR, US_PER_SECOND, Statistic
from aegisops.online_store import Machine
from serving.vectors import Vector

if TYPE_CHECKING:
    import polars as pl

    from aegisops.lake import Lake

_DAY = 24 * US_PER_HOUR


class LakeFeatures:
    """Reads one machine's tail of bronze and its lifetime tiles. Blocking; use a worker thread."""

    def __init__(self, lake: Callable[[], Lake], clock: Callable[[], float]) -> None:
        """`lake` makes the edge at first use; `clock` gives Unix seconds."""
        self._make = lake
        self._clock = clock
        self._lake: Lake | None = None

    @property
    def lake(self) -> Lake:
        """The Delta edge."""
        if self._lake is None:
            self._lake = self._make()
        return self._lake

    def machines(self) -> dict[str, Machine]:
        """The fleet as registered in bronze/machines; the newest registration of an id wins."""
        import polars as pl

        from aegisops.schemas.tables import MACHINES

        rows = self.lake.scan(MACHINES).sort(pl.col("registered_at")).collect()
        return {
            row["machine_id"]: Machine(
                machine_id=row["machine_id"],
                machine_class=row["machine_class"],
                site=row["site"],
                area=row["area"],
                attributes=json.loads(row["attributes"]),
            )
            for row in rows.iter_rows(named=True)
        }

    def vector(
        self, machine: Machine, machine_class: MachineClass, at: int | None = None
    ) -> Vector | None:
        """The machine's vector at its last step up to `at` (µs; newest when None).

        None when the lake holds no reading of the machine up to then.
        """
        import polars as pl

        from aegisops.features.batch import (
            features_from_tiles,
            tiles_from_values,
            values_from_bronze,
        )
        from aegisops.schemas.tables import EVENTS, READINGS, WAVEFORMS

        mine = pl.col("machine_id") == machine.machine_id
        until = pl.lit(value=True) if at is None else pl.col("ts") <= _time(at)
        newest = self._newest(machine, at)
        if newest is None:
            return None
        # The tail covers every window that can end inside the newest step.
        tail = newest - machine_class.step - 2 * machine_class.lateness
        old_tiles, lifetime_from = self._lifetime(machine, machine_class, tail)
        recent = mine & until & (pl.col("ts") >= _time(tail)) & (pl.col("date") >= _date(tail))
        readings = self.lake.scan(READINGS).filter(recent)
        counters = _lifetime_counters(machine_class)
        if counters and lifetime_from < tail:
            wanted = mine & until & pl.col("channel").is_in(counters)
            wanted &= (pl.col("ts") >= _time(lifetime_from)) & (pl.col("ts") < _time(tail))
            wanted &= pl.col("date") >= _date(lifetime_from)
            readings = pl.concat([readings, self.lake.scan(READINGS).filter(wanted)])
        values = values_from_bronze(
            readings.collect(),
            self.lake.scan(WAVEFORMS).filter(recent).collect(),
            self.lake.scan(EVENTS).filter(mine & until).collect(),
            machine_class,
        )
        tiles = tiles_from_values(values, machine_class)
        if old_tiles is not None:
            tiles = pl.concat([old_tiles.select(tiles.columns).cast(tiles.schema), tiles])
        rows = features_from_tiles(
            tiles, machine_class, {machine.machine_id: machine.attributes}, since=tail
        )
        if rows.is_empty():
            return None
        last = rows.row(-1, named=True)
        return Vector(
            values=np.array(last["vector"], dtype=np.float64),
            feature_set=last["feature_set"],
            at=rows["ts"].cast(pl.Int64)[-1],
            coverage=float(last["coverage"]),
            source="lake",
        )

    def _newest(self, machine: Machine, at: int | None) -> int | None:
        """Time (µs) of the machine's newest reading or capture up to `at`."""
        import polars as pl

        from aegisops.schemas.tables import READINGS, WAVEFORMS

        mine = pl.col("machine_id") == machine.machine_id
        if at is not None:
            mine &= (pl.col("ts") <= _time(at)) & (pl.col("date") <= _date(at))
        # Most answers are about now: two days' partitions first, all history if they are empty.
        recent = (at if at is not None else round(self._clock() * US_PER_SECOND)) - 2 * _DAY
        for scope in (mine & (pl.col("date") >= _date(recent)), mine):
            newest = [
                self.lake.scan(table)
                .filter(scope)
                .select(pl.col("ts").max().cast(pl.Int64))
                .collect()
                .item()
                for table in (READINGS, WAVEFORMS)
            ]
            if any(newest):
                return int(max(ts for ts in newest if ts is not None))
        return None

    def _lifetime(
        self, machine: Machine, machine_class: MachineClass, tail: int
    ) -> tuple[pl.DataFrame | None, int]:
        """Counter tiles of silver/tiles older than the tail, and from when bronze must fill in."""
        import polars as pl

        from aegisops.schemas.tables import TILES

        counters = _lifetime_counters(machine_class)
        if not counters:
            return None, tail
        mine = pl.col("machine_id") == machine.machine_id
        before = pl.col("tile_start") < _time(tail - tail % _DAY)
        tiles = (
            self.lake.scan(TILES)
            .filter(mine & before & pl.col("channel").is_in(counters))
            .sort("channel", "tile_start")
            .collect()
        )
        if tiles.is_empty():
            return None, 0
        # The last tile may have been written half full: it is built again from bronze.
        ends = tiles.group_by("channel").agg(pl.col("tile_start").max().alias("end"))
        cut = ends["end"].min()
        tiles = tiles.filter(pl.col("tile_start") < cut)
        start = ends["end"].cast(pl.Int64).min()
        return tiles, int(start) if isinstance(start, int) else 0


def _lifetime_counters(machine_class: MachineClass) -> list[str]:
    return [s.channel for s in machine_class.features if s.statistic is Statistic.CUMULATIVE]


def _time(us: int) -> pl.Expr:
    import polars as pl

    return pl.lit(us, pl.Int64).cast(pl.Datetime("us", "UTC"))


def _date(us: int) -> pl.Expr:
    import polars as pl

    return pl.lit(us // _DAY, pl.Int32).cast(pl.Date)
