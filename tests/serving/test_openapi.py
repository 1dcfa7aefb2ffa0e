"""Schemathesis over the running API: what the OpenAPI document says is what a stranger meets.

Requests that fit the contract and requests that just do not, over every operation; a fixed number
of them, the same ones in every run. One check is left out: that whatever fits the document is
accepted, for a rule between fields (a span of 92 days at most) is a 422 that no schema can tell.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as tries
from schemathesis.specs.openapi.checks import positive_data_acceptance

from aegisops.alarm_store import AlarmStore
from aegisops.alarms import lifecycle
from aegisops.embedded.ports import free_port
from aegisops.online_store import connect
from aegisops.settings import ApiSettings, RedisSettings, Settings
from aegisops.tokens import mint
from serving.app import create_app
from serving.server import make_server
from serving.service import build
from tests.serving.conftest import (
    SOUND,
    WORN,
    Fleet,
    Recorder,
    promote,
    running,
    store,
    write_bundle,
)
from tests.serving.test_alarms import Engine, now_us, vibration

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLES = 6
STREAM = "/api/v1/telemetry"
"""Answers for ever: tests/serving/test_telemetry.py reads it."""


@dataclass
class Live:
    """A running API: where it is, an admin's token, and ids by parameter."""

    address: str
    headers: dict[str, str]
    ids: dict[str, str]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Live]:
    """A real server with a fleet, a model, an alarm, an answer in the lake; and its token."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("api"),
        redis=RedisSettings(url=redis_url),
        api=ApiSettings(port=free_port(), rate_per_second=1e6, rate_burst=1_000_000),
    )
    write_bundle(settings)
    promote(settings, "1")
    ids = asyncio.run(_furnish(settings))
    service = build(settings, publisher=Recorder())
    server = make_server(create_app(service), service)
    thread = threading.Thread(target=lambda: asyncio.run(server._serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    token = mint(settings, "tester", "admin")
    yield Live(f"http://127.0.0.1:{settings.api.port}", {"Authorization": f"Bearer {token}"}, ids)
    server.should_exit = True
    thread.join(30)
    client = connect(settings.redis)
    client.flushdb()
    client.close()


async def _furnish(settings: Settings) -> dict[str, str]:
    """Ids that exist: without them nothing but 404 would be seen."""
    fleet = Fleet(settings)
    fleet.add("m0", WORN)
    fleet.add("m1", SOUND)
    fleet.add("silent")
    alarms = AlarmStore.from_settings(settings.redis)
    leader = await alarms.lead("tester", 600_000)
    assert leader is not None
    await alarms.restore([], leader)
    await Engine(alarms, leader).put(lifecycle.raised(vibration("m0"), now_us()))
    await alarms.aclose()
    async with running(settings) as api:
        answered = (await api.predict("m0")).json()
        order = {"machine_id": "m0", "title": "t", "priority": 2, "idempotency_key": "draft-001"}
        drafted = (await api.client.post("/api/v1/work-orders", json=order)).json()
        store(settings, await api.records(1))
    return {
        "machine_id": "m0",
        "machine_class": "cnc_spindle",
        "alarm_id": vibration("m0").alarm_id,
        "prediction_id": answered["prediction_id"],
        "work_order_id": drafted["work_order_id"],
    }


# The document of the running API: tests/console holds the file against it.
DOCUMENT = Path(__file__).parents[2] / "dashboard" / "openapi.json"
schema = schemathesis.openapi.from_path(DOCUMENT).exclude(path=STREAM)


@schema.parametrize()
@tries(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_running_api_keeps_its_contract(case: schemathesis.Case, live: Live) -> None:
    for name, given in case.path_parameters.items():
        if name in live.ids and len(str(given)) % 2 == 0:
            case.path_parameters[name] = live.ids[name]
    case.call_and_validate(
        base_url=live.address, headers=live.headers, excluded_checks=[positive_data_acceptance]
    )
