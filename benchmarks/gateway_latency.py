"""Claim: event at the gateway → changed answer of /predict, p50 < 0.5 s, p99 < 1 s, 1,000 machines.

The whole chain, everything real and on this computer: a device publishes over MQTT (mosquitto) →
gateway with its spool → Kafka → feature worker → Redis → API with a signed model of the product's
largest size. 1,000 machines send four channels once a second each; one of them is asked, over
and over, until the answer rests on the event. The lake writer runs beside it.

python benchmarks/gateway_latency.py [probes]
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from aegisops.cli.api import Api
from aegisops.cli.stack import child_environment
from aegisops.embedded import ports
from aegisops.embedded.processes import Child
from aegisops.errors import AegisError
from benchmarks import kafka_stack
from benchmarks.harness import stack as harness

MACHINES, PROBES = 1_000, 150
WARM_SECONDS = 15.0
BAR_P50, BAR_P99 = 0.5, 1.0
PROBE = "machine-00000"
PROBE_SECONDS = 5.0
CHANNELS = {"volt": (170, "V"), "rotate": (450, "rpm"), "pressure": (100, "psi"),
            "vibration": (40, "mm/s")}  # fmt: skip


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """Debian's broker on a free port."""
    port = ports.free_port()
    path = folder / "mosquitto.conf"
    path.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 2000\n"
        "max_queued_messages 0\n"
    )
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin") or sys.exit("no mosquitto")
    process = subprocess.Popen([program, "-c", path], stderr=subprocess.DEVNULL)
    while not ports.is_listening(port):
        time.sleep(0.05)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def mapping(port: int, machines: list[str]) -> str:
    lines = [
        'gateway = "bench"', "[[mqtt]]", 'name = "broker"', 'host = "127.0.0.1"', f"port = {port}",
        "tls = false", "receive_maximum = 2000", 'payload = { time_format = "unix_us" }',
        "[[mqtt.machines]]", 'class = "azure_pdm"', f"ids = {orjson.dumps(machines).decode()}",
        "[mqtt.machines.channels]",
    ]  # fmt: skip
    lines += [
        f'{name} = {{ topic = "plant/{{machine}}", field = "{name}", unit = "{unit}" }}'
        for name, (_, unit) in CHANNELS.items()
    ]
    return "\n".join(lines)


class Fleet:
    """Every machine but the probe sends once a second, spread over the second."""

    def __init__(self, port: int, machines: list[str]) -> None:
        self._machines = machines
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.late = 0
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.max_inflight_messages_set(2_000)
        self.client.max_queued_messages_set(0)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def publish(self, machine: str, ts: int) -> None:
        """One message with all channels."""
        body: dict[str, Any] = {n: v + random.gauss(0, 1) for n, (v, _) in CHANNELS.items()}
        body["timestamp"] = ts
        with self._lock:
            self.client.publish(f"plant/{machine}", orjson.dumps(body), qos=1)

    def _send(self) -> None:
        begun, sent = time.perf_counter(), 0
        others = [m for m in self._machines if m != PROBE]
        while not self._stop.is_set():
            due = int((time.perf_counter() - begun) * len(others))
            if due - sent > 2 * len(others):
                self.late, sent = self.late + 1, due
            for n in range(sent, due):
                self.publish(others[n % len(others)], time.time_ns() // 1_000)
            sent = due
            time.sleep(0.005)

    def close(self) -> None:
        """Send no more."""
        self._stop.set()
        self._thread.join()
        self.client.disconnect()
        self.client.loop_stop()


def probe(fleet: Fleet, api: Api) -> tuple[float, str]:
    """Seconds from an event's publication to the first answer that rests on it; the rung."""
    ts = time.time_ns() // 1_000_000 * 1_000  # answers show whole milliseconds
    begun = time.perf_counter()
    fleet.publish(PROBE, ts)
    while time.perf_counter() - begun < PROBE_SECONDS:
        try:
            answer = api.post("/predict", {"machine_id": PROBE})
        except AegisError:
            answer = {}
        if answer.get("features_at") and micros(answer["features_at"]) >= ts:
            return time.perf_counter() - begun, str(answer["served_by"])
        time.sleep(0.004)
    return PROBE_SECONDS, "none"


def micros(moment: str | int) -> int:
    """µs since 1970."""
    if isinstance(moment, int):
        return moment
    return round(datetime.fromisoformat(moment).timestamp() * 1e6)


def main(probes: int) -> None:
    about = kafka_stack.machine()
    machines = [f"machine-{i:05}" for i in range(MACHINES)]
    with (
        tempfile.TemporaryDirectory() as name,
        kafka_stack.running(Path(name), redis=True) as stack,
        mosquitto(Path(name)) as port,
    ):
        settings = stack.settings
        stack.register(machines, "azure_pdm")
        harness.model(settings, "1", "production", seed=0)
        stack.start("lake_writer")
        stack.start("feature_worker")
        path = Path(name) / "mapping.toml"
        path.write_text(mapping(port, machines))
        health = ports.free_port()
        settings = settings.model_copy(
            update={
                "api": settings.api.model_copy(update={"port": ports.free_port()}),
                "gateway": settings.gateway.model_copy(
                    update={"mapping": path, "metrics_port": health}
                ),
            }
        )
        env = child_environment(settings)
        ready = f"http://127.0.0.1:{settings.api.port}/readyz"
        for app, module, url in (
            ("gateway", "streaming.gateway", f"http://127.0.0.1:{health}/readyz"),
            ("api", "serving", ready),
        ):
            command = [sys.executable, "-m", module]
            stack.processes.start(Child(app, command, env, kafka_stack.answers(url)))
            stack.processes.wait_ready(app, 90)
        fleet = Fleet(port, machines)
        try:
            for _ in range(30):  # the class wants a day's 24 before it answers
                fleet.publish(PROBE, time.time_ns() // 1_000)
            time.sleep(WARM_SECONDS)
            apps = {n: psutil.Process(p) for n, p in stack.processes.pids().items()}
            used = {n: kafka_stack.cpu_seconds(p) for n, p in apps.items()}
            begun = time.perf_counter()
            taken: list[float] = []
            rungs = set()
            with Api(settings) as api:
                for _ in range(probes):
                    seconds, rung = probe(fleet, api)
                    taken.append(seconds)
                    rungs.add(rung)
                    time.sleep(random.uniform(0.1, 0.6))
            span = time.perf_counter() - begun
            cores = {
                n: round((kafka_stack.cpu_seconds(p) - used[n]) / span, 2) for n, p in apps.items()
            }
            told = kafka_stack.metrics(f"http://127.0.0.1:{health}/metrics")
        finally:
            fleet.close()
    taken.sort()
    p50, p99 = statistics.median(taken), taken[min(int(len(taken) * 0.99), len(taken) - 1)]
    kafka_stack.report(
        {
            "machines": MACHINES,
            "values_per_second": MACHINES * len(CHANNELS),
            "probes": probes,
            "p50_seconds": round(p50, 3),
            "p99_seconds": round(p99, 3),
            "worst_seconds": round(taken[-1], 3),
            "rungs": sorted(rungs),
            "cores_used": cores,
            "commits_to_the_spool_ms": round(
                1e3
                * told["aegis_gateway_commit_seconds_sum"]
                / told["aegis_gateway_commit_seconds_count"],
                2,
            ),
            "fleet_was_late": fleet.late,
            **about,
            "met": p50 < BAR_P50 and p99 < BAR_P99 and rungs == {"production"},
        }
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PROBES)
