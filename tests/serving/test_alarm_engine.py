"""The engine over real Redis, with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from aegisops.alarm_store import Signal
from aegisops.alarms import lifecycle
from aegisops.alarms.lifecycle import Alarm
from aegisops.errors import ServiceUnavailable
from aegisops.names import ALARMS_TOPIC, AlarmState
from aegisops.online_store import connect
from aegisops.settings import Settings
from serving.alarm_engine.engine import AlarmEngine
from serving.alarm_engine.metrics import EngineMetrics
from serving.service import Service, build
from tests.serving.conftest import SOUND, WORN, Fleet, Recorder, running
from tests.serving.test_alarms import journaled

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

HIGH = lifecycle.alarm_id("vibration_high", "m")


@dataclass
class Clock:
    """The wall clock, moved ahead by hand."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Lake:
    """A journal in memory."""

    def __init__(self) -> None:
        self.alarms: dict[str, Alarm] = {}
        self.failure: Exception | None = None

    def states(self, *, with_tail: bool = True) -> dict[str, Alarm]:
        if self.failure is not None:
            raise self.failure
        return dict(self.alarms)


@dataclass
class Rig:
    """One engine, its service and its hands."""

    engine: AlarmEngine
    service: Service
    recorder: Recorder
    journal: Lake
    fleet: Fleet
    clock: Clock

    def wait(self, seconds: float) -> None:
        self.clock.ahead += seconds

    async def rounds(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(round(seconds / step)):
            self.wait(step)
            await self.engine.evaluate()

    async def alarm(self, alarm_id: str = HIGH) -> Alarm | None:
        return await self.service.alarms.store.get(alarm_id)

    async def state(self, alarm_id: str = HIGH) -> AlarmState | None:
        alarm = await self.alarm(alarm_id)
        return alarm.state if alarm else None

    def transitions(self) -> list[str]:
        self.service.outbox.pump()
        return [r["transition"] for r in journaled(self)]  # type: ignore[arg-type]


@asynccontextmanager
async def rigged(settings: Settings, journal: Lake | None = None) -> AsyncIterator[Rig]:
    recorder = Recorder()
    clock = Clock()
    service = build(settings, publisher=recorder, clock=clock)
    journal = journal or Lake()
    engine = AlarmEngine(
        service,
        journal,  # type: ignore[arg-type]
        EngineMetrics(service.metrics.registry),
        settings=settings.alarms,
        clock=clock,
    )
    try:
        yield Rig(engine, service, recorder, journal, Fleet(settings), clock)
    finally:
        await engine.stop()
        await service.stop()


@pytest.fixture
async def rig(settings: Settings) -> AsyncIterator[Rig]:
    async with rigged(settings) as made:
        yield made


async def test_a_limit_alarm_comes_after_its_delay_and_goes_after_its_own(rig: Rig):
    rig.fleet.add("m", SOUND)
    await rig.engine.evaluate()
    assert await rig.alarm() is None
    rig.fleet.add("m", WORN)
    await rig.rounds(9)
    assert await rig.alarm() is None
    await rig.rounds(3)
    alarm = await rig.alarm()
    assert alarm is not None
    assert alarm.state is AlarmState.UNACKNOWLEDGED
    assert (alarm.value, alarm.setpoint, alarm.area) == (WORN, 6.0, "A")
    assert alarm.is_first_out
    rig.fleet.add("m", 5.8, age=-rig.clock.ahead)  # inside the deadband
    await rig.rounds(120, 10)
    assert await rig.state() is AlarmState.UNACKNOWLEDGED
    rig.fleet.add("m", SOUND, age=-rig.clock.ahead)
    await rig.rounds(50, 10)
    assert await rig.state() is AlarmState.UNACKNOWLEDGED
    await rig.rounds(30, 10)
    assert await rig.state() is AlarmState.RETURNED_UNACKNOWLEDGED


async def test_limit_alarms_need_no_model_and_no_answer(rig: Rig, monkeypatch):
    async def fails(*_: object) -> None:
        raise RuntimeError("the model burns")

    monkeypatch.setattr(rig.service.predictions, "predict_all", fails)
    rig.fleet.add("m", WORN)
    await rig.engine.evaluate()
    with pytest.raises(RuntimeError):
        await rig.engine.ask_risks()
    await rig.rounds(12)
    assert await rig.state() is AlarmState.UNACKNOWLEDGED


async def test_a_risk_raises_an_advisory_with_its_prediction(rig: Rig, promoted: Path):
    rig.service.slots.poll()
    rig.fleet.add("m", WORN)
    await rig.engine.evaluate()
    await rig.engine.ask_risks()
    for _ in range(14):
        await rig.rounds(10, 10)
        await rig.engine.ask_risks()
    advisory = await rig.alarm(lifecycle.alarm_id("failure_risk_high", "m"))
    assert advisory is not None
    assert advisory.kind == "advisory"
    assert advisory.state is AlarmState.UNACKNOWLEDGED
    assert advisory.setpoint == 0.7
    assert advisory.value is not None
    assert advisory.value >= 0.7
    assert advisory.prediction_id


async def test_silence_is_an_alarm_and_leaves_limit_alarms_as_they_are(rig: Rig):
    rig.fleet.add("m", WORN)
    await rig.rounds(12)
    await rig.rounds(660, 60)
    await rig.rounds(20, 10)
    assert await rig.state() is AlarmState.UNACKNOWLEDGED
    silence = await rig.alarm(lifecycle.alarm_id("no_data", "m"))
    assert silence is not None
    assert silence.value is not None
    assert silence.value > 600


async def test_a_machine_that_never_sent_is_silent_only_after_a_while(rig: Rig):
    rig.fleet.add("m")
    await rig.rounds(300, 60)
    assert await rig.alarm(lifecycle.alarm_id("no_data", "m")) is None
    await rig.rounds(420, 60)
    assert await rig.state(lifecycle.alarm_id("no_data", "m")) is AlarmState.UNACKNOWLEDGED


async def test_shelving_returns_by_itself_unacknowledged_if_the_condition_holds(rig: Rig):
    rig.fleet.add("m", WORN)
    await rig.rounds(12)
    alarm = await rig.alarm()
    assert alarm is not None
    await rig.service.alarms.shelve(
        HIGH, alarm.version, "anna", lambda *_: True, reason="cable", minutes=1
    )
    await rig.rounds(50, 10)
    assert await rig.state() is AlarmState.SHELVED
    await rig.rounds(20, 10)
    assert await rig.state() is AlarmState.UNACKNOWLEDGED
    assert "unshelved" in rig.transitions()


async def test_an_acknowledged_alarm_that_stays_asks_again(rig: Rig):
    rig.fleet.add("m", WORN)
    await rig.rounds(12)
    alarm = await rig.alarm()
    assert alarm is not None
    await rig.service.alarms.acknowledge(HIGH, alarm.version, "anna", lambda *_: True)
    await rig.rounds(7 * 3_600, 1_800)
    assert await rig.state() is AlarmState.ACKNOWLEDGED
    await rig.rounds(3_600, 1_800)
    assert await rig.state() is AlarmState.UNACKNOWLEDGED


async def test_a_persons_change_between_two_rounds_is_never_overwritten(rig: Rig, monkeypatch):
    rig.fleet.add("m", WORN)
    await rig.rounds(12)
    alarm = await rig.alarm()
    assert alarm is not None
    rig.fleet.add("m", SOUND, age=-rig.clock.ahead)
    await rig.rounds(58)
    # The round that returns the alarm has read the states; now somebody acknowledges.
    read = rig.engine._read_signals

    async def read_then_acknowledge() -> None:
        await read()
        fresh = await rig.alarm()
        assert fresh is not None
        if fresh.state is AlarmState.UNACKNOWLEDGED:
            await rig.service.alarms.acknowledge(HIGH, fresh.version, "anna", lambda *_: True)

    monkeypatch.setattr(rig.engine, "_read_signals", read_then_acknowledge)
    await rig.rounds(6)
    after = await rig.alarm()
    assert after is not None
    assert after.acknowledged_by == "anna"
    assert after.state is AlarmState.NORMAL


async def test_two_engines_one_judges_and_the_other_takes_over(settings: Settings, rig: Rig):
    rig.fleet.add("m", WORN)
    await rig.engine.evaluate()
    async with rigged(settings) as second:
        await second.engine.evaluate()
        assert second.engine.token is None
        await rig.rounds(12)
        raised = await rig.alarm()
        await rig.engine.stop()
        await second.rounds(20)
        assert second.engine.token is not None
        assert await second.alarm() == raised
        assert second.transitions() == []


async def test_states_survive_a_restart_of_the_engine(settings: Settings, rig: Rig):
    rig.fleet.add("m", WORN)
    await rig.rounds(12)
    before = await rig.alarm()
    await rig.engine.stop()
    async with rigged(settings) as second:
        await second.rounds(15)
        assert await second.alarm() == before


async def test_an_emptied_redis_is_filled_from_the_journal(settings: Settings, rig: Rig):
    rig.fleet.add("m", WORN)
    await rig.rounds(12)
    alarm = await rig.alarm()
    assert alarm is not None
    seen = await rig.service.alarms.acknowledge(HIGH, alarm.version, "anna", lambda *_: True)
    rig.journal.alarms = {HIGH: seen}
    client = connect(settings.redis)
    client.flushdb()
    client.close()
    rig.fleet.add("m", WORN, age=-rig.clock.ahead)
    await rig.engine.evaluate()
    assert await rig.alarm() == seen
    await rig.rounds(15)
    assert await rig.state() is AlarmState.ACKNOWLEDGED


async def test_without_the_journal_the_states_come_back_empty_only_after_some_patience(rig: Rig):
    rig.journal.failure = ServiceUnavailable("the lake is away")
    rig.fleet.add("m", WORN)
    for _ in range(4):
        rig.wait(5)
        with pytest.raises(ServiceUnavailable):
            await rig.engine.evaluate()
    rig.wait(30)
    await rig.rounds(15)
    assert await rig.state() is AlarmState.UNACKNOWLEDGED


async def test_a_record_whose_writer_died_is_swept_into_the_outbox(rig: Rig):
    rig.fleet.add("m", WORN)
    await rig.rounds(12)
    alarm = await rig.alarm()
    assert alarm is not None
    rig.transitions()
    store = rig.service.alarms.store
    seen = lifecycle.acknowledged(alarm, round(rig.service.clock() * 1e6), "anna")
    await store.commit([rig.service.alarms.change(seen, alarm.version)])  # and then it died
    await rig.engine.sweep()
    assert "acknowledged" not in rig.transitions()
    rig.wait(10)
    await rig.engine.sweep()
    assert rig.transitions().count("acknowledged") == 1
    assert await store.pending(1 << 60) == []


async def test_every_transition_is_journaled_once(rig: Rig):
    for i in range(30):
        rig.fleet.add(f"m-{i}", WORN)
    await rig.rounds(75)
    rig.service.outbox.pump()
    records = journaled(rig)  # type: ignore[arg-type]
    assert len({r["journal_id"] for r in records}) == len(records)
    assert sum(r["definition_id"] == "vibration_high" for r in records) == 30
    assert {topic for topic, _, _ in rig.recorder.sent} == {ALARMS_TOPIC}


async def test_a_stopped_machine_suppresses_what_its_state_explains(rig: Rig):
    rig.fleet.add("m", WORN, stopped=True)
    await rig.rounds(12)
    assert await rig.state() is AlarmState.SUPPRESSED
    rig.fleet.add("m", WORN, age=-rig.clock.ahead)
    await rig.rounds(2)
    assert await rig.state() is AlarmState.UNACKNOWLEDGED
    assert rig.transitions()[-1] == "unsuppressed"


async def test_the_loop_outlives_whatever_a_round_does(settings: Settings, monkeypatch):
    quick = settings.alarms.model_copy(update={"evaluate_seconds": 0.01})
    async with rigged(settings.model_copy(update={"alarms": quick})) as rig:
        calls = 0

        async def stumbles(_: object) -> None:
            nonlocal calls
            calls += 1
            raise ZeroDivisionError

        monkeypatch.setattr(rig.engine, "_read_features", stumbles)
        task = asyncio.create_task(rig.engine.run())
        async with asyncio.timeout(10):
            while calls < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_filling_spool_is_an_alarm_that_names_the_process(rig: Rig):
    store, clock = rig.service.alarms.store, rig.service.clock
    rig.fleet.add("m", SOUND)

    async def say(*, is_on: bool) -> None:
        await store.tell(Signal("spool_filling", "api-1", is_on, "90 of 100 records wait", clock()))
        await rig.engine.evaluate()

    await say(is_on=False)
    await say(is_on=True)
    alarm = await rig.alarm(lifecycle.alarm_id("audit_spool_filling", ""))
    assert alarm is not None
    assert alarm.state is AlarmState.UNACKNOWLEDGED
    assert "api-1: 90 of 100" in alarm.detail
    for _ in range(8):
        rig.wait(10)
        await say(is_on=False)
    assert (await rig.alarm(alarm.alarm_id)).state is AlarmState.RETURNED_UNACKNOWLEDGED


async def test_a_refused_bundle_is_an_alarm(rig: Rig, promoted: Path):
    (promoted / "failure.ubj").write_bytes(b"altered")
    rig.service.slots.poll()
    rig.fleet.add("m", SOUND)
    await rig.rounds(2)
    alarm = await rig.alarm(lifecycle.alarm_id("model_bundle_refused", ""))
    assert alarm is not None
    assert "cnc_spindle" in alarm.detail


async def test_a_model_that_went_away_is_an_alarm_and_one_that_never_was_is_none(
    rig: Rig, settings: Settings, promoted: Path
):
    rig.fleet.add("m", SOUND)
    await rig.rounds(90, 10)
    missing = lifecycle.alarm_id("model_unavailable", "")
    assert await rig.alarm(missing) is None
    rig.service.slots.poll()
    await rig.rounds(90, 10)
    assert await rig.alarm(missing) is None
    (settings.bundles_dir / "cnc_spindle" / "production.json").unlink()
    rig.service.slots.poll()
    await rig.rounds(90, 10)
    assert await rig.state(missing) is AlarmState.UNACKNOWLEDGED


async def test_every_api_process_says_how_full_its_spool_is(settings: Settings):
    api = settings.api.model_copy(update={"outbox_capacity": 1})
    async with running(settings.model_copy(update={"api": api})) as started:
        store, said = started.service.alarms.store, []
        async with asyncio.timeout(10):
            while not said:
                said = await store.signals(time.time())
        assert said[0].name == "spool_filling"
        assert said[0].source == started.service.audit.instance
        assert not said[0].is_on


async def test_an_engine_that_listens_reads_what_is_announced_and_misses_nothing(rig: Rig):
    for i in range(30):
        rig.fleet.add(f"m-{i}", SOUND)
    await rig.engine.evaluate()
    listening = asyncio.create_task(rig.engine.listen())
    async with asyncio.timeout(10):
        while not rig.engine._hears:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    client = connect(rig.fleet.settings.redis)
    rig.fleet.add("m-29", WORN)  # its bell is lost
    rig.fleet.add("m-28", WORN)
    client.publish("telemetry", b'{"at":1,"machines":[{"machine_id":"m-28"}]}')
    async with asyncio.timeout(10):
        while "m-28" not in rig.engine._announced:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    client.close()
    column = rig.engine._watches["cnc_spindle"].machine_class.vector.index("vibration_rms_1h")
    values = rig.engine._watches["cnc_spindle"].values[:, column]
    index = rig.engine._watches["cnc_spindle"].index
    await rig.engine.evaluate()
    assert values[index["m-28"]] == WORN
    for _ in range(10):
        await rig.engine.evaluate()
    assert values[index["m-29"]] == WORN
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert not rig.engine._hears
