"""Real Kafka, the schema registry and, if asked, Redis around one stream application under test."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
import polars as pl
import psutil

from aegisops import bus, names
from aegisops.bus import Producer
from aegisops.embedded import ports, redis_server
from aegisops.embedded.kafka_server import KafkaServer
from aegisops.embedded.processes import Child, Processes
from aegisops.errors import Retryable
from aegisops.importers import register
from aegisops.lake import Lake
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.schemas.tables import Table
from aegisops.settings import RedisSettings, RegistrySettings, Settings, StreamSettings

SECOND = 1_000_000
Payload = tuple[str, bytes]
"""(machine id = key, Confluent frame)."""


class KafkaStack:
    """Services, an empty lake with a registered fleet, and what a script asks of them."""

    def __init__(self, settings: Settings, processes: Processes) -> None:
        self.settings = settings
        self.processes = processes
        self.lake = Lake(settings.lake_root)
        bus.ensure_topics(settings.kafka)
        registry = SchemaRegistry(settings)
        self.ids = {
            topic: registry.register(names.subject(topic), avro.contract(topic).text)
            for topic in names.TOPICS
        }
        registry.close()
        self.producer = Producer(settings.kafka)

    def register(self, machines: Sequence[str], machine_class: str = "cnc_spindle") -> None:
        """Make the fleet."""
        fixed = {"machine_class": machine_class, "site": "s", "area": "a", "attributes": "{}"}
        fleet = pl.DataFrame({"machine_id": machines}).with_columns(
            **{name: pl.lit(value) for name, value in fixed.items()}
        )
        register(self.lake, fleet, time.time_ns() // 1_000)

    def reading(self, machine: str, seq: int, blocks: list[dict[str, Any]]) -> Payload:
        """One encoded reading message."""
        record = {"machine_id": machine, "seq": seq, "sent_at": 0, "blocks": blocks}
        return machine, avro.encode(names.READINGS_TOPIC, record, self.ids[names.READINGS_TOPIC])

    def send(self, payloads: Sequence[Payload], topic: str = names.READINGS_TOPIC) -> None:
        """Returns when Kafka has acknowledged all."""
        for machine, frame in payloads:
            while True:
                try:
                    self.producer.publish(topic, machine, frame)
                    break
                except Retryable:
                    self.producer.poll(0.05)
        self.producer.flush(60)

    def start(self, app: str, cores: Sequence[int] = (), **stream: Any) -> psutil.Process:
        """Start an application and wait until it is ready."""
        port = ports.free_port()
        env = {
            "AEGIS_DATA_DIR": str(self.settings.data_dir),
            "AEGIS_KAFKA__BOOTSTRAP": self.settings.kafka.bootstrap,
            "AEGIS_KAFKA__IN_MEMORY": "false",
            "AEGIS_REDIS__URL": self.settings.redis.url,
            "AEGIS_REGISTRY__URL": self.settings.registry.url,
            "AEGIS_STREAM__LAKE_METRICS_PORT": str(port),
            "AEGIS_STREAM__FEATURE_METRICS_PORT": str(port),
            **{f"AEGIS_STREAM__{name.upper()}": str(value) for name, value in stream.items()},
        }
        if self.settings.classes_dir is not None:
            env["AEGIS_CLASSES_DIR"] = str(self.settings.classes_dir)
        pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
        command = [*pinned, sys.executable, "-m", f"streaming.{app}"]
        self.processes.start(Child(app, command, env, answers(f"http://127.0.0.1:{port}/readyz")))
        self.processes.wait_ready(app, 90)
        return psutil.Process(self.processes.pids()[app])

    def ends(self, topic: str = names.READINGS_TOPIC) -> dict[int, int]:
        """Partition → messages ever sent."""
        return {p: high for p, (_, high) in bus.watermarks(self.settings.kafka, topic).items()}

    def rows(self, table: Table) -> int:
        """Rows by the log's own counts, which cost no scan."""
        if not self.lake.exists(table):
            return 0
        actions = self.lake.open(table).get_add_actions(flatten=True)
        return int(sum(actions.column("num_records").to_pylist()))


@contextmanager
def running(
    folder: Path, *, redis: bool = False, heap_mb: int = 512, **changes: Any
) -> Iterator[KafkaStack]:
    """A stack in a folder; stopped at the end."""
    cache = Path(__file__).resolve().parents[1] / ".aegis" / "kafka"
    registry, redis_port = ports.free_port(), ports.free_port()
    with (
        KafkaServer(folder / "kafka", cache_dir=cache, heap_mb=heap_mb) as kafka,
        Processes(folder / "logs") as processes,
    ):
        url = f"http://127.0.0.1:{registry}"
        settings = Settings(
            data_dir=folder / "data",
            kafka=kafka.settings,
            registry=RegistrySettings(url=url),
            redis=RedisSettings(url=redis_server.url(redis_port)),
            stream=StreamSettings(),
            **changes,
        )
        env = {"AEGIS_DATA_DIR": str(settings.data_dir), "AEGIS_REGISTRY__URL": url}
        command = [sys.executable, "-m", "aegisops.embedded.schema_registry"]
        processes.start(Child("registry", command, env, answers(f"{url}/subjects")))
        if redis:
            processes.start(
                Child(
                    "redis",
                    redis_server.command(redis_port, "2gb"),
                    ready=lambda: redis_server.answers(redis_port),
                )
            )
            processes.wait_ready("redis")
        processes.wait_ready("registry")
        yield KafkaStack(settings, processes)


@contextmanager
def held(process: psutil.Process) -> Iterator[None]:
    """The process stands still inside."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def peak_mb(process: psutil.Process) -> int:
    """Largest resident memory the process ever had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line) // 1_000


def metrics(url: str) -> dict[str, float]:
    """Prometheus samples by name with labels."""
    with urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {k: float(v) for k, _, v in (line.rpartition(" ") for line in lines if line[0] != "#")}


def answers(url: str):
    """Whether a page is there, to be asked."""

    def ask() -> bool:
        try:
            with urlopen(url, timeout=1) as answer:
                return bool(answer.status < 400)
        except OSError:
            return False

    return ask


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
    }


def report(result: dict[str, Any]) -> None:
    """Print the one line and leave with 1 when the bar was missed."""
    print(orjson.dumps(result).decode())
    sys.exit(not result["met"])
