"""Claim: a flush costs the same from 10 to 1,000 commits and from 1× to 16× the data, within 20 %.

The lake writer's own sink, without Kafka: flushes of 2,000 messages of 16 readings, one commit
each, into one table that grows from 1× to 16× and 100× (commits 60, 240 and 960 are 1×, 4×, 16×).
Maintenance is on: compaction every 50 commits, as the scheduled job does it every few minutes;
outside the timed part. Around each mark the median of 21 flushes; processor time is compared, since
a flush is shorter than what a shared box takes away from it now and then.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial

from kafka_stack import SECOND, machine, report

from aegisops import names
from aegisops.lake import Lake
from aegisops.machines import MachineClass, load_class
from aegisops.quality import Limits
from aegisops.schemas import avro
from aegisops.schemas.tables import READINGS
from streaming.fleet import Fleet
from streaming.lake_metrics import LakeMetrics
from streaming.lake_sink import LakeSink
from streaming.partitioner import partition_of

MARKS = (12, 60, 100, 240, 960, 1_000)
AROUND, COMPACT_EVERY = 10, 50
MESSAGES, BLOCKS, VALUES, MACHINES = 2_000, 2, 8, 200
BAR = 0.2


class OneClass(Fleet):
    """A fleet that is known without a table."""

    def __init__(self, lake: Lake, machine_class: MachineClass) -> None:
        super().__init__(lake, {})
        self.classes = {f"m-{i:03d}": machine_class for i in range(MACHINES)}

    def reload(self) -> None:
        """Nothing changes."""


def payload(i: int, now: int) -> tuple[int, bytes]:
    """(partition, frame) of one message; every commit has the same."""
    name = f"m-{i % MACHINES:03d}"
    blocks = [
        {
            "channel": channel,
            "start_us": now - 3_600 * SECOND + i * 1_000,
            "period_us": 1_000,
            "quality": 0,
            "values": [level + (i + k) % 7 / 8 for k in range(VALUES)],
        }
        for channel, level in (("temperature", 40.0), ("power", 8.0))[:BLOCKS]
    ]
    record = {"machine_id": name, "seq": i, "sent_at": 0, "blocks": blocks}
    frame = avro.encode(names.READINGS_TOPIC, record, 1)
    return partition_of(name, names.PARTITIONS), frame


def main() -> None:
    topic = names.READINGS_TOPIC
    now = time.time_ns() // 1_000
    offsets = dict.fromkeys(range(names.PARTITIONS), 0)
    took: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        sink = LakeSink(
            lake,
            fleet=OneClass(lake, load_class("cnc_spindle")),
            decoder=partial(avro.decode_many, writer_schema=lambda _: avro.contract(topic).text),
            limits=Limits(300 * SECOND, 3_650 * 86_400 * SECOND),
            incarnations=dict.fromkeys(names.TOPICS, "c"),
            metrics=LakeMetrics(),
        )
        made = [payload(i, now) for i in range(MESSAGES)]
        for commit in range(1, MARKS[-1] + AROUND + 1):
            for home, value in made:
                sink.extend((topic, home), [offsets[home]], [now // 1_000], [value])
                offsets[home] += 1
            cpu, wall = time.process_time(), time.perf_counter()
            sink.flush()
            took[commit] = time.process_time() - cpu, time.perf_counter() - wall
            if commit % COMPACT_EVERY == 0:
                lake.compact(READINGS)
        actions = lake.open(READINGS).get_add_actions(flatten=True)
        rows = int(sum(actions.column("num_records").to_pylist()))
    readings = MESSAGES * BLOCKS * VALUES

    def rate(mark: int, which: int) -> float:
        around = [took[c][which] for c in range(mark - AROUND, mark + AROUND + 1) if c in took]
        return readings / statistics.median(around)

    per_cpu = {mark: rate(mark, 0) for mark in MARKS}
    change = {mark: per_cpu[mark] / per_cpu[MARKS[0]] - 1 for mark in MARKS}
    report(
        {
            "machine": machine(),
            "rows": rows,
            "readings_per_cpu_second": {m: round(r) for m, r in per_cpu.items()},
            "readings_per_second": {m: round(rate(m, 1)) for m in MARKS},
            "change_since_the_first": {m: round(c, 3) for m, c in change.items()},
            "met": rows == readings * (MARKS[-1] + AROUND)
            and all(c >= -BAR for c in change.values()),
        }
    )


if __name__ == "__main__":
    main()
