"""The engine as a process: real Redis, in-memory Kafka, Delta; killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from aegisops.alarms import journal, lifecycle
from aegisops.cli import runs
from aegisops.embedded.broker import InMemoryBroker
from aegisops.embedded.ports import free_port
from aegisops.lake import Lake
from aegisops.names import Transition
from aegisops.online_store import connect
from aegisops.schemas.tables import ALARM_JOURNAL
from aegisops.settings import KafkaSettings, RegistrySettings, Settings
from serving.alarm_journal import JournalReader
from tests.serving.conftest import WORN, Fleet

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def settings(settings: Settings, broker: InMemoryBroker, schema_registry: str) -> Settings:
    alarms = settings.alarms.model_copy(
        update={"port": free_port(), "evaluate_seconds": 0.1, "lead_seconds": 3.0}
    )
    stream = settings.stream.model_copy(update={"lake_metrics_port": 0, "lake_commit_seconds": 0.3})
    return settings.model_copy(
        update={
            "kafka": KafkaSettings(bootstrap=broker.bootstrap, cluster_id=broker.incarnation),
            "registry": RegistrySettings(url=schema_registry),
            "alarms": alarms,
            "stream": stream,
        }
    )


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    children: list[subprocess.Popen[bytes]] = []

    def begin(module: str) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"{module}.log").open("ab")
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", module],
                env=os.environ | runs.as_environment(settings),
                stdout=log,
                stderr=log,
            )
        )
        log.close()
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.wait(20)


def until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def is_ready(settings: Settings) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{settings.alarms.port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_alarms_reach_delta_once_and_states_survive_a_kill_and_an_emptied_redis(
    settings: Settings, fleet: Fleet, start: Callable[[str], subprocess.Popen[bytes]]
):
    for i in range(5):
        fleet.add(f"m-{i}", WORN)
    lake = Lake(settings.lake_root)
    start("streaming.lake_writer")
    engine = start("serving.alarm_engine")
    until(lambda: is_ready(settings))
    reader = JournalReader(lambda: lake, settings)

    def raised() -> set[str]:
        found = lake.scan(ALARM_JOURNAL).collect()
        return set(found.filter(found["transition"] == Transition.RAISED)["machine_id"])

    until(lambda: raised() >= {f"m-{i}" for i in range(5)})
    engine.kill()
    engine.wait(20)
    before = reader.states()
    client = connect(settings.redis)
    client.flushdb()
    for i in range(5):
        fleet.add(f"m-{i}", WORN)
    second = start("serving.alarm_engine")
    until(lambda: is_ready(settings))

    def restored() -> bool:
        return bool(client.exists("{alarms}:epoch"))

    until(restored)
    for alarm_id, alarm in before.items():
        stored = client.hget("{alarms}:states", alarm_id)
        assert lifecycle.load(stored.partition(b" ")[2]).occurrence == alarm.occurrence
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0
    assert not client.exists("{alarms}:engine")  # another one may lead at once
    client.close()
    rows = lake.scan(ALARM_JOURNAL).collect()
    assert rows["journal_id"].n_unique() == rows.height
    assert journal.replay(rows.to_dicts()).keys() == before.keys()
