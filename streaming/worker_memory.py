"""The feature worker's memory of its machines: engines per class, counter levels, what is unsaved.

It comes from Redis or from the lake and is written back to Redis part by part. Which partitions are
owned, and what is stored when, is `feature_sink`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson
import polars as pl

from aegisops.features.online import OnlineFeatures
from aegisops.machines.model import MachineClass
from aegisops.online_store import FeatureVector
from aegisops.quality import Counters, Level
from streaming.buffers import TopicPartition
from streaming.fleet import Fleet
from streaming.values import event_values

LEVELS = "levels"
"""Field of a machine's state with its counter levels, beside the tiles of the engine."""


class History(Protocol):
    """The lake, as far as the worker's memory can be rebuilt from it."""

    def settled(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Last offset of each partition that is in the lake as a whole; -1 = none."""

    def memory(
        self,
        machine_class: MachineClass,
        machine_ids: Sequence[str],
        upto: Mapping[TopicPartition, int],
    ) -> tuple[OnlineFeatures, Counters]:
        """Features and counter levels of the machines, up to the given offsets."""

    def came_by_kafka(
        self, machine_ids: Sequence[str], upto: Mapping[TopicPartition, int]
    ) -> set[str]:
        """Which of the machines have rows in the lake from Kafka, up to the given offsets."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What machines have to store: changed parts of their state, and their vectors."""

    states: dict[str, dict[str, bytes]] = field(default_factory=dict)
    features: list[FeatureVector] = field(default_factory=list)
    feature_names: dict[str, Sequence[str]] = field(default_factory=dict)


class Memory:
    """State of the machines seen so far."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        self._fleet = fleet
        self._history = history
        self.forget()

    def forget(self) -> None:
        """Drop everything; machines are loaded again when they are seen."""
        self._engines: dict[str, OnlineFeatures] = {}
        self._loaded: set[str] = set()
        self._unsaved: dict[str, dict[str, bytes]] = {}
        self.levels: Counters = {}
        """Where the counters stand."""

    def unknown(self, machine_ids: Iterable[str]) -> list[str]:
        """Registered machines among these that are not here yet."""
        return [m for m in machine_ids if m not in self._loaded and m in self._fleet.classes]

    @property
    def unsaved(self) -> set[str]:
        """Machines with state that Redis does not have."""
        return set(self._unsaved)

    def restore(self, machine_id: str, parts: Mapping[str, bytes]) -> None:
        """Take back the state of one machine; an empty one begins anew."""
        machine_class = self._fleet.classes[machine_id]
        if machine_class.name not in self._engines:
            self._engines[machine_class.name] = OnlineFeatures(machine_class)
        tiles = {name: blob for name, blob in parts.items() if name != LEVELS}
        self._engines[machine_class.name].load(machine_id, tiles)
        for channel, level in _unpack(parts.get(LEVELS, b"{}")).items():
            self.levels[machine_id, channel] = level
        self._loaded.add(machine_id)

    def load_from_lake(
        self, machine_ids: Sequence[str], upto: Mapping[TopicPartition, int]
    ) -> None:
        """Rebuild machines from the lake's rows up to these offsets."""
        by_class: dict[str, list[str]] = {}
        for machine_id in machine_ids:
            by_class.setdefault(self._fleet.classes[machine_id].name, []).append(machine_id)
        for ids in by_class.values():
            memory, levels = self._history.memory(self._fleet.classes[ids[0]], ids, upto)
            known = memory.dump_all([m for m in ids if m in set(memory.machines)])
            for machine_id in ids:
                parts = known.get(machine_id, {})
                if mine := _levels_of(machine_id, self._fleet.classes[machine_id], levels):
                    parts[LEVELS] = _pack(mine)
                if parts:
                    self._unsaved[machine_id] = parts
                self.restore(machine_id, parts)

    def learn(self, levels: Counters) -> None:
        """Counters stand elsewhere now."""
        self.levels.update(levels)
        for machine_id in {machine for machine, _ in levels}:
            mine = _levels_of(machine_id, self._fleet.classes[machine_id], self.levels)
            self._unsaved.setdefault(machine_id, {})[LEVELS] = _pack(mine)

    def apply(self, values: pl.DataFrame, events: pl.DataFrame) -> tuple[set[str], int]:
        """Take in values and events; returns the machines that changed and the late values."""
        changed, late = self.unsaved, 0
        for name, engine in self._engines.items():
            rows = pl.concat([values, event_values(events, engine.machine_class)])
            if len(self._engines) > 1:
                senders = rows["machine_id"].unique().to_list()
                mine = [m for m in senders if self._fleet.classes[m].name == name]
                rows = rows.filter(pl.col("machine_id").is_in(mine))
            update = engine.update(rows)
            late += int(update.late.sum())
            changed.update(update.machines)
        return changed, late

    def take(self, machine_ids: Sequence[str]) -> Changed:
        """What these machines have to store; it counts as saved from here on."""
        made = Changed({m: self._unsaved.pop(m, {}) for m in machine_ids})
        for engine in self._engines.values():
            feature_set = engine.machine_class.feature_set
            ids = engine.known(machine_ids)
            engine.attributes = self._fleet.attributes
            for machine_id, parts in engine.dump_all(ids).items():
                made.states[machine_id] |= parts
            made.feature_names[feature_set] = engine.machine_class.vector
            ts, vectors, coverage = engine.matrix(ids)
            made.features.extend(
                FeatureVector(machine_id, feature_set, *rest)
                for machine_id, *rest in zip(
                    ids, ts.tolist(), vectors, coverage.tolist(), strict=True
                )
            )
        return made


def _levels_of(machine_id: str, machine_class: MachineClass, levels: Counters) -> dict[str, Level]:
    found = ((channel, levels.get((machine_id, channel))) for channel in machine_class.channels)
    return {channel: level for channel, level in found if level is not None}


def _pack(levels: Mapping[str, Level]) -> bytes:
    return orjson.dumps({channel: list(level) for channel, level in levels.items()})


def _unpack(blob: bytes) -> dict[str, Level]:
    return {channel: Level(*level) for channel, level in orjson.loads(blob).items()}
