"""Real API, real Kafka, real lake writer, killed under load: the audit log has each answer once.

The short form is in the normal suite; `make test-faults` kills 50 times and keeps the broker away
for longer than clients are patient.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import pytest

from aegisops import audit_log, bus, names
from aegisops.cli import runs
from aegisops.embedded.kafka_server import KafkaServer
from aegisops.embedded.ports import LOOPBACK, free_port
from aegisops.lake import Lake
from aegisops.names import PREDICTIONS_TOPIC
from aegisops.schemas.tables import PREDICTIONS
from aegisops.settings import KafkaSettings, RegistrySettings, Settings
from aegisops.tokens import mint
from streaming.identity import incarnations
from streaming.offsets import settled
from tests.serving.conftest import SOUND, WORN, Fleet

log = logging.getLogger(__name__)

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1_800)]

MACHINES = [f"m{i}" for i in range(24)]
CLIENTS = 3
PATIENCE = 120.0
SHORT_OUTAGE = 3.0


@pytest.fixture
def settings(settings: Settings, real_kafka: KafkaSettings, schema_registry: str) -> Settings:
    api = settings.api.model_copy(update={"port": free_port(), "rate_per_second": 1e6})
    stream = settings.stream.model_copy(update={"lake_metrics_port": 0, "lake_commit_seconds": 0.3})
    registry = RegistrySettings(url=schema_registry)
    return settings.model_copy(
        update={"kafka": real_kafka, "registry": registry, "api": api, "stream": stream}
    )


@dataclass
class Callers:
    """Clients that ask without pause and remember what they were answered."""

    settings: Settings
    answered: set[str] = field(default_factory=set)
    refused: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, number: int) -> None:
        dice = random.Random(number)
        headers = {"Authorization": f"Bearer {mint(self.settings, f'caller-{number}', 'operator')}"}
        base = f"http://{LOOPBACK}:{self.settings.api.port}/api/v1"
        with httpx.Client(base_url=base, headers=headers, timeout=20) as client:
            while not self._stop.is_set():
                try:
                    if dice.random() < 0.1:
                        asked = {"machine_ids": dice.sample(MACHINES, 5)}
                        answer = client.post("/predict/batch", json=asked)
                        given = answer.json() if answer.is_success else []
                    else:
                        answer = client.post("/predict", json={"machine_id": dice.choice(MACHINES)})
                        given = [answer.json()] if answer.is_success else []
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                self.answered |= {one["prediction_id"] for one in given if "prediction_id" in one}
                self.refused += not answer.is_success


class Programs:
    """The API and the lake writer as processes."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, module: str) -> None:
        with self._log(module).open("ab") as output:
            self._running[module] = subprocess.Popen(
                [sys.executable, "-m", module],
                env=os.environ | runs.as_environment(self.settings),
                stdout=output,
                stderr=output,
            )

    def end(self, module: str, how: signal.Signals) -> None:
        process = self._running.pop(module)
        process.send_signal(how)
        process.wait(30)

    def restart_ended(self) -> None:
        """What a supervisor does: the lake writer ends itself when Kafka is away for long."""
        for module, process in list(self._running.items()):
            if process.poll() is not None:
                self.start(module)

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.restart_ended()
            if time.monotonic() > deadline:
                tails = [self._log(m).read_text(errors="replace")[-2_000:] for m in self._running]
                pytest.fail(f"not within {PATIENCE} s: {what}\n" + "\n".join(tails))
            time.sleep(0.05)

    def api_is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            url = f"http://{LOOPBACK}:{self.settings.api.port}/readyz"
            return httpx.get(url).status_code == 200
        return False

    def logs(self) -> str:
        return "".join(p.read_text(errors="replace") for p in self._folder.glob("*.log"))

    def _log(self, module: str) -> Path:
        return self._folder / f"{module}.log"

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait(20)


@pytest.fixture
def programs(settings: Settings, tmp_path: Path) -> Iterator[Programs]:
    made = Programs(settings, tmp_path)
    yield made
    made.close()


def outbox_of(settings: Settings) -> sqlite3.Connection:
    (path,) = (settings.data_dir / "outbox").glob("*.db")
    return sqlite3.connect(path, isolation_level=None, timeout=30)


def waiting(settings: Settings) -> int:
    with contextlib.closing(outbox_of(settings)) as db:
        return int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])


def in_kafka(settings: Settings) -> int:
    """Audit messages in the topic, those sent twice included."""
    return sum(high for _, high in bus.watermarks(settings.kafka, PREDICTIONS_TOPIC).values())


