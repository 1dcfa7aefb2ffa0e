"""Kafka messages into the current feature vectors in Redis, each offset applied once.

The worker's memory is Redis itself: a flush writes a partition's changed tiles, its feature
vectors and the positions they rest on in one MULTI, and an assignment starts reading right behind
the stored positions, whatever the consumer group last committed. Where Redis has no position, or
one of another incarnation of the topic, the partition is rebuilt from the lake and Kafka is read
from where the lake ends.

Readings and events of a machine share a partition number (same key, same partitioner), so one
worker owns both; which of the two arrives first does not matter to the features.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import orjson
import polars as pl

from aegisops.errors import Conflict, ServiceUnavailable
from aegisops.features.online import OnlineFeatures
from aegisops.machines.model import MachineClass
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.online_store import FeatureVector, OnlineStore, PartitionUpdate, Position
from aegisops.quality import Counters, Judged, Level, Limits, judge_events, judge_readings
from streaming.buffers import Taken, TopicPartition
from streaming.decoding import Decode, decode
from streaming.feature_metrics import FeatureMetrics
from streaming.fleet import Fleet
from streaming.sink import BufferedSink
from streaming.values import event_values, reading_values

log = logging.getLogger(__name__)

TOPICS = (READINGS_TOPIC, EVENTS_TOPIC)
LEVELS = "levels"
"""Field of a machine's state with its counter levels, beside the tiles of the engine."""
_US_PER_SECOND = 1_000_000


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


