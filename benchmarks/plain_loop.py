"""The peer of kafka_to_delta.py: consume, fastavro, write_deltalake, commit. No exactly-once.

What one writes in an afternoon, and well: batches from the client library, one append a second,
ZSTD as in ours. Nothing is judged, compared or set aside.
    python benchmarks/plain_loop.py BOOTSTRAP TABLE START_OFFSETS(json) MESSAGES INTERVAL
"""

from __future__ import annotations

import io
import json
import sys
import time
from datetime import UTC, datetime

import fastavro
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from deltalake import WriterProperties, write_deltalake

from aegisops.names import READINGS_TOPIC
from aegisops.schemas import avro
from aegisops.schemas.tables import READINGS

COLUMNS = tuple(READINGS.columns)


def main(bootstrap: str, table: str, starts: dict[str, int], wanted: int, interval: float) -> None:
    options = {"bootstrap.servers": bootstrap, "group.id": "plain", "enable.auto.commit": False}
    consumer = Consumer(options)
    consumer.assign([TopicPartition(READINGS_TOPIC, int(p), o) for p, o in starts.items()])
    schema = avro.contract(READINGS_TOPIC).schema
    properties = WriterProperties(compression="ZSTD", compression_level=1)
    started, cpu = time.perf_counter(), time.process_time()
    seen = readings = 0
    while seen < wanted:
        rows: list[tuple] = []
        until = time.perf_counter() + interval
        while time.perf_counter() < until and seen < wanted:
            for message in consumer.consume(min(10_000, wanted - seen), 0.1):
                record = fastavro.schemaless_reader(io.BytesIO(message.value()[5:]), schema)
                seen += 1
                index = 0
                now = datetime.now(UTC)
                for block in record["blocks"]:
                    period = block["period_us"] or 0
                    for i, value in enumerate(block["values"]):
                        ts = block["start_us"] + i * period
                        rows.append(
                            (
                                record["machine_id"],
                                block["channel"],
                                ts,
                                value,
                                block["quality"],
                                record["seq"],
                                ts // 86_400_000_000,
                                READINGS_TOPIC,
                                message.partition(),
                                message.offset(),
                                index,
                                now,
                            )
                        )
                        index += 1
        if rows:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), READINGS.schema, strict=True)
            ]
            data = pa.table(columns, schema=READINGS.schema)
            write_deltalake(
                table, data, mode="append", partition_by=["date"], writer_properties=properties
            )
            consumer.commit(asynchronous=False)
            readings += len(rows)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - cpu,
                "readings": readings,
            }
        )
    )
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:3], json.loads(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
