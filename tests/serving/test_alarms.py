"""The alarm endpoints over a real Redis."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import fastavro
import httpx
import pytest

from aegisops.alarm_store import AlarmStore, Change
from aegisops.alarms import lifecycle, view
from aegisops.alarms.lifecycle import Alarm
from aegisops.alarms.master import MasterDatabase
from aegisops.machines import shipped_classes
from aegisops.names import ALARMS_TOPIC, AlarmKind, AlarmState
from aegisops.schemas import avro
from aegisops.settings import Settings
from serving import alarm_contract as contract
from tests.serving.conftest import SOUND, Fleet, Running, running
from tests.serving.test_telemetry import served, until

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

MASTER = MasterDatabase(shipped_classes())


def now_us() -> int:
    return round(time.time() * 1e6)


def vibration(machine_id: str = "m-1", *, area: str = "A", **more: object) -> Alarm:
    made = Alarm(
        lifecycle.alarm_id("vibration_high", machine_id),
        "vibration_high",
        machine_id,
        "cnc_spindle",
        "S",
        area,
        AlarmKind.ALARM,
        1,
        "bearing_wear",
    )
    return replace(made, **more)


class Engine:
    """Puts states in place as the active engine does."""

    def __init__(self, store: AlarmStore, token: str) -> None:
        self.store = store
        self.token = token

    async def put(self, *alarms: Alarm) -> None:
        changes = [
            Change(a, a.last.from_version if a.last else 0, view.row(a, MASTER, now_us()))
            for a in alarms
        ]
        assert all(await self.store.commit(changes, self.token))
        await self.store.journaled([f"{a.alarm_id}-{a.version}" for a in alarms])


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as started:
        yield started


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    store = AlarmStore.from_settings(settings.redis)
    token = await store.lead("tester", 60_000)
    assert token is not None
    await store.restore([], token)
    yield Engine(store, token)
    await store.aclose()


async def listed(api: Running, query: str = "") -> list[dict]:
    answer = await api.client.get(f"/api/v1/alarms{query}")
    assert answer.status_code == 200, answer.text
    return contract.AlarmList.model_validate_json(answer.content).model_dump(mode="json")["alarms"]


async def act(api: Running, alarm: Alarm, what: str, **body: object) -> httpx.Response:
    content = {"version": alarm.version, **body}
    return await api.client.post(f"/api/v1/alarms/{alarm.alarm_id}/{what}", json=content)


def journaled(api: Running) -> list[dict]:
    schema = avro.contract(ALARMS_TOPIC).schema
    return [
        fastavro.schemaless_reader(io.BytesIO(value), schema, None)
        for topic, _, value in api.recorder.sent
        if topic == ALARMS_TOPIC
    ]


async def test_without_an_engine_there_is_no_list_rather_than_an_empty_one(api: Running):
    answer = await api.client.get("/api/v1/alarms")
    assert answer.status_code == 503
    assert "alarm_engine" in answer.json()["detail"]


async def test_the_list_shows_state_cause_consequence_and_response(api: Running, engine: Engine):
    assert await listed(api) == []
    await engine.put(lifecycle.raised(vibration(), now_us(), value=7.5, setpoint=6.0))
    (row,) = await listed(api)
    assert row["state"] == "unacknowledged"
    assert (row["value"], row["setpoint"], row["unit"]) == (7.5, 6.0, "m/s²")
    assert row["procedure"] == "SP-BRG-04"
    assert row["time_to_respond_s"] == 900
    assert row["cause"]
    assert row["consequence"]
    assert row["response"]
    assert row["owner"] == "maintenance"


async def test_filters_and_the_advisories_own_list(api: Running, engine: Engine):
    hot = lifecycle.raised(vibration("m-1"), now_us())
    seen = lifecycle.acknowledged(lifecycle.raised(vibration("m-2", area="B"), now_us()), 1, "x")
    risk = lifecycle.raised(
        vibration("m-3", kind=AlarmKind.ADVISORY, alarm_id="risk", priority=2), now_us()
    )
    for alarm in (hot, risk):
        await engine.put(alarm)
    await engine.put(replace(seen, last=replace(seen.last, from_version=0)))

    async def machines(query: str) -> list[str]:
        return [row["machine_id"] for row in await listed(api, query)]

    assert await machines("") == ["m-1", "m-2"]
    assert await machines("?state=acknowledged") == ["m-2"]
    assert await machines("?priority=1&area=A") == ["m-1"]
    assert await machines("?machine_id=m-2") == ["m-2"]
    assert await machines("?kind=advisory") == ["m-3"]


async def test_acknowledging_records_who_and_when_and_is_journaled_once(
    api: Running, engine: Engine
):
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    first = await act(api, alarm, "acknowledge", comment="on my way")
    assert first.status_code == 200
    row = contract.AlarmRow.model_validate_json(first.content)
    assert row.state is AlarmState.ACKNOWLEDGED
    assert (row.acknowledged_by, row.comment) == ("tester", "on my way")
    assert row.acknowledged_at is not None
    again = await act(api, alarm, "acknowledge", comment="on my way")
    assert again.status_code == 200
    assert again.json()["version"] == row.version
    await api.until(lambda: api.outbox.depth == 0)
    (record,) = journaled(api)
    assert (record["transition"], record["subject"]) == ("acknowledged", "tester")
    assert lifecycle.load(record["snapshot"]).acknowledged_by == "tester"
    assert await engine.store.pending(now_us() + 1) == []


async def test_a_change_on_an_old_version_is_refused_with_the_present_state(
    api: Running, engine: Engine
):
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    await engine.put(lifecycle.returned(alarm, now_us()))
    answer = await act(api, alarm, "acknowledge")
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("stale-version")
    assert answer.json()["current"]["state"] == "returned_unacknowledged"


async def test_of_many_who_acknowledge_at_once_one_wins(api: Running, engine: Engine):
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    answers = await asyncio.gather(
        *(act(api, alarm, "acknowledge", comment=f"no {i}") for i in range(20))
    )
    assert sorted(a.status_code for a in answers) == [200] + [409] * 19
    await api.until(lambda: api.outbox.depth == 0)
    assert len(journaled(api)) == 1


async def test_shelving_needs_a_reason_and_a_time_within_the_limit(api: Running, engine: Engine):
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    assert (await act(api, alarm, "shelve", minutes=30)).status_code == 422
    assert (await act(api, alarm, "shelve", minutes=30, reason="  ")).status_code == 422
    assert (await act(api, alarm, "shelve", minutes=0, reason="cable")).status_code == 422
    too_long = await act(api, alarm, "shelve", minutes=60 * 24, reason="cable")
    assert too_long.status_code == 409
    assert "720 min" in too_long.json()["detail"]
    done = await act(api, alarm, "shelve", minutes=30, reason="cable")
    row = contract.AlarmRow.model_validate_json(done.content)
    assert (row.state, row.shelve_reason, row.shelved_by) == ("shelved", "cable", "tester")
    assert row.shelved_until is not None
    back = await api.client.post(
        f"/api/v1/alarms/{alarm.alarm_id}/unshelve", json={"version": row.version}
    )
    assert back.json()["state"] == "unacknowledged"


async def test_out_of_service_and_back(api: Running, engine: Engine):
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    out = (await act(api, alarm, "out-of-service", reason="new sensor")).json()
    assert (out["state"], out["out_of_service_by"]) == ("out_of_service", "tester")
    impossible = await api.client.post(
        f"/api/v1/alarms/{alarm.alarm_id}/acknowledge", json={"version": out["version"]}
    )
    assert impossible.status_code == 409
    assert impossible.json()["type"].endswith("illegal-transition")
    back = await api.client.post(
        f"/api/v1/alarms/{alarm.alarm_id}/return-to-service", json={"version": out["version"]}
    )
    assert back.json()["state"] == "unacknowledged"


async def test_a_viewer_reads_and_an_operator_acts(settings: Settings, engine: Engine):
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    async with running(settings, "viewer") as api:
        assert len(await listed(api)) == 1
        assert (await act(api, alarm, "acknowledge")).status_code == 403
        assert (await api.client.get("/api/v1/alarms/definitions")).status_code == 200


async def test_alarms_outside_a_tokens_scope_do_not_exist_for_it(
    settings: Settings, engine: Engine
):
    alarm = lifecycle.raised(vibration(area="B"), now_us())
    await engine.put(alarm)
    async with running(settings, areas=["A"]) as api:
        assert await listed(api) == []
        answer = await act(api, alarm, "acknowledge")
        assert answer.status_code == 404
        assert answer.json()["type"].endswith("unknown-alarm")


async def test_there_is_no_way_to_acknowledge_more_than_one_alarm(api: Running, engine: Engine):
    for path in ("alarms/acknowledge", "alarms/*/acknowledge", "alarms/all/acknowledge"):
        answer = await api.client.post(f"/api/v1/{path}", json={"version": 1})
        assert answer.status_code in {404, 405}


async def test_the_master_database_is_complete(api: Running):
    answer = await api.client.get("/api/v1/alarms/definitions")
    rows = [contract.AlarmDefinitionRow.model_validate(each) for each in answer.json()]
    assert {"vibration_high", "audit_spool_filling"} <= {row.id for row in rows}
    for row in rows:
        assert row.cause
        assert row.consequence
        assert row.response
        assert row.owner
        assert row.revision >= 1


async def test_a_full_outbox_refuses_the_change_and_leaves_the_alarm_as_it_was(
    settings: Settings, engine: Engine
):
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    full = settings.model_copy(
        update={"api": settings.api.model_copy(update={"outbox_capacity": 0})}
    )
    async with running(full) as api:
        assert (await act(api, alarm, "acknowledge")).status_code == 503
    assert await engine.store.get(alarm.alarm_id) == alarm


async def test_more_than_ten_raises_in_ten_minutes_are_a_flood_grouped_by_cause(
    api: Running, engine: Engine
):
    for i in range(11):
        await engine.put(
            lifecycle.raised(vibration(f"m-{i}"), now_us() + i * 1_000, is_first_out=i == 0)
        )
    answer = (await api.client.get("/api/v1/alarms")).json()
    assert answer["flood"]["active"] is True
    assert answer["flood"]["raised_last_10_min"] == 11
    (group,) = answer["flood"]["groups"]
    assert (group["cause"], group["count"]) == ("bearing_wear", 11)
    assert group["first_out"] == lifecycle.alarm_id("vibration_high", "m-0")


async def test_a_change_is_on_the_live_stream_at_once(
    settings: Settings, fleet: Fleet, engine: Engine
):
    fleet.add("m-1", SOUND)
    fleet.add("m-2", SOUND, area="B")
    async with served(settings) as live:
        first = {"kinds": ["alarms"]}
        async with live.socket(first) as all_of_them, live.socket(first, areas=["B"]) as b_only:
            for socket in (all_of_them, b_only):
                await until(socket, "hello")
            alarm = lifecycle.raised(vibration("m-1"), now_us(), value=7.5)
            own = replace(
                vibration(""), alarm_id="own", machine_class="", site="", area="", group="spool"
            )
            await engine.put(alarm)
            await engine.put(lifecycle.raised(own, now_us()))
            message = await until(all_of_them, "alarms")
            (row,) = message["machines"]
            assert contract.AlarmRow.model_validate(row).state is AlarmState.UNACKNOWLEDGED
            assert (row["machine_id"], row["value"]) == ("m-1", 7.5)
            # The other token sees no machine of area A, but the product's own parts.
            (row,) = (await until(b_only, "alarms"))["machines"]
            assert row["alarm_id"] == "own"
