"""Claim: one lake writer process takes ≥ 400,000 readings a second from Kafka into Delta.

In-memory broker, registry and lake writer as the quick start runs them; messages of 2 blocks × 8
values from 240 machines, encoded beforehand. Timed from the first message to the last row visible
in Delta; broker and producer share the two cores. Ends when every reading is there exactly once.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from aegisops.bus import Producer
from aegisops.cli.stack import Stack
from aegisops.errors import Retryable
from aegisops.importers import register
from aegisops.lake import Lake
from aegisops.names import READINGS_TOPIC, subject
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.schemas.tables import READINGS
from aegisops.settings import Settings, StreamSettings

MACHINES, MESSAGES, BLOCKS, VALUES = 240, 96_000, 2, 8
BAR = 400_000
SECOND = 1_000_000


def payloads(schema_id: int, now: int) -> list[tuple[str, bytes]]:
    """(machine, frame) of every message, oldest first; about 180 bytes each."""
    made = []
    for i in range(MESSAGES):
        machine, seq = f"spindle-{i % MACHINES:03d}", i // MACHINES
        start = now - (MESSAGES // MACHINES - seq) * VALUES * SECOND
        blocks = [
            {
                "channel": channel,
                "start_us": start,
                "period_us": SECOND,
                "quality": 0,
                "values": [level + (seq + k) % 7 * 0.125 for k in range(VALUES)],
            }
            for channel, level in (("temperature", 40.0), ("power", 8.0))
        ]
        record = {"machine_id": machine, "seq": seq, "sent_at": now, "blocks": blocks}
        made.append((machine, avro.encode(READINGS_TOPIC, record, schema_id)))
    return made


def rows_in(lake: Lake) -> int:
    """Rows by the log's own counts, which cost no scan."""
    if not lake.exists(READINGS):
        return 0
    actions = lake.open(READINGS).get_add_actions(flatten=True)
    return int(sum(actions.column("num_records").to_pylist()))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        stream = StreamSettings(lake_commit_seconds=1.0, lake_metrics_port=0)
        with Stack(Settings(data_dir=Path(folder), stream=stream)) as stack:
            stack.start_services(redis=False)
            lake = Lake(stack.settings.lake_root)
            now = time.time_ns() // 1_000
            fleet = pl.DataFrame({"machine_id": [f"spindle-{i:03d}" for i in range(MACHINES)]})
            fixed = {"machine_class": "cnc_spindle", "site": "s", "area": "a", "attributes": "{}"}
            columns = {name: pl.lit(value) for name, value in fixed.items()}
            register(lake, fleet.with_columns(**columns), now)
            schema_id = SchemaRegistry(stack.settings).register(
                subject(READINGS_TOPIC), avro.contract(READINGS_TOPIC).text
            )
            messages = payloads(schema_id, now)
            stack.start_lake_writer()
            producer = Producer(stack.settings.kafka)
            producer.publish(READINGS_TOPIC, *messages[0])
            producer.flush()
            first = BLOCKS * VALUES
            while rows_in(lake) < first:  # the writer is up
                time.sleep(0.1)
            started = time.monotonic()
            for machine, frame in messages[1:]:
                while True:
                    try:
                        producer.publish(READINGS_TOPIC, machine, frame)
                        break
                    except Retryable:
                        producer.poll(0.05)
            producer.flush()
            produced = time.monotonic() - started
            total = MESSAGES * first
            while rows_in(lake) < total and time.monotonic() - started < 120:
                time.sleep(0.05)
            seconds = time.monotonic() - started
            place = ["_topic", "_partition", "_offset", "_index"]
            distinct = lake.scan(READINGS).select(place).unique().select(pl.len()).collect().item()
            rows = rows_in(lake)
    rate = (total - first) / seconds
    result = {
        "readings": total,
        "rows_in_delta": rows,
        "distinct_rows": distinct,
        "seconds": round(seconds, 2),
        "seconds_to_produce": round(produced, 2),
        "readings_per_second": round(rate),
        "messages_per_second": round(rate / first),
        "met": rate >= BAR and rows == distinct == total,
    }
    print(json.dumps(result))
    sys.exit(not result["met"])


if __name__ == "__main__":
    main()
