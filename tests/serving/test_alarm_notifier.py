"""Notifications to a real HTTP server: refusals, outages, pauses, restarts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from aegisops.alarms import lifecycle
from aegisops.embedded.ports import free_port
from aegisops.errors import ConfigurationError
from aegisops.settings import AlarmSettings, Settings
from serving.alarm_engine import notifier as module
from serving.alarm_engine.metrics import EngineMetrics
from serving.alarm_engine.notifier import Notifier, Pager, routing_key
from serving.service import build
from tests.serving.conftest import Recorder
from tests.serving.test_alarms import Engine, engine, now_us, vibration

__all__ = ["engine"]

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

KEY = "R0UT1NG"


@dataclass
class Receiver:
    """A pager service; answers what it is told to answer, then 202."""

    port: int = 0
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    slow: float = 0.0
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/enqueue"

    def actions(self) -> list[str]:
        return [event["event_action"] for event in self.events]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if state.slow:
                time.sleep(state.slow)
            status, headers = state.answers.pop(0) if state.answers else (202, {})
            if status == 202:
                state.events.append(body)
            content = b'{"status":"x"}'
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client did not wait

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Clock:
    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def notify(
    settings: Settings, receiver: Receiver, engine: Engine, clock: Clock
) -> AsyncIterator[Any]:
    """Makes a notifier, as another process would."""
    service = build(settings, publisher=Recorder())
    client = httpx.AsyncClient(trust_env=False)

    def make(url: str = "") -> Notifier:
        return Notifier(
            Pager(url or receiver.url, KEY, client),
            engine.store,
            service.alarms,
            EngineMetrics(CollectorRegistry()),
            2,
            "engine-test",
            clock,
        )

    yield make
    await client.aclose()
    await service.stop()


async def failing(engine: Engine, clock: Clock) -> str | None:
    for signal in await engine.store.signals(clock()):
        if signal.name == "notification_failed" and signal.is_on:
            return signal.detail
    return None


def up(machine_id: str = "m-1") -> dict[str, lifecycle.Alarm]:
    alarm = lifecycle.raised(vibration(machine_id), now_us(), value=7.5, setpoint=6.0)
    return {alarm.alarm_id: alarm}


async def test_an_event_carries_what_somebody_on_call_needs(notify, receiver: Receiver):
    await notify().round(up())
    (event,) = receiver.events
    assert event["routing_key"] == KEY
    assert event["event_action"] == "trigger"
    payload = event["payload"]
    assert payload["severity"] == "critical"
    assert payload["source"] == "m-1"
    assert "7.5 m/s²" in payload["summary"]
    assert payload["custom_details"]["procedure"] == "SP-BRG-04"


async def test_nothing_is_told_twice_not_even_after_a_restart(notify, receiver: Receiver):
    alarms = up()
    first = notify()
    await first.round(alarms)
    await first.round(alarms)
    await notify().round(alarms)
    (alarm,) = alarms.values()
    seen = lifecycle.acknowledged(alarm, now_us(), "anna")
    await notify().round({seen.alarm_id: seen})
    await notify().round({seen.alarm_id: lifecycle.returned(seen, now_us())})
    assert receiver.actions() == ["trigger", "acknowledge", "resolve"]
    assert len({event["dedup_key"] for event in receiver.events}) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429])
async def test_a_busy_pager_is_told_later(notify, receiver: Receiver, clock: Clock, status: int):
    receiver.answers = [(status, {}), (status, {})]
    sender, alarms = notify(), up()
    await sender.round(alarms)
    await sender.round(alarms)  # too soon: nothing is sent
    assert len(receiver.answers) == 1
    clock.now += 2
    await sender.round(alarms)
    clock.now += 4
    await sender.round(alarms)
    assert receiver.actions() == ["trigger"]


async def test_a_wished_pause_is_kept(notify, receiver: Receiver, clock: Clock):
    receiver.answers = [(429, {"Retry-After": "30"})]
    sender, alarms = notify(), up()
    await sender.round(alarms)
    clock.now += 29
    await sender.round(alarms)
    assert receiver.events == []
    clock.now += 2
    await sender.round(alarms)
    assert receiver.actions() == ["trigger"]


async def test_a_pager_that_hangs_is_told_later_with_the_same_key(
    notify, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.1)
    receiver.slow = 0.4
    sender, alarms = notify(), up()
    await sender.round(alarms)
    receiver.slow = 0.0
    await asyncio.sleep(0.5)  # the first event arrived although nobody heard the answer
    clock.now += 2
    await sender.round(alarms)
    assert receiver.actions() == ["trigger", "trigger"]
    assert len({event["dedup_key"] for event in receiver.events}) == 1


async def test_an_outage_over_a_restart_loses_nothing_and_becomes_an_alarm(
    notify, receiver: Receiver, engine: Engine, clock: Clock
):
    alarms = up()
    sender = notify(f"http://127.0.0.1:{free_port()}/v2/enqueue")
    for _ in range(8):
        await sender.round(alarms)
        clock.now += 30
    assert "ConnectError" in (await failing(engine, clock) or "")
    after = notify()
    await after.round(alarms)
    assert receiver.actions() == ["trigger"]
    assert await failing(engine, clock) is None


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_is_not_repeated_is_an_alarm_and_stops_no_other_event(
    notify, receiver: Receiver, engine: Engine, clock: Clock, status: int
):
    receiver.answers = [(status, {})]
    sender, alarms = notify(), up("m-1") | up("m-2")
    for _ in range(3):
        clock.now += 100
        await sender.round(alarms)
    assert receiver.actions() == ["trigger"]
    detail = await failing(engine, clock)
    assert detail is not None
    assert str(status) in detail
    assert KEY not in detail
    await notify().round(alarms)  # with a mended configuration
    assert receiver.actions() == ["trigger", "trigger"]


def test_the_key_comes_from_the_environment_or_a_file_and_is_needed(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert routing_key(AlarmSettings(webhook_routing_key=SecretStr("a"))) == "a"
    assert routing_key(AlarmSettings(webhook_routing_key_file=file)) == "from-file"
    with pytest.raises(ConfigurationError, match="WEBHOOK_ROUTING_KEY"):
        routing_key(AlarmSettings(webhook_url="http://x"))
    with pytest.raises(ConfigurationError, match="KEY_FILE"):
        routing_key(AlarmSettings(webhook_routing_key_file=tmp_path / "none"))
    assert "secret" not in repr(AlarmSettings(webhook_routing_key=SecretStr("secret")))
