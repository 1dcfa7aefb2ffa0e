"""The single meaning of a window, online and offline.

Window (t, W) with tile h holds the tiles k with t//h - W/h <= k <= t//h, values up to and including
t: it starts on the tile grid and ends at t, so it spans between W and W + h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from aegisops.features import tiles
from aegisops.features.tiles import FIELDS, INDEX, Floats, Ints
from aegisops.machines.model import MachineClass


def first_tile(t: Ints, window: int, tile: int) -> Ints:
    """Index of the oldest tile inside the window that ends at `t`; all arguments in µs."""
    return t // tile - window // tile


def oldest_counted(t: Ints, machine_class: MachineClass) -> Ints:
    """Time in µs before which a value is outside every window that ends at `t`: it is late."""
    starts = [
        first_tile(t, s.window, s.tile) * s.tile
        for s in machine_class.features
        if s.window is not None and s.tile is not None
    ]
    return np.minimum.reduce(starts) if starts else np.full_like(t, np.iinfo(np.int64).min)


@dataclass(frozen=True, slots=True)
class Series:
    """Tiles of one channel at one tile length, sorted by machine code and tile index."""

    tile: int
    machine: Ints
    key: Ints
    state: Floats

    @classmethod
    def of(cls, rows: pl.DataFrame, tile: int) -> Series:
        """From rows of one channel (machine code, tile_start, FIELDS), coarsened to `tile` µs.

        Rows must be sorted by machine and tile_start.
        """
        machine = rows["machine"].to_numpy().astype(np.int64)
        start = rows["tile_start"].to_numpy()
        state = rows.select(FIELDS).to_numpy()
        key = start // tile
        if not len(key):
            return cls(tile, machine, key, state)
        change = np.flatnonzero((np.diff(key) != 0) | (np.diff(machine) != 0)) + 1
        begin = np.concatenate(([0], change))
        # Even a lone finer tile must be merged: its t_mean refers to its own start.
        if (start != key * tile).any() or len(begin) < len(key):
            counts = np.diff(np.append(begin, len(key)))
            state = tiles.merge(state, start, counts, key[begin] * tile)
            machine, key = machine[begin], key[begin]
        return cls(tile, machine, key, state)

    def window(self, machine: Ints, t: Ints, window: int) -> Floats:
        """Merged states [G, len(FIELDS)] of the windows that end at `t` [G] on `machine` [G]."""
        rows, counts = self.runs(machine, first_tile(t, window, self.tile), t // self.tile)
        return tiles.merge(
            self.state[rows], self.key[rows] * self.tile, counts, t // self.tile * self.tile
        )

    def runs(self, machine: Ints, low: Ints, high: Ints) -> tuple[Ints, Ints]:
        """Row numbers, run after run, of the tiles low..high per group, and the runs' lengths."""
        begin = self._search(machine, low, "left")
        counts = self._search(machine, high, "right") - begin
        skipped = np.concatenate(([0], np.cumsum(counts)[:-1]))
        rows = np.repeat(begin - skipped, counts) + np.arange(counts.sum())
        return rows, counts

    def _search(self, machine: Ints, key: Ints, side: str) -> Ints:
        if not len(self.key):
            return np.zeros(len(machine), np.int64)
        # One sortable number per (machine, tile): keys span less than `stride`.
        base = self.key.min()
        stride = self.key.max() - base + 2
        offset = np.clip(key - base, -1, stride - 1) + 1
        haystack = self.machine * (stride + 1) + (self.key - base) + 1
        return np.searchsorted(haystack, machine * (stride + 1) + offset, side=side)  # type: ignore[call-overload,no-any-return]

    def latest(self, machine: Ints, t: Ints, field: str) -> Floats:
        """A field of each machine's newest tile with a good value up to `t`; NaN if none."""
        live = self.state[:, INDEX["n"]] > 0
        kept = Series(self.tile, self.machine[live], self.key[live], self.state[live])
        row = kept._search(machine, t // self.tile, "right") - 1
        found = row >= 0
        found[found] = kept.machine[row[found]] == machine[found]
        value = np.full(len(machine), np.nan)
        value[found] = kept.state[row[found], INDEX[field]]
        return value

    def counter(self) -> Series:
        """This counter's tiles with `mean` = the total up to the tile's last reading.

        The total starts at the machine's first reading; see `definitions.counter_total`. `m2` is
        the part of it that was added since the last reading of the tile before.
        """
        live = self.state[:, INDEX["n"]] > 0
        machine, key, state = self.machine[live], self.key[live], self.state[live].copy()
        if len(key):
            first, last = state[:, INDEX["first"]], state[:, INDEX["last"]]
            previous = np.concatenate(([np.nan], last[:-1]))
            new = np.concatenate(([True], np.diff(machine) != 0))
            inside = np.where(last >= first, last - first, last)
            step = np.where(first >= previous, first - previous, first) + inside
            step[new] = first[new] + inside[new]
            state[:, INDEX["m2"]] = step
            total = np.cumsum(step)
            begin = np.flatnonzero(new)
            before = np.repeat(total[begin] - step[begin], np.diff(np.append(begin, len(key))))
            state[:, INDEX["mean"]] = total - before
            state[:, INDEX["m3"]] = inside
        return Series(self.tile, machine, key, state)

    def increase(self, machine: Ints, start: Ints, t: Ints) -> Floats:
        """Increase of a `counter()` series from `start` to `t` (µs); NaN without a reading."""
        rows, counts = self.runs(machine, start // self.tile, t // self.tile)
        some = counts > 0
        value = np.full(len(machine), np.nan)
        if some.any():
            begin = np.concatenate(([0], np.cumsum(counts[some])[:-1]))
            step = self.state[rows, INDEX["m2"]]  # a copy
            # Counts before the window's first reading are not the window's.
            step[begin] = self.state[rows[begin], INDEX["m3"]]
            value[some] = np.add.reduceat(step, begin)
        return value
