"""Drives the algebra over a stream: micro-batches in, current feature vectors out. Pure, no I/O.

The state of a machine is its tiles in rings, one ring per channel and tile length, plus what
lifetime statistics need: the last time of each event and the running total of each counter.
`dump` gives the changed parts as small named blobs (a Redis hash); `load` takes them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from aegisops.features import definitions, tiles, windows
from aegisops.features.batch import Attributes
from aegisops.features.counters import CounterTrack
from aegisops.features.tiles import FIELDS, INDEX, Floats, Ints
from aegisops.machines.model import (
    COUNTER_STATISTICS,
    FeatureSpec,
    MachineClass,
    Statistic,
)
from aegisops.names import Quality

_EMPTY = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Update:
    """What one micro-batch did."""

    machines: tuple[str, ...]
    """Ids whose vectors changed, sorted."""
    late: pl.Series
    """Boolean, one per row: older than every window of its machine, so left out of the features."""


class _Ring:
    """The newest tiles of one channel for all machines: state [M, L, F], keys [M, L]."""

    def __init__(self, channel: str, tile: int, longest: int) -> None:
        self.tile = tile
        self.length = longest // tile + 1
        self.keys = np.full((0, self.length), _EMPTY)
        self.state = np.zeros((0, self.length, len(FIELDS)))
        self.dirty = np.zeros((0, self.length), np.bool_)
        """Slots that changed since they were dumped."""
        self.names = [f"r:{channel}:{tile}:{slot}" for slot in range(self.length)]

    def grow(self, machines: int) -> None:
        extra = machines - len(self.keys)
        self.keys = np.concatenate([self.keys, np.full((extra, self.length), _EMPTY)])
        self.state = np.concatenate([self.state, np.zeros((extra, self.length, len(FIELDS)))])
        self.dirty = np.concatenate([self.dirty, np.zeros((extra, self.length), np.bool_)])

    def add(self, machine: Ints, key: Ints, state: Floats, head: Ints) -> None:
        """Merge tiles [N] (unique per machine and key) that lie inside the ring at time `head`."""
        inside = (key > head // self.tile - self.length) & (key <= head // self.tile)
        machine, key, state = machine[inside], key[inside], state[inside]
        slot = key % self.length
        same = self.keys[machine, slot] == key
        if same.any():
            m, s, k = machine[same], slot[same], key[same]
            pairs = np.stack([self.state[m, s], state[same]], axis=1).reshape(-1, len(FIELDS))
            counts = np.full(len(m), 2)
            state[same] = tiles.merge(pairs, np.repeat(k, 2) * self.tile, counts, k * self.tile)
        self.keys[machine, slot] = key
        self.state[machine, slot] = state
        self.dirty[machine, slot] = True

    def dump(self, machine: Ints) -> Iterator[tuple[int, str, bytes]]:
        """(position in `machine`, name of the slot, key and state) of each changed slot."""
        row, slot = np.nonzero(self.dirty[machine])
        code = machine[row]
        self.dirty[code, slot] = False
        packed = np.empty((len(row), 1 + len(FIELDS)))
        packed[:, 0] = self.keys[code, slot].view(np.float64)
        packed[:, 1:] = self.state[code, slot]
        data, size = packed.tobytes(), packed.itemsize * packed.shape[1]
        for i, (r, s) in enumerate(zip(row.tolist(), slot.tolist(), strict=True)):
            yield r, self.names[s], data[i * size : (i + 1) * size]

    def window(self, machine: Ints, t: Ints, window: int) -> Floats:
        """Merged states [G, F] of the windows that end at `t` [G]."""
        wanted = windows.first_tile(t, window, self.tile)[:, None] + np.arange(
            window // self.tile + 1
        )
        slot = wanted % self.length
        rows = machine[:, None]
        valid = self.keys[rows, slot] == wanted
        state = self.state[rows, slot][valid]
        return tiles.merge(
            state, wanted[valid] * self.tile, valid.sum(axis=1), t // self.tile * self.tile
        )


class OnlineFeatures:
    """Feature vectors of all machines of one class, kept current by micro-batches."""

    def __init__(self, machine_class: MachineClass, attributes: Attributes | None = None) -> None:
        self.machine_class = machine_class
        self.attributes = dict(attributes or {})
        self._codes: dict[str, int] = {}
        self._ids: list[str] = []
        self._head = np.zeros(0, np.int64)
        self._rings: dict[tuple[str, int], _Ring] = {}
        self._last_event: dict[str, Floats] = {}
        self._counters: dict[str, CounterTrack] = {}
        self._declare()

    @property
    def machines(self) -> tuple[str, ...]:
        """Ids of the machines this engine has state of."""
        return tuple(self._ids)

    def known(self, machine_ids: Iterable[str]) -> list[str]:
        """Those of these that this engine has state of, in their order."""
        return [m for m in machine_ids if m in self._codes]

    def update(self, values: pl.DataFrame) -> Update:
        """Take long values [machine_id, channel, ts (µs), value, quality] in arrival order."""
        used = (*self._counters, *self._last_event, *(channel for channel, _ in self._rings))
        late = np.zeros(values.height, dtype=bool)
        rows = values.with_columns(
            pl.col("machine_id").cast(pl.String), pl.col("channel").cast(pl.String)
        ).with_row_index("_row")
        rows = rows.filter(
            pl.col("channel").is_in(used)
            & (pl.col("quality") == Quality.GOOD)
            & pl.col("value").is_finite()
        )
        if rows.is_empty():
            return Update((), pl.Series(late))
        machine = self._machine_codes(rows["machine_id"])
        is_late = self._advance(machine, rows["ts"].to_numpy())
        # An event is never too late for "time since"; windows leave it out by themselves.
        is_late &= ~rows["channel"].is_in(list(self._last_event)).to_numpy()
        late[rows["_row"].to_numpy()[is_late]] = True
        rows = rows.filter(~is_late)
        lengths = {tile for _, tile in self._rings} | {
            track.tile for track in self._counters.values()
        }
        for tile in lengths:
            self._add(rows, tile)
        for channel, last in self._last_event.items():
            happened = rows.filter(pl.col("channel") == channel)
            code = self._machine_codes(happened["machine_id"])
            np.fmax.at(last, code, happened["ts"].to_numpy().astype(np.float64))
        codes = np.unique(machine)
        return Update(tuple(sorted(self._ids[c] for c in codes)), pl.Series(late))

    def vectors(self, machine_ids: Iterable[str]) -> pl.DataFrame:
        """Current vectors of known machines: machine_id, ts (µs), vector, coverage (0 to 1).

        `coverage` is the lowest share of expected values behind any windowed feature.
        """
        ids = [m for m in machine_ids if m in self._codes]
        t, vector, coverage = self.matrix(ids)
        width = len(self.machine_class.vector)
        return pl.DataFrame(
            {
                "machine_id": pl.Series(ids, dtype=pl.String),
                "ts": t,
                "vector": pl.Series(vector, dtype=pl.Array(pl.Float64, width)).cast(
                    pl.List(pl.Float64)
                ),
                "coverage": coverage,
            }
        )

    def matrix(self, machine_ids: Sequence[str]) -> tuple[Ints, Floats, Floats]:
        """As `vectors`, of known machines only: ts [M], vectors [M, width], coverage [M]."""
        ids = machine_ids
        machine = np.array([self._codes[m] for m in ids], dtype=np.int64)
        t = self._head[machine]
        width = len(self.machine_class.vector)
        vector = np.full((len(ids), width), np.nan)
        coverage = np.ones(len(ids))
        merged: dict[tuple[str, int], Floats] = {}
        for i, spec in enumerate(self.machine_class.features):
            vector[:, i], share = self._feature(spec, machine, t, merged)
            coverage = np.minimum(coverage, share)
        if self.machine_class.attributes:
            for i, m in enumerate(ids):
                fixed = self.machine_class.encode_attributes(self.attributes.get(m, {}))
                vector[i, len(self.machine_class.features) :] = fixed
        return t, vector, coverage

    def restore_counters(self, tile_rows: pl.DataFrame) -> None:
        """Counter totals from silver/tiles rows that end before the values `update` will get."""
        for channel, track in self._counters.items():
            rows = tile_rows.filter(pl.col("channel") == channel).sort("machine_id", "tile_start")
            codes = self._machine_codes(rows["machine_id"].cast(pl.String))
            track.fold(codes, rows.select("first", "last").to_numpy())

    def dump(self, machine_id: str) -> dict[str, bytes]:
        """Parts of the machine's state that changed since its last dump, as named blobs."""
        return self.dump_all([machine_id])[machine_id]

    def dump_all(self, machine_ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """`dump` of many known machines, at a fraction of the cost."""
        code = np.array([self._codes[m] for m in machine_ids], dtype=np.int64)
        parts = [{"head": head.tobytes()} for head in self._head[code]]
        for ring in self._rings.values():
            for i, name, blob in ring.dump(code):
                parts[i][name] = blob
        for channel, last in self._last_event.items():
            for i in np.flatnonzero(~np.isnan(last[code])).tolist():
                parts[i][f"e:{channel}"] = last[code[i]].tobytes()
        for channel, track in self._counters.items():
            for i, c in enumerate(code.tolist()):
                if (state := track.dump(c)) is not None:
                    parts[i][f"c:{channel}"] = state
        return dict(zip(machine_ids, parts, strict=True))

    def load(self, machine_id: str, parts: Mapping[str, bytes]) -> None:
        """Take back what `dump` gave; parts of channels the class no longer has are ignored."""
        if not parts:
            return
        code = int(self._machine_codes(pl.Series([machine_id]))[0])
        for name, blob in parts.items():
            kind, _, rest = name.partition(":")
            if kind == "head":
                self._head[code] = np.frombuffer(blob, np.int64)[0]
            elif kind == "e" and rest in self._last_event:
                self._last_event[rest][code] = np.frombuffer(blob)[0]
            elif kind == "c" and rest in self._counters:
                self._counters[rest].load(code, blob)
            elif kind == "r":
                channel, tile, slot = rest.rsplit(":", 2)
                ring = self._rings.get((channel, int(tile)))
                if ring is not None and int(slot) < ring.length:
                    ring.keys[code, int(slot)] = np.frombuffer(blob[:8], np.int64)[0]
                    ring.state[code, int(slot)] = np.frombuffer(blob[8:])

    def forget(self, machine_ids: Iterable[str]) -> None:
        """Drop machines whose partition another worker took over."""
        gone = set(machine_ids) & set(self._codes)
        if not gone:
            return
        kept = [m for m in self._ids if m not in gone]
        for ring in self._rings.values():
            ring.dirty[:] = True
        parts = self.dump_all(kept)
        fresh = OnlineFeatures(self.machine_class, self.attributes)
        for m in kept:
            fresh.load(m, parts[m])
        self.__dict__.update(fresh.__dict__)

    def _declare(self) -> None:
        for spec in self.machine_class.features:
            base = self.machine_class.base_tile(spec.channel)
            if spec.statistic is Statistic.TIME_SINCE:
                self._last_event[spec.channel] = np.zeros(0)
            elif spec.statistic in COUNTER_STATISTICS and spec.statistic is not Statistic.LAST:
                # One track per counter at its base tile; windows of it must share that tile.
                self._counters[spec.channel] = CounterTrack(base)
            if spec.window is not None and spec.tile is not None:
                longest = max(
                    s.window or 0
                    for s in self.machine_class.features
                    if s.channel == spec.channel and s.tile == spec.tile
                )
                self._rings[spec.channel, spec.tile] = _Ring(spec.channel, spec.tile, longest)

    def _machine_codes(self, ids: pl.Series) -> Ints:
        known = len(self._ids)
        for machine_id in ids.unique(maintain_order=True):
            if machine_id not in self._codes:
                self._codes[machine_id] = len(self._ids)
                self._ids.append(machine_id)
        if len(self._ids) > len(self._head):
            # Doubling keeps growth linear over a fleet's start.
            size = max(len(self._ids), 2 * known, 16)
            extra = size - len(self._head)
            self._head = np.concatenate([self._head, np.full(extra, _EMPTY)])
            for ring in self._rings.values():
                ring.grow(size)
            for channel, last in self._last_event.items():
                self._last_event[channel] = np.concatenate([last, np.full(extra, np.nan)])
        if ids.is_empty():
            return np.zeros(0, np.int64)
        return ids.replace_strict(self._codes, return_dtype=pl.Int64).to_numpy()

    def _advance(self, machine: Ints, ts: Ints) -> np.ndarray:
        """Move each machine's newest time; True where a value was late when it arrived."""
        order = np.argsort(machine, kind="stable")
        m, t = machine[order], ts[order]
        begin = np.concatenate(([0], np.flatnonzero(np.diff(m)) + 1))
        before = self._head[m[begin]]
        # Ranks instead of times keep the running maximum per machine inside int64.
        levels, rank = np.unique(np.concatenate([t, before]), return_inverse=True)
        offset = np.repeat(np.arange(len(begin)), np.diff(np.append(begin, len(m)))) * len(levels)
        height = rank[: len(t)] + offset
        height[begin] = np.maximum(height[begin], rank[len(t) :] + offset[begin])
        newest = levels[np.maximum.accumulate(height) - offset]
        late = np.zeros(len(ts), dtype=bool)
        late[order] = t < windows.oldest_counted(newest, self.machine_class)
        end = np.append(begin[1:], len(m)) - 1
        self._head[m[begin]] = newest[end]
        return late

    def _add(self, rows: pl.DataFrame, tile: int) -> None:
        tracked = {c: track for c, track in self._counters.items() if track.tile == tile}
        ringed = {c: ring for (c, length), ring in self._rings.items() if length == tile}
        built = tiles.build(rows, dict.fromkeys([*tracked, *ringed], tile))
        for key, part in built.partition_by("channel", as_dict=True).items():
            channel = str(key[0])
            code = self._machine_codes(part["machine_id"])
            index = part["tile_start"].to_numpy() // tile
            state = part.select(FIELDS).to_numpy(writable=True)
            head = self._head[code]
            if channel in ringed:
                ringed[channel].add(code, index, state, head)
            if channel in tracked:
                oldest = windows.oldest_counted(head, self.machine_class) // tile
                tracked[channel].add(code, index, state, oldest)

    def _feature(
        self, spec: FeatureSpec, machine: Ints, t: Ints, merged: dict[tuple[str, int], Floats]
    ) -> tuple[Floats, Floats | float]:
        if spec.statistic is Statistic.TIME_SINCE:
            since = self._last_event[spec.channel][machine]
            return definitions.elapsed(self.machine_class, since, t), 1.0
        if spec.statistic is Statistic.CUMULATIVE:
            return self._counters[spec.channel].totals(machine), 1.0
        assert spec.window is not None  # noqa: S101 - only lifetime statistics have none
        assert spec.tile is not None  # noqa: S101 - as above
        if (key := (spec.channel, spec.window)) not in merged:
            merged[key] = self._rings[spec.channel, spec.tile].window(machine, t, spec.window)
        state = merged[key]
        if spec.statistic is Statistic.INCREASE:
            start = windows.first_tile(t, spec.window, spec.tile) * spec.tile
            value = self._counters[spec.channel].increases(machine, start)
        else:
            value = definitions.finalise(spec, state, self.machine_class)
        expected = definitions.expected_values(spec, self.machine_class)
        if expected is None:
            return value, 1.0
        return value, np.minimum(1.0, state[:, INDEX["n"]] / expected)
