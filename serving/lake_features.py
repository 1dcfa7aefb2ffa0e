"""Features computed on demand from the lake, when the online store has none or a stale one.

Slow beside a cache hit (tens to hundreds of milliseconds): callers bound the time. Several machines
of one class cost one scan. Only here does the API touch Delta, imported at the first miss.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
    """Reads machines' tail of bronze and their lifetime tiles. Blocking; use a worker thread."""

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
        from aegisops.schemas.tables import MACHINES

        rows = self.lake.scan(MACHINES).sort("registered_at").collect()
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

    def vectors(
        self, machines: Sequence[Machine], machine_class: MachineClass, at: int | None = None
    ) -> dict[str, Vector]:
        """Each machine's vector at its last step up to `at` (µs; its newest when None).

        Machines of which the lake holds no reading up to then are left out.
        """
        import polars as pl

        from aegisops.features.batch import features_from_tiles

        newest = self._newest([m.machine_id for m in machines], at)
        if not newest:
            return {}
        # The tail covers every window that can end inside the machines' newest steps.
        tail = min(newest.values()) - machine_class.step - 2 * machine_class.lateness
        tail -= tail % _DAY
        tiles = self._tiles(list(newest), machine_class, tail, at)
        attributes = {m.machine_id: m.attributes for m in machines}
        rows = features_from_tiles(tiles, machine_class, attributes, since=tail)
        last = rows.with_columns(pl.col("ts").cast(pl.Int64)).group_by("machine_id").last()
        return {
            row["machine_id"]: Vector(
                values=np.array(row["vector"], dtype=np.float64),
                feature_set=row["feature_set"],
                at=row["ts"],
                coverage=float(row["coverage"]),
                source="lake",
            )
            for row in last.iter_rows(named=True)
        }

    def _newest(self, ids: Sequence[str], at: int | None) -> Mapping[str, int]:
        """Time (µs) of the newest reading or capture up to `at`, of machines that have one."""
        import polars as pl

        from aegisops.schemas.tables import READINGS, WAVEFORMS

        mine = pl.col("machine_id").is_in(list(ids))
        if at is not None:
            mine &= (pl.col("ts") <= _time(at)) & (pl.col("date") <= _date(at))
        # Most answers are about now: two days' partitions first, all history if they lack any.
        recent = (at if at is not None else round(self._clock() * US_PER_SECOND)) - 2 * _DAY
        newest: dict[str, int] = {}
        for scope in (mine & (pl.col("date") >= _date(recent)), mine):
            rows = pl.concat(
                self.lake.scan(table)
                .filter(scope)
                .select("machine_id", pl.col("ts").cast(pl.Int64))
                for table in (READINGS, WAVEFORMS)
            )
            newest = dict(rows.group_by("machine_id").agg(pl.col("ts").max()).collect().iter_rows())
            if len(newest) == len(set(ids)):
                break
        return newest

    def _tiles(
        self, ids: Sequence[str], machine_class: MachineClass, tail: int, at: int | None
    ) -> pl.DataFrame:
        """Tiles from the tail on, plus what lifetime statistics need from before it."""
        import polars as pl

        from aegisops.features.batch import tiles_from_values, values_from_bronze
        from aegisops.schemas.tables import EVENTS, READINGS, WAVEFORMS

        mine = pl.col("machine_id").is_in(list(ids))
        if at is not None:
            mine &= pl.col("ts") <= _time(at)
        recent = mine & (pl.col("date") >= _date(tail))
        readings = [self.lake.scan(READINGS).filter(recent)]
        old, bronze_from = self._lifetime(ids, machine_class, tail)
        if bronze_from < tail:
            gap = mine & pl.col("channel").is_in(_lifetime_counters(machine_class))
            gap &= (pl.col("ts") >= _time(bronze_from)) & (pl.col("date") >= _date(bronze_from))
            readings.append(self.lake.scan(READINGS).filter(gap & (pl.col("date") < _date(tail))))
        values = values_from_bronze(
            pl.concat(readings).collect(),
            self.lake.scan(WAVEFORMS).filter(recent).collect(),
            self.lake.scan(EVENTS).filter(mine).collect(),
            machine_class,
        )
        if at is not None:  # a capture that began before `at` may reach beyond it
            values = values.filter(pl.col("ts") <= at)
        tiles = tiles_from_values(values, machine_class)
        if old is None:
            return tiles
        return pl.concat([old.select(tiles.columns).cast(tiles.schema), tiles])

    def _lifetime(
        self, ids: Sequence[str], machine_class: MachineClass, tail: int
    ) -> tuple[pl.DataFrame | None, int]:
        """Counter tiles of silver/tiles from before the tail, and from when bronze must fill in."""
        import polars as pl

        from aegisops.schemas.tables import TILES

        counters = _lifetime_counters(machine_class)
        if not counters:
            return None, tail
        tiles = (
            self.lake.scan(TILES)
            .filter(
                pl.col("machine_id").is_in(list(ids))
                & pl.col("channel").is_in(counters)
                & (pl.col("date") < _date(tail))
            )
            .collect()
        )
        newest = tiles.group_by("machine_id", "channel").agg(pl.col("tile_start").max())
        if newest.height < len(ids) * len(counters):
            return None, 0
        # The last tile may have been written half full: from there on bronze is read again.
        cut = newest["tile_start"].cast(pl.Int64).to_numpy().min()
        return tiles.filter(pl.col("tile_start") < _time(int(cut))), int(cut)


def _lifetime_counters(machine_class: MachineClass) -> list[str]:
    return [s.channel for s in machine_class.features if s.statistic is Statistic.CUMULATIVE]


def _time(us: int) -> pl.Expr:
    import polars as pl

    return pl.lit(us, pl.Int64).cast(pl.Datetime("us", "UTC"))


def _date(us: int) -> pl.Expr:
    import polars as pl

    return pl.lit(us // _DAY, pl.Int32).cast(pl.Date)
