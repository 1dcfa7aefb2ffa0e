"""The alarm store on a real Redis: compare-and-set, fencing, an emptied Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aegisops.alarm_store import AlarmsAway, AlarmStore, Change, NotActive, Signal
from aegisops.alarms import lifecycle
from aegisops.embedded.redis_server import RedisServer
from aegisops.names import ALARMS_CHANNEL
from aegisops.online_store import connect
from aegisops.settings import RedisSettings
from tests.aegisops.alarms.test_lifecycle import BEGIN, SECOND, an_alarm

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def redis(redis_server: RedisServer) -> RedisSettings:
    return RedisSettings(url=redis_server.url.removesuffix("/0") + "/9")


@pytest.fixture
async def store(redis: RedisSettings) -> AsyncIterator[AlarmStore]:
    made = AlarmStore.from_settings(redis)
    yield made
    await made.aclose()
    client = connect(redis)
    client.flushdb()
    client.close()


async def led(store: AlarmStore) -> str:
    token = await store.lead("one", 60_000)
    assert token is not None
    await store.restore([], token)
    return token


def change(alarm: lifecycle.Alarm) -> Change:
    assert alarm.last is not None
    return Change(alarm, alarm.last.from_version, {"machine_id": alarm.machine_id})


async def test_only_the_expected_version_is_replaced(store: AlarmStore):
    token = await led(store)
    alarm = lifecycle.raised(an_alarm(), BEGIN)
    assert await store.commit([change(alarm)], token) == [True]
    mine = lifecycle.acknowledged(alarm, BEGIN + 1, "anna")
    theirs = lifecycle.acknowledged(alarm, BEGIN + 2, "ben")
    assert await store.commit([change(mine)]) == [True]
    assert await store.commit([change(theirs)]) == [False]
    assert await store.get(alarm.alarm_id) == mine


async def test_an_engine_that_lost_its_lead_writes_nothing(store: AlarmStore):
    token = await led(store)
    await store.release(token)
    second = await store.lead("two", 60_000)
    assert second is not None
    with pytest.raises(NotActive):
        await store.commit([change(lifecycle.raised(an_alarm(), BEGIN))], token)
    with pytest.raises(NotActive):
        await store.restore([], token)
    assert not await store.renew(token, 1_000)
    assert await store.renew(second, 60_000)
    assert await store.standing() == {}


async def test_two_engines_never_lead_at_once(store: AlarmStore):
    await led(store)
    assert await store.lead("two", 60_000) is None


async def test_an_emptied_redis_gives_no_list_and_takes_no_change(
    store: AlarmStore, redis: RedisSettings
):
    await led(store)
    client = connect(redis)
    client.flushdb()
    client.close()
    for ask in (store.standing(), store.everything(), store.get("x")):
        with pytest.raises(AlarmsAway):
            await ask
    with pytest.raises(AlarmsAway):
        await store.commit([change(lifecycle.raised(an_alarm(), BEGIN))])


async def test_restored_states_are_those_that_were_given(store: AlarmStore):
    normal = lifecycle.returned(
        lifecycle.acknowledged(lifecycle.raised(an_alarm("m-1"), BEGIN), BEGIN, "anna"), BEGIN
    )
    active = lifecycle.raised(an_alarm("m-2"), BEGIN)
    token = await store.lead("one", 60_000)
    assert token is not None
    await store.restore([normal, active], token)
    assert await store.standing() == {active.alarm_id: active}
    assert await store.everything() == {a.alarm_id: a for a in (normal, active)}


async def test_a_record_is_pending_until_it_is_in_an_outbox(store: AlarmStore):
    token = await led(store)
    alarm = lifecycle.raised(an_alarm(), BEGIN)
    await store.commit([change(alarm)], token)
    (record,) = await store.pending(BEGIN + 1)
    assert record["alarm_id"] == alarm.alarm_id
    assert await store.pending(BEGIN) == []
    await store.journaled([record["journal_id"]])
    assert await store.pending(BEGIN + 1) == []


async def test_a_change_is_announced_with_its_write_and_a_refused_one_is_not(
    store: AlarmStore, redis: RedisSettings
):
    token = await led(store)
    client = connect(redis)
    heard = client.pubsub(ignore_subscribe_messages=True)
    heard.subscribe(ALARMS_CHANNEL)
    assert heard.get_message(timeout=5) is None
    alarm = lifecycle.raised(an_alarm(), BEGIN)
    await store.commit([change(alarm)], token)
    await store.commit([change(alarm)], token)
    message = heard.get_message(timeout=5)
    assert message["data"] == b'{"at":%d,"machines":[{"machine_id":"m-1"}]}' % BEGIN
    assert heard.get_message(timeout=0.05) is None
    heard.close()
    client.close()


async def test_only_shown_raises_count_for_floods(store: AlarmStore):
    token = await led(store)
    shown = lifecycle.raised(an_alarm("m-1"), BEGIN)
    hidden = lifecycle.raised(an_alarm("m-2"), BEGIN, machine_state="stopped")
    await store.commit([change(shown), change(hidden)], token)
    assert await store.raises(0) == [(BEGIN // 1_000, shown.alarm_id)]


async def test_a_removed_alarm_leaves_no_state_behind(store: AlarmStore):
    token = await led(store)
    alarm = lifecycle.raised(an_alarm(), BEGIN)
    await store.commit([change(alarm)], token)
    await store.commit([change(lifecycle.removed(alarm, BEGIN + SECOND))], token)
    assert await store.everything() == {}
    assert await store.standing() == {}


async def test_words_of_parts_that_fell_silent_do_not_count(store: AlarmStore):
    await store.tell(Signal("spool_filling", "api-1", True, "90 %", at=1_000.0))
    await store.tell(Signal("spool_filling", "api-2", False, "", at=1_050.0))
    assert [s.source for s in await store.signals(now=1_055.0)] == ["api-1", "api-2"]
    assert [s.source for s in await store.signals(now=1_070.0)] == ["api-2"]
    assert [s.source for s in await store.signals(now=1_055.0)] == ["api-2"]
