"""Claim: one feature worker on one core keeps 10,000 machines × 4 channels at 1 Hz current.

Real Kafka and Redis. One message per machine and second, spread over the second, stamped when it is
sent. For `--seconds` (300) the lag must not grow (its mean over the last third is at most twice
that of the first third plus one second of messages); from a reading's time to its vector in Redis
p99 < 1 s, asked of 200 machines; ≤ 1.5 GB. The worker is pinned to core 0; Kafka, Redis and this
script share the other.
    python benchmarks/feature_worker.py [SECONDS] [MACHINES]
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import redis
from kafka_stack import SECOND, KafkaStack, cpu_seconds, machine, report, running

from aegisops import names
from aegisops.errors import Retryable
from aegisops.worker_store import WorkerStore

CHANNELS = ("vibration", "temperature", "power", "pressure")
WATCHED, TICKS = 200, 20
BAR_P99, BAR_GB = 1.0, 1.5
CLASS = """
name = "spindle_1hz"
title = "Spindle"
horizon = "24h"
step = "10m"
stale_after = "1h"
[windows]
5m = "10s"
1h = "60s"
[statistics]
vibration = ["rms_5m", "rms_1h", "kurtosis_1h"]
temperature = ["mean_1h", "rate_of_change_1h"]
power = ["deviation_1h"]
pressure = ["mean_5m"]
[failure_modes.wear]
title = "Wear"
action = "Inspect."
""" + "".join(
    f'[channels.{name}]\nunit = "1"\nperiod = "1s"\nlimits = [-1e9, 1e9]\nbaseline = 1\n'
    for name in CHANNELS
)


def produce(stack: KafkaStack, machines: list[str], seconds: int) -> None:
    """Every machine once a second, a twentieth of them each 50 ms."""
    started = time.time()
    for tick in range(seconds * TICKS):
        time.sleep(max(0.0, started + tick / TICKS - time.time()))
        now, value = time.time_ns() // 1_000, [tick % 7 + 0.5]
        for name in machines[tick % TICKS :: TICKS]:
            blocks = [
                {"channel": c, "start_us": now, "period_us": None, "quality": 0, "values": value}
                for c in CHANNELS
            ]
            payload = stack.reading(name, tick, blocks)
            while True:
                try:
                    stack.producer.publish(names.READINGS_TOPIC, *payload)
                    break
                except Retryable:
                    stack.producer.poll(0.01)
        stack.producer.poll()


def watch(
    store: WorkerStore, machines: list[str], stop: threading.Event, ages: list[float]
) -> None:
    """Age of each vector that is new, when it is first seen; asked 20 times a second."""
    seen: dict[str, int] = {}
    while not stop.wait(0.05):
        now = time.time()
        for name, vector in store.features_of(machines).items():
            if seen.get(name) != vector.ts:
                if name in seen:
                    ages.append(now - vector.ts / SECOND)
                seen[name] = vector.ts


def main(seconds: int = 300, count: int = 10_000) -> None:
    result: dict = {"machine": machine(), "machines": count, "seconds": seconds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "classes").mkdir()
        (folder / "classes" / "spindle_1hz.toml").write_text(CLASS)
        with running(folder, redis=True, classes_dir=folder / "classes") as stack:
            others = sorted(os.sched_getaffinity(0) - {0})
            if others:
                for pid in (os.getpid(), *stack.processes.pids().values()):
                    os.sched_setaffinity(pid, others)
            machines = [f"m-{i:05d}" for i in range(count)]
            stack.register(machines, "spindle_1hz")
            worker = stack.start("feature_worker", cores=[0])
            store = WorkerStore(redis.Redis.from_url(stack.settings.redis.url, protocol=2))
            ages: list[float] = []
            lags: list[float] = []
            stop = threading.Event()
            every = max(1, count // WATCHED)
            threads = [
                threading.Thread(target=produce, args=(stack, machines, seconds)),
                threading.Thread(target=watch, args=(store, machines[::every], stop, ages)),
            ]
            cpu, started = cpu_seconds(worker), time.perf_counter()
            for thread in threads:
                thread.start()
            while threads[0].is_alive():
                time.sleep(2)
                places = [(names.READINGS_TOPIC, p) for p in range(names.PARTITIONS)]
                applied = sum(at.offset + 1 for at in store.positions(places).values())
                lags.append(sum(stack.ends().values()) - applied)
            took = time.perf_counter() - started
            cpu = cpu_seconds(worker) - cpu
            stop.set()
            threads[1].join()
            memory = worker.memory_info().rss / 1e9
    third = max(1, len(lags) // 3)
    first, last = np.mean(lags[:third]), np.mean(lags[-third:])
    settled = ages[len(ages) // 10 :]  # the first seconds make 10,000 machines at once
    result |= {
        "values_per_second": round(count * len(CHANNELS) * seconds / took),
        "worker_cpu_seconds_per_second": round(cpu / took, 3),
        "lag_first_third": round(first),
        "lag_last_third": round(last),
        "event_to_redis_seconds": {
            f"p{q}": round(float(np.percentile(settled, q)), 3) for q in (50, 95, 99)
        },
        "worker_gb": round(memory, 2),
    }
    result["met"] = bool(
        last <= 2 * first + count
        and result["event_to_redis_seconds"]["p99"] < BAR_P99
        and memory <= BAR_GB
        and took <= seconds * 1.05
    )
    report(result)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
