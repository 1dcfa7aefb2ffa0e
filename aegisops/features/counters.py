"""A counter's live tiles and lifetime total, per machine. Used by `online` only.

Counters are few and change by one tile at a time, so plain dictionaries serve better than rings:
the order in which old tiles are folded into the total matters, and gaps are ordinary.
"""

from __future__ import annotations

import struct

import numpy as np

from aegisops.features.definitions import counter_total
from aegisops.features.tiles import INDEX, Floats, Ints

_BASE = struct.Struct("<dd?")
_TILE = struct.Struct("<qdddd")
_Tile = tuple[float, float, float, float]  # first_ts, first, last_ts, last


class CounterTrack:
    """Totals and recent tiles of one counter channel at one tile length (µs)."""

    def __init__(self, tile: int) -> None:
        self.tile = tile
        self._base: dict[int, tuple[float, float]] = {}
        """Machine to (total, last reading) of all folded tiles."""
        self._live: dict[int, dict[int, _Tile]] = {}

    def add(self, machine: Ints, key: Ints, state: Floats, oldest: Ints) -> None:
        """Merge tiles [N]; those before tile `oldest` [N] are folded into the total."""
        columns = [
            state[:, INDEX[f]].tolist() for f in ("n", "first_ts", "first", "last_ts", "last")
        ]
        rows = zip(machine.tolist(), key.tolist(), *columns, strict=True)
        for m, k, n, first_ts, first, last_ts, last in rows:
            if n:
                live = self._live.setdefault(m, {})
                new = (first_ts, first, last_ts, last)
                live[k] = _merge(live[k], new) if k in live else new
        for m, bound in dict(zip(machine.tolist(), oldest.tolist(), strict=True)).items():
            live = self._live.get(m, {})
            for k in sorted(k for k in live if k < bound):
                _, first, _, last = live.pop(k)
                self._fold(m, first, last)

    def fold(self, machine: Ints, edges: Floats) -> None:
        """Add tiles [N] in time order straight to the totals; `edges` [N, 2] = first and last."""
        for m, (first, last) in zip(machine.tolist(), edges.tolist(), strict=True):
            self._fold(m, first, last)

    def totals(self, machine: Ints) -> Floats:
        """Lifetime totals [G]; NaN for a machine without a reading."""
        return np.array([self._total(m) for m in machine.tolist()], dtype=np.float64)

    def increases(self, machine: Ints, start: Ints) -> Floats:
        """Increase since `start` [G] (µs, on the tile grid); NaN without a reading."""
        value = np.full(len(machine), np.nan)
        for i, (m, low) in enumerate(zip(machine.tolist(), start.tolist(), strict=True)):
            readings = _readings(self._live.get(m, {}), low // self.tile)
            if readings:
                value[i] = counter_total(np.array(readings))
        return value

    def dump(self, machine: int) -> bytes | None:
        """The machine's whole state; None if it has none."""
        live = self._live.get(machine, {})
        if machine not in self._base and not live:
            return None
        total, last = self._base.get(machine, (0.0, 0.0))
        parts = [_BASE.pack(total, last, machine in self._base)]
        parts += [_TILE.pack(k, *tile) for k, tile in sorted(live.items())]
        return b"".join(parts)

    def load(self, machine: int, blob: bytes) -> None:
        """Take back what `dump` gave."""
        total, last, has_base = _BASE.unpack_from(blob)
        self._base.pop(machine, None)
        if has_base:
            self._base[machine] = (total, last)
        self._live[machine] = {
            k: (a, b, c, d) for k, a, b, c, d in _TILE.iter_unpack(blob[_BASE.size :])
        }

    def _fold(self, machine: int, first: float, last: float) -> None:
        inside = last - first if last >= first else last
        if machine not in self._base:
            self._base[machine] = (first + inside, last)
            return
        total, previous = self._base[machine]
        step = first - previous if first >= previous else first
        self._base[machine] = (total + (step + inside), last)

    def _total(self, machine: int) -> float:
        readings = _readings(self._live.get(machine, {}), None)
        base = self._base.get(machine)
        if base is None:
            return readings[0] + counter_total(np.array(readings)) if readings else float("nan")
        total, last = base
        return total + counter_total(np.array([last, *readings])) if readings else total


def _merge(a: _Tile, b: _Tile) -> _Tile:
    first_ts, first = min((a[0], a[1]), (b[0], b[1]))
    last_ts, last = max((a[2], a[3]), (b[2], b[3]))
    return first_ts, first, last_ts, last


def _readings(live: dict[int, _Tile], low: int | None) -> list[float]:
    keys = sorted(live) if low is None else sorted(k for k in live if k >= low)
    return [reading for k in keys for reading in (live[k][1], live[k][3])]
