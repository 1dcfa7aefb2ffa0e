"""Kafka messages into the current feature vectors in Redis, each offset applied once.

The worker's memory is Redis itself: a flush writes a partition's changed tiles, its feature
vectors and the positions they rest on in one step, and an assignment starts reading right behind
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

import polars as pl

from aegisops.errors import Conflict, ServiceUnavailable
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.online_store import FeatureVector
from aegisops.quality import Judged, Limits, judge_events, judge_readings
from aegisops.worker_store import PartitionUpdate, Position, WorkerStore
from streaming import live
from streaming.buffers import Taken, TopicPartition
from streaming.decoding import Decode, decode
from streaming.feature_metrics import FeatureMetrics
from streaming.fleet import Fleet
from streaming.sink import BufferedSink
from streaming.values import reading_values
from streaming.worker_memory import History, Memory

log = logging.getLogger(__name__)

TOPICS = (READINGS_TOPIC, EVENTS_TOPIC)
_US_PER_SECOND = 1_000_000


class FeatureSink(BufferedSink):
    """Keeps `feat:`, `tiles:`, `raw:` and `fpos:` of the owned partitions current.

    A flush raises `Conflict` when a stored position is not ours: another worker owns the partition,
    or Redis was emptied. The process must then end; its restart begins from the stored positions.
    """

    retry_seconds = 2.0
    ends_at = (Conflict,)

    def __init__(
        self,
        store: WorkerStore,
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
        self._memory = Memory(fleet, history)
        self._partition_of = partition_of
        self._metrics: FeatureMetrics = metrics
        self._clock = clock
        self._positions: dict[TopicPartition, Position] = {}
        self._mirrored = -1

    def postponed(self) -> None:
        """Drop the memory: what the engines took in but Redis did not must be taken in again."""
        self._memory.forget()

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
        self._memory.load_from_lake([m for machines in homes.values() for m in machines], settled)
        for number, machines in homes.items():
            mine = [p for p in partitions if p[1] == number]
            self._store.write(
                self._update(
                    [m for m in machines if m in self._memory.unsaved],
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
        wanted = self._memory.unknown(machine_ids)
        if not wanted:
            return
        stored = self._store.states(wanted)
        absent = [m for m, parts in stored.items() if not parts]
        for machine_id, parts in stored.items():
            if parts:
                self._memory.restore(machine_id, parts)
        if absent:
            offsets = {p: position.offset for p, position in self._positions.items()}
            self._never_seen(absent, offsets)
            self._memory.load_from_lake(absent, offsets)

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
        changed, late = self._memory.apply(values, events)
        by_home: dict[int, list[str]] = {number: [] for _, number in taken}
        for machine_id in sorted(changed):
            by_home[homes[machine_id]].append(machine_id)
        raw = live.raw_batches(judged)
        raw_by_home: dict[int, dict[str, bytes]] = {number: {} for number in by_home}
        for machine_id, batch in raw.items():
            raw_by_home[homes[machine_id]][machine_id] = batch
        features: list[FeatureVector] = []
        columns: dict[str, Sequence[str]] = {}
        for number in sorted(by_home):
            positions = {
                p: Position(self._incarnations[p[0]], messages.last)
                for p, messages in taken.items()
                if p[1] == number
            }
            update = self._update(
                by_home[number],
                positions,
                {p: self._positions[p] for p in positions},
                raw=raw_by_home[number],
            )
            self._store.write(update)
            self._positions.update(positions)
            features += update.features
            columns |= update.feature_names
        self._metrics.values.inc(values.height + events.height)
        self._metrics.late.inc(late)
        self._metrics.vectors.inc(len(features))
        self._metrics.saw(max((f.ts for f in features), default=None))
        self._publish(features, columns)

    def _judge(self, taken: Taken) -> tuple[Judged, pl.DataFrame, dict[str, int]]:
        """Judged readings, good events and each sender's partition; their memory is loaded."""
        now_us = round(self._clock() * _US_PER_SECOND)
        batches = {}
        for topic in TOPICS:
            parts = {p: messages for (t, p), messages in taken.items() if t == topic}
            batches[topic] = decode(topic, parts, self._decoder, now_us)
            for reason in batches[topic].failures["reason"]:
                self._metrics.rejected.labels(reason).inc()
        homes: dict[str, int] = {}
        for batch in batches.values():
            homes.update(batch.records.select("machine_id", "_partition").iter_rows())
        fleet = self._fleet.knowing(homes)
        self._mirror()
        self._load(sorted(homes))
        readings = batches[READINGS_TOPIC].records
        judged = judge_readings(readings, fleet, self._limits, self._memory.levels)
        self._memory.learn(judged.levels)
        events = judge_events(batches[EVENTS_TOPIC].records, fleet, self._limits)
        for rows in (judged.readings, events):
            for reason, count in rows["reason"].drop_nulls().value_counts().iter_rows():
                self._metrics.rejected.labels(reason).inc(count)
        return judged, events.filter(pl.col("reason").is_null()), homes

    def _update(
        self,
        machine_ids: Sequence[str],
        positions: Mapping[TopicPartition, Position],
        expected: Mapping[TopicPartition, Position | None],
        *,
        raw: Mapping[str, bytes] | None = None,
        forget: Sequence[str] = (),
    ) -> PartitionUpdate:
        changed = self._memory.take(machine_ids)
        return PartitionUpdate(
            positions=positions,
            expected=expected,
            states=changed.states,
            features=changed.features,
            feature_names=changed.feature_names,
            raw=raw or {},
            forget=forget,
        )

    def _publish(
        self, features: Sequence[FeatureVector], columns: Mapping[str, Sequence[str]]
    ) -> None:
        """Tell whoever watches; one message per flush. Nobody depends on it, so it may fail."""
        if not features:
            return
        at_us = round(self._clock() * _US_PER_SECOND)
        try:
            self._store.publish(live.message(at_us, features, columns))
        except ServiceUnavailable as error:
            log.warning("live telemetry not sent: %s", error)