def kill_before_it_deletes(settings: Settings, programs: Programs, *, surely: bool) -> None:
    """What Kafka takes while the file is locked is delivered, and the API cannot delete it.

    With `surely` Kafka must have such a record; nothing may have been sent twice before.
    """
    with contextlib.closing(outbox_of(settings)) as db:
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, "nothing was delivered and not deleted"
            time.sleep(0.05)
            db.execute("BEGIN IMMEDIATE")
            time.sleep(0.2)
            (kept,) = db.execute("SELECT count(*) FROM outbox").fetchone()
            (chain,) = db.execute("SELECT value FROM state WHERE name = 'audit_chain'").fetchone()
            deleted = json.loads(chain)["next"] - kept
            if not surely or in_kafka(settings) > deleted:
                break
            db.execute("ROLLBACK")
        programs.end("serving", signal.SIGKILL)
        db.execute("ROLLBACK")


def break_the_broker(kafka_server: KafkaServer, programs: Programs, seconds: float) -> None:
    """The API dies meanwhile, too: what it answered then waits in its outbox."""
    kafka_server.kill()
    try:
        time.sleep(seconds)
        programs.end("serving", signal.SIGKILL)
        programs.start("serving")
    finally:
        kafka_server.start()


def drained(settings: Settings, programs: Programs, lake: Lake) -> int:
    """Audit messages in Kafka, those sent twice included, when the lake writer has passed all."""
    programs.until("an empty outbox", lambda: waiting(settings) == 0)
    sent = in_kafka(settings)
    partitions = [(PREDICTIONS_TOPIC, p) for p in range(names.PARTITIONS)]
    known = incarnations(settings.kafka, names.TOPICS)
    programs.until(
        "all of Kafka in the lake",
        lambda: sum(o + 1 for o in settled(lake, known, partitions).values()) == sent,
    )
    return sent


def test_each_answer_is_in_the_audit_log_once_whatever_is_killed_under_load(
    settings: Settings,
    promoted: Path,
    fleet: Fleet,
    programs: Programs,
    kafka_server: KafkaServer,
    request: pytest.FixtureRequest,
) -> None:
    kills, outage = (
        max(2, request.config.getoption("--kills") - 1),
        request.config.getoption("--outage"),
    )
    dice = random.Random(5)
    lake = Lake(settings.lake_root)
    programs.start("serving")
    programs.start("streaming.lake_writer")
    programs.until("the API is ready", programs.api_is_ready)
    broker_kills = writer_kills = 0
    began = time.monotonic()
    with Callers(settings) as callers:
        for n in range(kills):
            for i, machine in enumerate(MACHINES):
                fleet.add(machine, WORN if i % 2 else SOUND)
            before = len(callers.answered)
            programs.until("answers", lambda b=before: len(callers.answered) > b + 20)  # type: ignore[misc]
            if n % 10 == 1:
                broker_kills += 1
                break_the_broker(kafka_server, programs, outage if n == 1 else SHORT_OUTAGE)
            elif n % 2:
                time.sleep(dice.uniform(0.0, 0.5))
                programs.end("serving", signal.SIGKILL)
                programs.start("serving")
            else:
                kill_before_it_deletes(settings, programs, surely=n == 0)
                programs.start("serving")
            if n % 5 == 3:
                writer_kills += 1
                programs.end("streaming.lake_writer", signal.SIGKILL)
                programs.start("streaming.lake_writer")
            programs.until("the API is ready again", programs.api_is_ready)
    sent = drained(settings, programs, lake)
    rows = lake.scan(PREDICTIONS).collect()
    ids = set(rows["prediction_id"])
    figures = {
        "api_kills": kills,
        "broker_kills": broker_kills,
        "lake_writer_kills": writer_kills,
        "seconds": round(time.monotonic() - began),
        "answered": len(callers.answered),
        "refused": callers.refused,
        "messages_in_kafka": sent,
        "sent_twice": sent - rows.height,
        "rows": rows.height,
        "distinct_ids": len(ids),
        "answered_without_a_row": len(callers.answered - ids),
    }
    log.info("%s", json.dumps(figures))

    assert figures["answered_without_a_row"] == 0
    assert rows.height == len(ids)
    assert figures["sent_twice"] > 0, "the test has not tested what it should"
    # Numbers 0 to n - 1, each once: no record is missing, answered or not.
    heads, faults = audit_log.check(lake)
    assert faults == []
    assert [(head.records, head.repeats) for head in heads] == [(rows.height, 0)]
    verified = subprocess.run(
        [sys.executable, "-m", "aegisops.cli", "audit", "verify"],
        env=os.environ | runs.as_environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    everything = programs.logs() + rows.drop("vector").write_json()
    assert "eyJ" not in everything, "a token is in a log"
