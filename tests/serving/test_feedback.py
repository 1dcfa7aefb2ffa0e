"""POST /feedback: keys shared by API processes, alarms' outcomes, and what Redis away costs."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import fastavro
import pytest

from aegisops.alarms import lifecycle
from aegisops.embedded.ports import free_port
from aegisops.idempotency import Claim, IdempotencyKeys
from aegisops.names import FEEDBACK_TOPIC, AlarmKind
from aegisops.schemas import avro
from aegisops.settings import RedisSettings, Settings
from tests.serving.conftest import SOUND, Fleet, Running, running
from tests.serving.test_alarms import Engine, engine, now_us, vibration

__all__ = ["engine"]

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

REPORT = {"machine_id": "m-1", "outcome": "false_alarm", "idempotency_key": "order-00042"}


def kept(*apis: Running) -> list[dict[str, Any]]:
    schema = avro.contract(FEEDBACK_TOPIC).schema
    return [
        fastavro.schemaless_reader(io.BytesIO(value), schema, None)
        for api in apis
        for topic, _, value in api.recorder.sent
        if topic == FEEDBACK_TOPIC
    ]


async def test_a_key_is_one_report_at_every_api_process(settings: Settings, fleet: Fleet):
    fleet.add("m-1", SOUND)
    async with running(settings) as one, running(settings) as two:
        first = await one.client.post("/api/v1/feedback", json=REPORT)
        again = await two.client.post("/api/v1/feedback", json=REPORT)
        other = await two.client.post("/api/v1/feedback", json=REPORT | {"outcome": "confirmed"})
        assert (first.status_code, first.json()["is_repeat"]) == (202, False)
        assert (again.status_code, again.json()["is_repeat"]) == (202, True)
        assert other.status_code == 409
        await one.until(lambda: one.outbox.depth == 0)
        assert two.outbox.depth == 0
        assert len(kept(one, two)) == 1


async def test_of_many_requests_with_one_key_at_once_one_is_kept(settings: Settings, fleet: Fleet):
    fleet.add("m-1", SOUND)
    async with running(settings) as one, running(settings) as two:
        answers = await asyncio.gather(
            *(api.client.post("/api/v1/feedback", json=REPORT) for api in (one, two) * 8)
        )
        assert {a.status_code for a in answers} <= {202, 503}  # 503: being kept, try again
        await one.until(lambda: one.outbox.depth + two.outbox.depth == 0)
        assert len(kept(one, two)) == 1


async def test_a_claim_of_a_process_that_died_runs_out(settings: Settings):
    keys = IdempotencyKeys.from_settings(settings.redis)
    assert await keys.claim("order-00042", "mark") is Claim.NEW
    assert await keys.claim("order-00042", "mark") is Claim.BUSY
    assert await keys.claim("order-00042", "another") is Claim.OTHER
    await keys.release("order-00042")
    assert await keys.claim("order-00042", "mark") is Claim.NEW
    await keys.keep("order-00042", "mark")
    assert await keys.claim("order-00042", "mark") is Claim.REPEAT
    await keys.aclose()


async def test_without_redis_a_report_is_kept_and_its_repeat_known_here(
    settings: Settings, fleet: Fleet
):
    fleet.add("m-1", SOUND)
    async with running(settings) as api:
        await api.client.get("/api/v1/machines")  # the registration is remembered
        keys = IdempotencyKeys.from_settings(
            RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0")
        )
        known, api.service.feedback._keys = api.service.feedback._keys, keys
        answers = [await api.client.post("/api/v1/feedback", json=REPORT) for _ in range(2)]
        await known.aclose()
        assert [a.json()["is_repeat"] for a in answers] == [False, True]


async def test_an_outcome_shows_on_its_alarm_and_names_its_prediction(
    settings: Settings, fleet: Fleet, engine: Engine
):
    fleet.add("m-1", SOUND)
    alarm = lifecycle.raised(
        vibration(kind=AlarmKind.ADVISORY), now_us(), prediction_id="prediction-1"
    )
    await engine.put(alarm)
    body = REPORT | {"alarm_id": alarm.alarm_id, "version": alarm.version}
    async with running(settings) as api:
        assert (await api.client.post("/api/v1/feedback", json=body)).status_code == 202
        (row,) = (await api.client.get("/api/v1/alarms?kind=advisory")).json()["alarms"]
        assert (row["outcome"], row["state"]) == ("false_alarm", "unacknowledged")
        seen = await api.client.post(
            f"/api/v1/alarms/{alarm.alarm_id}/acknowledge", json={"version": row["version"]}
        )
        assert seen.status_code == 200
        again = await api.client.post("/api/v1/feedback", json=body)
        assert (again.status_code, again.json()["is_repeat"]) == (202, True)
        await api.until(lambda: api.outbox.depth == 0)
        (record,) = kept(api)
        assert record["prediction_id"] == "prediction-1"


async def test_an_outcome_decided_on_an_old_state_of_the_alarm_keeps_nothing(
    settings: Settings, fleet: Fleet, engine: Engine
):
    fleet.add("m-1", SOUND)
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    await engine.put(lifecycle.returned(alarm, now_us()))
    body = REPORT | {"alarm_id": alarm.alarm_id, "version": alarm.version}
    async with running(settings) as api:
        answer = await api.client.post("/api/v1/feedback", json=body)
        assert answer.status_code == 409
        version = answer.json()["current"]["version"]
        fresh = await api.client.post("/api/v1/feedback", json=body | {"version": version})
        assert fresh.status_code == 202
        await api.until(lambda: api.outbox.depth == 0)
        assert len(kept(api)) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"alarm_id": "nonsense", "version": 1}, 404),
        ({"alarm_id": "nonsense"}, 422),
        ({"version": 1}, 422),
    ],
)
async def test_a_report_about_no_alarm_is_refused(
    settings: Settings, fleet: Fleet, engine: Engine, change: dict[str, Any], status: int
):
    fleet.add("m-1", SOUND)
    async with running(settings) as api:
        answer = await api.client.post("/api/v1/feedback", json=REPORT | change)
        assert answer.status_code == status