class FeatureSink(BufferedSink):
    """Keeps `feat:`, `tiles:`, `raw:` and `fpos:` of the owned partitions current.

    A flush raises `Conflict` when a stored position is not ours: another worker owns the partition,
    or Redis was emptied. The process must then end; its restart begins from the stored positions.
    """

    retry_seconds = 2.0
    ends_at = (Conflict,)

    def __init__(
        self,
        store: OnlineStore,
        *,
        fleet: Fleet,
        decoder: Decode,
        limits: Limits,
        incarnations: Mapping[str, str],
        history: History,
        partition_of: Callable[[str], int],
        metrics: FeatureMetrics,
        check_topics: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`incarnations`: topic → cluster and topic id; `partition_of`: as producers partition."""
        super().__init__(metrics, check_topics)
        self._store = store
        self._fleet = fleet
        self._decoder = decoder
        self._limits = limits
        self._incarnations = incarnations
        self._history = history
        self._partition_of = partition_of
        self._metrics: FeatureMetrics = metrics
        self._clock = clock
        self._positions: dict[TopicPartition, Position] = {}
        self._mirrored = -1
        self.postponed()

    def postponed(self) -> None:
        """Drop the memory; machines are loaded again when they are seen."""
        self._engines: dict[str, OnlineFeatures] = {}
        self._levels: Counters = {}
        self._loaded: set[str] = set()
        self._unsaved: dict[str, dict[str, bytes]] = {}

    # --- assignment -------------------------------------------------------------------------------

    def assign(
        self,
        partitions: Sequence[TopicPartition],
        watermarks: Callable[[TopicPartition], tuple[int, int]],
    ) -> dict[TopicPartition, int]:
        """Take over partitions; returns the offset to read each from.

        Memory of an earlier assignment is dropped: another worker may have gone on since.
        `watermarks` gives (low, high) of a partition.
        """
        with self._writing:
            self.postponed()
            self._fleet.reload()
            self._mirror()
            stored = self._store.positions(partitions)
            lost = {
                p[1] for p in partitions if not self._continues(p, stored.get(p), watermarks(p))
            }
            self._positions = {p: stored[p] for p in partitions if p[1] not in lost}
            if lost:
                self._rebuild([p for p in partitions if p[1] in lost], stored)
            return {p: position.offset + 1 for p, position in self._positions.items()}

    def _continues(
        self, partition: TopicPartition, position: Position | None, marks: tuple[int, int]
    ) -> bool:
        low, high = marks
        if position is None or position.incarnation != self._incarnations[partition[0]]:
            return False
        if position.offset + 1 < low:
            log.error("%s: offsets %s to %s are gone from Kafka; taking them from the lake",
                      partition, position.offset + 1, low - 1)  # fmt: skip
            return False
        if position.offset >= high:
            log.error("%s: stored position %s is above the high watermark %s",
                      partition, position.offset, high)  # fmt: skip
            return False
        return True

    def _rebuild(
        self, partitions: Sequence[TopicPartition], stored: Mapping[TopicPartition, Position]
    ) -> None:
        settled = self._history.settled(partitions)
        self._positions |= {
            p: Position(self._incarnations[p[0]], offset) for p, offset in settled.items()
        }
        homes: dict[int, list[str]] = {number: [] for _, number in partitions}
        for machine_id in self._fleet.classes:
            if (number := self._partition_of(machine_id)) in homes:
                homes[number].append(machine_id)
        self._load_from_lake([m for machines in homes.values() for m in machines], settled)
        for number, machines in homes.items():
            mine = [p for p in partitions if p[1] == number]
            self._store.write(
                self._update(
                    [m for m in machines if m in self._unsaved],
                    {p: self._positions[p] for p in mine},
                    {p: stored.get(p) for p in mine},
                    forget=machines,
                )
            )
        self._metrics.warm_ups.inc(len(homes))
        log.info("rebuilt partitions %s from the lake", sorted(homes))

    # --- memory -----------------------------------------------------------------------------------

    def _load(self, machine_ids: Iterable[str]) -> None:
        """Bring the memory of machines seen for the first time from Redis, or from the lake."""
        wanted = [m for m in machine_ids if m not in self._loaded and m in self._fleet.classes]
        if not wanted:
            return
        stored = self._store.states(wanted)
        absent = [m for m, parts in stored.items() if not parts]
        for machine_id, parts in stored.items():
            if parts:
                self._restore(machine_id, parts)
        if absent:
            offsets = {p: position.offset for p, position in self._positions.items()}
            self._never_seen(absent, offsets)
            self._load_from_lake(absent, offsets)

    def _never_seen(
        self, machine_ids: Sequence[str], offsets: Mapping[TopicPartition, int]
    ) -> None:
        """Machines without memory must be new; else Redis dropped theirs, and all is suspect.

        The lake may lag behind the position, so the partition has to be rebuilt as a whole.
        """
        evicted = self._history.came_by_kafka(machine_ids, offsets)
        numbers = {self._partition_of(m) for m in evicted}
        partitions = [p for p in self._positions if p[1] in numbers]
        if partitions:
            self._store.drop_positions(partitions)
            raise Conflict(
                f"Redis has lost the state of {sorted(evicted)[:5]}; partitions {sorted(numbers)} "
                "are rebuilt at the restart. Give Redis more memory or another eviction policy."
            )

    def _load_from_lake(
        self, machine_ids: Sequence[str], upto: Mapping[TopicPartition, int]
    ) -> None:
        by_class: dict[str, list[str]] = {}
        for machine_id in machine_ids:
            by_class.setdefault(self._fleet.classes[machine_id].name, []).append(machine_id)
        for ids in by_class.values():
            memory, levels = self._history.memory(self._fleet.classes[ids[0]], ids, upto)
            known = set(memory.machines)
            for machine_id in ids:
                parts = memory.dump(machine_id) if machine_id in known else {}
                if mine := _levels_of(machine_id, self._fleet.classes[machine_id], levels):
                    parts[LEVELS] = _pack(mine)
                if parts:
                    self._unsaved[machine_id] = parts
                self._restore(machine_id, parts)

    def _restore(self, machine_id: str, parts: Mapping[str, bytes]) -> None:
        machine_class = self._fleet.classes[machine_id]
        if machine_class.name not in self._engines:
            self._engines[machine_class.name] = OnlineFeatures(machine_class)
        tiles = {name: blob for name, blob in parts.items() if name != LEVELS}
        self._engines[machine_class.name].load(machine_id, tiles)
        for channel, level in _unpack(parts.get(LEVELS, b"{}")).items():
            self._levels[machine_id, channel] = level
        self._loaded.add(machine_id)

    def _mirror(self) -> None:
        if self._fleet.version != self._mirrored:
            self._store.register(self._fleet.machines.values())
            self._mirrored = self._fleet.version

    # --- flush ------------------------------------------------------------------------------------

    def write(self, taken: Taken) -> None:
        """Apply these messages."""
        self._apply(self.count_skipped(taken, lambda p: self._positions[p].offset))

    def _apply(self, taken: Taken) -> None:
        if not taken:
            return
        judged, events, homes = self._judge(taken)
        values = reading_values(judged)
        changed = self._update_engines(values, events)
        raw = _raw(judged)
        features: list[FeatureVector] = []
        for number in sorted({number for _, number in taken}):
            positions = {
                p: Position(self._incarnations[p[0]], messages.last)
                for p, messages in taken.items()
                if p[1] == number
            }
            update = self._update(
                sorted(m for m in changed if homes[m] == number),
                positions,
                {p: self._positions[p] for p in positions},
                raw={m: batch for m, batch in raw.items() if homes[m] == number},
            )
            self._store.write(update)
            self._positions.update(positions)
            features += update.features
        self._metrics.values.inc(values.height + events.height)
        self._metrics.vectors.inc(len(features))
        self._publish(features)

    def _judge(self, taken: Taken) -> tuple[Judged, pl.DataFrame, dict[str, int]]:
        """Judged readings, good events and each sender's partition; their memory is loaded."""
        now_us = round(self._clock() * _US_PER_SECOND)
        batches = {}
        for topic in TOPICS:
            parts = {p: messages for (t, p), messages in taken.items() if t == topic}
            batches[topic] = decode(topic, parts, self._decoder, now_us)
            for reason in batches[topic].failures["reason"]:
                self._metrics.rejected.labels(reason).inc()
        senders = {m for batch in batches.values() for m in batch.records["machine_id"]}
        fleet = self._fleet.knowing(senders)
        self._mirror()
        self._load(sorted(senders))
        readings = batches[READINGS_TOPIC].records
        judged = judge_readings(readings, fleet, self._limits, self._levels)
        self._levels.update(judged.levels)
        events = judge_events(batches[EVENTS_TOPIC].records, fleet, self._limits)
        for rows in (judged.readings, events):
            for reason, count in rows["reason"].drop_nulls().value_counts().iter_rows():
                self._metrics.rejected.labels(reason).inc(count)
        for machine_id in {machine for machine, _ in judged.levels}:
            mine = _levels_of(machine_id, fleet[machine_id], self._levels)
            self._unsaved.setdefault(machine_id, {})[LEVELS] = _pack(mine)
        homes = {
            machine: number
            for batch in batches.values()
            for machine, number in batch.records.select("machine_id", "_partition").iter_rows()
        }
        return judged, events.filter(pl.col("reason").is_null()), homes

    def _update_engines(self, values: pl.DataFrame, events: pl.DataFrame) -> set[str]:
        """Machines whose state changed."""
        changed = set(self._unsaved)
        attributes = self._fleet.attributes
        for name, engine in self._engines.items():
            engine.attributes = attributes
            mine = [m for m in self._loaded if self._fleet.classes[m].name == name]
            rows = pl.concat([values, event_values(events, engine.machine_class)])
            update = engine.update(rows.filter(pl.col("machine_id").is_in(mine)))
            self._metrics.late.inc(int(update.late.sum()))
            changed.update(update.machines)
        return changed

    def _update(
        self,
        machine_ids: Sequence[str],
        positions: Mapping[TopicPartition, Position],
        expected: Mapping[TopicPartition, Position | None],
        *,
        raw: Mapping[str, bytes] | None = None,
        forget: Sequence[str] = (),
    ) -> PartitionUpdate:
        states: dict[str, dict[str, bytes]] = {m: self._unsaved.pop(m, {}) for m in machine_ids}
        features: list[FeatureVector] = []
        columns: dict[str, Sequence[str]] = {}
        attributes = self._fleet.attributes
        for engine in self._engines.values():
            ids = sorted(set(machine_ids) & set(engine.machines))
            engine.attributes = attributes
            for machine_id in ids:
                states[machine_id] |= engine.dump(machine_id)
            columns[engine.machine_class.feature_set] = engine.machine_class.vector
            features += [
                FeatureVector(
                    machine_id, engine.machine_class.feature_set, ts, np.array(vector), coverage
                )
                for machine_id, ts, vector, coverage in engine.vectors(ids).iter_rows()
            ]
        return PartitionUpdate(
            positions=positions,
            expected=expected,
            states=states,
            features=features,
            feature_names=columns,
            raw=raw or {},
            forget=forget,
        )

    def _publish(self, features: Sequence[FeatureVector]) -> None:
        """Tell whoever watches; one message per flush. Nobody depends on it, so it may fail."""
        if not features:
            return
        columns = {
            e.machine_class.feature_set: e.machine_class.vector for e in self._engines.values()
        }
        message = {
            "at": round(self._clock() * _US_PER_SECOND),
            "machines": [
                {
                    "machine_id": f.machine_id,
                    "ts": f.ts,
                    "coverage": f.coverage,
                    "features": dict(zip(columns[f.feature_set], f.vector.tolist(), strict=True)),
                }
                for f in features
            ],
        }
        try:
            self._store.publish(orjson.dumps(message))
        except ServiceUnavailable as error:
            log.warning("live telemetry not sent: %s", error)


def _levels_of(machine_id: str, machine_class: MachineClass, levels: Counters) -> dict[str, Level]:
    found = ((channel, levels.get((machine_id, channel))) for channel in machine_class.channels)
    return {channel: level for channel, level in found if level is not None}


def _raw(judged: Judged) -> dict[str, bytes]:
    """Each machine's good readings of this flush as JSON, for its raw buffer."""
    batches: dict[str, dict[str, list[tuple[object, ...]]]] = {}
    scalars = judged.scalars.select("machine_id", "channel", "ts", "value", "quality")
    captures = judged.waveforms.select(
        "machine_id", "channel", "ts", "period_us", "values", "quality"
    )
    for key, rows in (("readings", scalars), ("waveforms", captures)):
        for machine_id, *row in rows.iter_rows():
            batches.setdefault(machine_id, {}).setdefault(key, []).append(tuple(row))
    return {machine_id: orjson.dumps(batch) for machine_id, batch in batches.items()}


def _pack(levels: Mapping[str, Level]) -> bytes:
    return orjson.dumps({channel: list(level) for channel, level in levels.items()})


def _unpack(blob: bytes) -> dict[str, Level]:
    return {channel: Level(*level) for channel, level in orjson.loads(blob).items()}
