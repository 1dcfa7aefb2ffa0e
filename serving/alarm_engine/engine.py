"""The engine's rounds: lead, judge, write, ask for risks, sweep. The process is in `process`.

Several engines may run: one leads by a lock in Redis, the others wait; what a former leader still
wants to write is refused by its token.

- Limits and data are judged about once a second on the features in Redis, without any model.
- Risks come from the full decision, in rounds of their own: nothing a model does delays a limit.
- A transition is written to Redis with its journal record; from there the record goes to the
  outbox on disk and on to Kafka. What an API process left behind is picked up here.
- An emptied Redis is filled from the journal before anything is judged.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import orjson

from aegisops.alarm_store import AlarmStore, NotActive, Signal
from aegisops.alarms import lifecycle
from aegisops.alarms.conditions import GONE, HOLDS, Timers, advance
from aegisops.alarms.lifecycle import Alarm
from aegisops.alarms.watch import ClassWatch, Risk, Turn
from aegisops.errors import Retryable, ServiceUnavailable
from aegisops.machines import AlarmDefinition, AlarmSource
from aegisops.machines.durations import US_PER_SECOND
from aegisops.names import TELEMETRY_CHANNEL, AlarmState, Transition
from aegisops.online_store import Machine
from aegisops.settings import AlarmSettings
from serving.alarm_engine.metrics import EngineMetrics
from serving.alarm_engine.notifier import Notifier
from serving.alarm_journal import JournalReader
from serving.alarms import AlarmDesk
from serving.service import Service

log = logging.getLogger(__name__)

NOTIFY_SECONDS = 1.0
LISTEN_SECONDS = 1.0
"""Pause before listening again after the connection broke."""
SWEEP_ROUNDS = 10
"""Rounds until every machine was read once, announced or not."""
SWEEP_SECONDS = 5.0
"""How often records without an outbox are looked for; younger ones still have their writer."""
RESTORE_GRACE_SECONDS = 30.0
"""How long Kafka and the lake may fail before the states are restored without them."""
CHUNK = 256
READ = 2_000

Fleet = Mapping[str, Machine]


class AlarmEngine:
    """Leads, judges and writes. Runs on one event loop; the clock is in Unix seconds."""

    def __init__(
        self,
        service: Service,
        journal: JournalReader,
        metrics: EngineMetrics,
        *,
        settings: AlarmSettings,
        clock: Callable[[], float],
    ) -> None:
        self._service = service
        self._desk: AlarmDesk = service.alarms
        self._store: AlarmStore = service.alarms.store
        self._journal = journal
        self._metrics = metrics
        self._settings = settings
        self._clock = clock
        self.instance = f"engine-{uuid.uuid4().hex[:8]}"
        self.token: str | None = None
        """Proof that this engine is the active one."""
        self.evaluated_at = 0.0
        """When the last evaluation ended, Unix seconds."""
        self.known: dict[str, Alarm] = {}
        self._fleet: Fleet = {}
        self._fleet_at = 0.0
        self._watches: dict[str, ClassWatch] = {}
        self._system = {entry.id: Timers.of(1) for entry in self._system_entries()}
        self._signals: dict[str, Signal] = {}
        self._first_failure: float | None = None
        self.notifier: Notifier | None = None
        self._hears = False
        self._announced: set[str] = set()
        self._swept = 0
        self._had_model: set[str] = set()

    # --- the loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Judge for ever; whatever fails is tried again at the next round."""
        await asyncio.gather(
            self._every(self._settings.evaluate_seconds, "evaluate", self.evaluate),
            self._every(self._settings.risk_seconds, "risk", self.ask_risks, retry=5.0),
            self._every(SWEEP_SECONDS, "sweep", self.sweep),
            self._every(NOTIFY_SECONDS, "notify", self.notify),
            self._every(LISTEN_SECONDS, "listen", self.listen),
        )

    async def _every(
        self,
        seconds: float,
        name: str,
        work: Callable[[], Awaitable[None]],
        retry: float | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun, pause = loop.time(), seconds
            try:
                await work()
                if name == "risk" and self.token is None:
                    pause = min(seconds, 1.0)
            except NotActive as error:
                log.warning("%s", error)
                self._lose()
            except Retryable as error:
                self._metrics.failures.labels(name).inc()
                log.warning("%s: %s", name, error)
                pause = min(seconds, retry or seconds)
            except Exception:
                # Alarms must go on whatever a machine's data, a model or a client does.
                self._metrics.failures.labels(name).inc()
                log.exception("ALERT: the round %s of the alarm engine failed", name)
            await asyncio.sleep(max(0.0, begun + pause - loop.time()))

    async def stop(self) -> None:
        """Let another engine lead at once."""
        if self.token is not None:
            token = self.token
            self._lose()
            await self._store.release(token)

    async def evaluate(self) -> None:
        """One round: lead, judge every machine on its newest features, write what turned."""
        if not await self._lead():
            return
        with self._metrics.evaluation_seconds.time():
            now = self._now()
            await self._read_fleet()
            announced, self._announced = self._announced, set()
            try:
                await self._read_features(announced)
            except BaseException:
                self._announced |= announced
                raise
            await self._read_states()
            await self._read_signals()
            await self._write(self._judge(now))
        self.evaluated_at = self._clock()
        self._metrics.evaluated_at.set(self.evaluated_at)
        self._count_standing()

    # --- leading ----------------------------------------------------------------------------------

    async def _lead(self) -> bool:
        ttl = round(self._settings.lead_seconds * 1_000)
        if self.token is not None:
            if await self._store.renew(self.token, ttl):
                if await self._store.is_there():
                    return True
                log.error("ALERT: Redis was emptied; alarm states are restored from the journal")
                await self._restore(self.token)
                return True
            log.warning("another alarm engine took over, or Redis was emptied")
            self._lose()
        token = await self._store.lead(self.instance, ttl)
        if token is None:
            return False
        if not await self._store.is_there():
            await self._restore(token)
        self.known = await self._store.everything()
        self.token = token
        self._watches.clear()
        self._fleet_at = 0.0
        self._metrics.is_active.set(1)
        log.info("this engine is active (%s); %d alarms known", token, len(self.known))
        return True

    def _lose(self) -> None:
        self.token = None
        self._metrics.is_active.set(0)

    async def _restore(self, token: str) -> None:
        """Fill Redis from the journal; without Kafka or the lake only after some patience."""
        now = self._clock()
        self._first_failure = self._first_failure or now
        is_patient = now - self._first_failure < RESTORE_GRACE_SECONDS
        states: Mapping[str, Alarm] = {}
        for with_tail in (True, False):
            try:
                states = await self._renewing(
                    token, asyncio.to_thread(self._journal.states, with_tail=with_tail)
                )
                break
            except NotActive:
                raise
            except Exception as error:  # polars and deltalake raise many kinds
                if is_patient:
                    await self._store.release(token)
                    self._lose()
                    raise ServiceUnavailable(
                        f"the alarm journal cannot be read yet: {error}"
                    ) from error
                what = "its tail in Kafka" if with_tail else "the lake"
                log.exception("ALERT: alarm states are restored without %s", what)
        self._first_failure = None
        await self._store.restore(states.values(), token)
        self.known = dict(states)
        self._watches.clear()
        self._fleet_at = 0.0
        log.info("%d alarm states restored from the journal", len(states))

    async def _renewing(self, token: str, work: Awaitable[dict[str, Alarm]]) -> dict[str, Alarm]:
        """`work`'s result; the lead is kept meanwhile."""
        task = asyncio.ensure_future(work)
        ttl = round(self._settings.lead_seconds * 1_000)
        while True:
            done, _ = await asyncio.wait({task}, timeout=self._settings.lead_seconds / 3)
            if done:
                return task.result()
            if not await self._store.renew(token, ttl):
                raise NotActive("another alarm engine took over during the restoration")

    # --- reading ----------------------------------------------------------------------------------

    async def _read_fleet(self) -> None:
        if self._clock() - self._fleet_at < self._settings.fleet_seconds:
            return
        fleet = {m.machine_id: m for m in await self._service.reader.machines()}
        self._fleet_at = self._clock()
        if fleet == self._fleet and self._watches:
            return
        if not fleet and self._fleet:
            log.warning("no machine is registered any more; the known ones go on being judged")
            return
        self._fleet = fleet
        groups: dict[str, list[str]] = {}
        for machine in fleet.values():
            groups.setdefault(machine.machine_class, []).append(machine.machine_id)
        watches = {}
        for name, ids in groups.items():
            machine_class = self._service.classes[name]
            if not machine_class.alarms:
                continue
            life = round(3 * self._settings.risk_seconds * US_PER_SECOND)
            made = ClassWatch(machine_class, sorted(ids), self._now(), life)
            if name in self._watches:
                made.take_over(self._watches[name])
            watches[name] = made
        self._watches = watches
        for alarm in self.known.values():
            self._align(alarm)

    async def _read_features(self, announced: AbstractSet[str]) -> None:
        self._swept += 1
        for watch in self._watches.values():
            due = self._due(watch, announced)
            for begin in range(0, len(due), READ):
                ids = due[begin : begin + READ]
                found = await self._service.store.features_of(ids)
                for machine_id, vector in found.items():
                    watch.put(
                        watch.index[machine_id],
                        vector.ts,
                        vector.vector,
                        vector.coverage,
                        vector.feature_set,
                    )

    def _due(self, watch: ClassWatch, announced: AbstractSet[str]) -> list[str]:
        """Machines to read: the announced ones and the next share of all; all while deaf."""
        ids = watch.machine_ids
        if not self._hears or not watch.ts.any():
            return ids
        share = -(-len(ids) // SWEEP_ROUNDS)
        begin = self._swept % SWEEP_ROUNDS * share
        return sorted(set(ids[begin : begin + share]) | (announced & watch.index.keys()))

    async def listen(self) -> None:
        """Hear of new features, so that a round reads those and not the whole fleet."""
        try:
            async with self._service.stream.listen() as inbox:
                # What was written before is not announced again: one more round reads everything.
                heard = await inbox(self._settings.evaluate_seconds)
                while True:
                    if heard is not None and heard[0] == TELEMETRY_CHANNEL:
                        self._announced.update(
                            row["machine_id"] for row in orjson.loads(heard[1])["machines"]
                        )
                    self._hears = True
                    heard = await inbox(self._settings.evaluate_seconds)
        finally:
            self._hears = False

    async def _read_states(self) -> None:
        """Take in what people changed since the last round."""
        standing = await self._store.standing()
        gone = [
            i
            for i, alarm in self.known.items()
            if alarm.state is not AlarmState.NORMAL and i not in standing
        ]
        if gone:
            now_normal = await self._store.get_all(gone)
            for alarm_id in gone:
                self.known.pop(alarm_id)
            self.known |= now_normal
        self.known |= standing

    async def _read_signals(self) -> None:
        await self._tell_own_signals()
        found: dict[str, list[Signal]] = {}
        for signal in await self._store.signals(self._clock()):
            found.setdefault(signal.name, []).append(signal)
        self._signals = {
            name: max(said, key=lambda signal: signal.is_on) for name, said in found.items()
        }

    async def _tell_own_signals(self) -> None:
        at = self._clock()
        status = self._service.slots.status()
        refused = [f"{n}: {refusal.reason}" for n, (_, refusal) in status.items() if refusal]
        self._had_model |= {name for name, (loaded, _) in status.items() if loaded}
        silent = [
            name
            for name in self._watches
            if name in self._had_model | set(status)
            and self._service.ladder.rung(self._service.classes[name]).value != "production"
        ]
        for name, told in (("bundle_refused", refused), ("model_unavailable", silent)):
            await self._store.tell(
                Signal(name, self.instance, bool(told), "; ".join(told)[:300], at)
            )

    # --- judging ----------------------------------------------------------------------------------

    def _judge(self, now: int) -> list[Alarm]:
        """The alarms that change now, as they become."""
        turns = [turn for watch in self._watches.values() for turn in watch.advance(now)]
        turns += self._judge_system(now)
        turns.sort(key=lambda turn: (turn.since, turn.machine_id, turn.entry.id))
        changed: dict[str, Alarm] = {}
        standing = [a for a in self.known.values() if a.is_active]
        for turn in turns:
            alarm = self._alarm(turn)
            if alarm.is_active == turn.is_active:
                continue  # the timers were behind; they are right now
            if turn.is_active:
                alarm = lifecycle.raised(
                    alarm,
                    now,
                    value=turn.value,
                    setpoint=turn.setpoint,
                    prediction_id=turn.prediction_id,
                    is_first_out=lifecycle.first_out(alarm, standing),
                    machine_state=turn.machine_state,
                    detail=turn.detail,
                )
                standing.append(alarm)
            else:
                alarm = lifecycle.returned(alarm, now)
            changed[alarm.alarm_id] = alarm
        for alarm in self.known.values():
            if alarm.alarm_id not in changed and alarm.state is not AlarmState.NORMAL:
                after = self._follow(alarm, now)
                if after is not alarm:
                    changed[after.alarm_id] = after
        return list(changed.values())

    def _follow(self, alarm: Alarm, now: int) -> Alarm:
        """What time and the machine's state do to a standing alarm."""
        entry = self._desk.master.of(alarm)
        if entry is None:
            return lifecycle.removed(alarm, now)
        if alarm.shelved and alarm.shelved.until is not None and alarm.shelved.until <= now:
            return lifecycle.unshelved(alarm, now)
        if alarm.suppressed or (alarm.state is AlarmState.ACKNOWLEDGED and entry.suppressed_in):
            watch = self._watches.get(alarm.machine_class)
            row = None if watch is None else watch.index.get(alarm.machine_id)
            if watch is not None and row is not None:
                state = watch.machine_state(row, entry, now)
                if alarm.suppressed and state is None and not watch.stale(now)[row]:
                    return lifecycle.unsuppressed(alarm, now)
                if not alarm.suppressed and state is not None:
                    return lifecycle.suppressed(alarm, now, state)
        if (
            entry.re_alarm
            and alarm.state is AlarmState.ACKNOWLEDGED
            and alarm.acknowledged_at is not None
            and now - alarm.acknowledged_at >= entry.re_alarm
        ):
            return lifecycle.re_alarmed(alarm, now)
        return alarm

    def _judge_system(self, now: int) -> list[Turn]:
        import numpy as np

        turns = []
        for entry in self._system_entries():
            said = self._signals.get(str(entry.signal))
            code = HOLDS if said is not None and said.is_on else GONE
            timers = self._system[entry.id]
            turned = advance(
                timers, np.array([code], np.int8), now, entry.on_delay, entry.off_delay
            )
            if turned.raised.size or turned.returned.size:
                detail = f"{said.source}: {said.detail}" if said is not None else ""
                turns.append(
                    Turn(entry, "", bool(timers.is_active[0]), int(turned.since[0]), detail=detail)
                )
        return turns

    def _alarm(self, turn: Turn) -> Alarm:
        """The turn's alarm with its entry as it is today."""
        entry, machine = turn.entry, self._fleet.get(turn.machine_id)
        alarm_id = lifecycle.alarm_id(entry.id, turn.machine_id)
        known = self.known.get(alarm_id)
        fresh = Alarm(
            alarm_id=alarm_id,
            definition_id=entry.id,
            machine_id=turn.machine_id,
            machine_class=machine.machine_class if machine else "",
            site=machine.site if machine else "",
            area=machine.area if machine else "",
            kind=entry.kind,
            priority=entry.priority,
            group=entry.group,
            revision=entry.revision,
        )
        if known is None:
            return fresh
        return replace(
            known,
            machine_class=fresh.machine_class,
            site=fresh.site,
            area=fresh.area,
            kind=fresh.kind,
            priority=fresh.priority,
            group=fresh.group,
            revision=fresh.revision,
        )

    # --- writing ----------------------------------------------------------------------------------

    async def _write(self, alarms: Sequence[Alarm]) -> None:
        if not alarms:
            return
        assert self.token is not None  # noqa: S101 - only the active engine judges
        changes = [self._desk.change(a, a.last.from_version if a.last else 0) for a in alarms]
        try:
            written = await self._store.commit(changes, self.token)
        except BaseException:
            for alarm in alarms:
                self._align(self.known.get(alarm.alarm_id) or replace(alarm, is_active=False))
            raise
        kept = [a for a, is_written in zip(alarms, written, strict=True) if is_written]
        lost = [a.alarm_id for a, is_written in zip(alarms, written, strict=True) if not is_written]
        for alarm in kept:
            assert alarm.last is not None  # noqa: S101 - a transition was written
            self._metrics.transitions.labels(alarm.last.transition.value).inc()
            if alarm.last.transition is Transition.REMOVED:
                self.known.pop(alarm.alarm_id, None)
            else:
                self.known[alarm.alarm_id] = alarm
        if lost:
            self._metrics.conflicts.inc(len(lost))
            found = await self._store.get_all(lost)
            for alarm_id in lost:
                self.known.pop(alarm_id, None)
            self.known |= found
            for alarm in alarms:
                if alarm.alarm_id in lost:
                    self._align(found.get(alarm.alarm_id) or replace(alarm, is_active=False))
        self._desk.journal(kept)
        await self._store.journaled([f"{a.alarm_id}-{a.version}" for a in kept])

    def _align(self, alarm: Alarm) -> None:
        """Make the timers agree with a stored state."""
        watch = self._watches.get(alarm.machine_class)
        if watch is not None:
            watch.set_active(alarm.definition_id, alarm.machine_id, is_active=alarm.is_active)
        elif not alarm.machine_id and alarm.definition_id in self._system:
            self._system[alarm.definition_id].is_active[0] = alarm.is_active

    async def sweep(self) -> None:
        """Journal records whose writer died before they were in its outbox."""
        if self.token is None:
            return
        before = self._now() - round(SWEEP_SECONDS * US_PER_SECOND)
        found = await self._store.pending(before)
        self._metrics.pending.set(len(found))
        if found:
            self._desk.journal_records(found)
            await self._store.journaled([each["journal_id"] for each in found])
            log.warning("%d journal records were left behind and are on their way now", len(found))

    async def notify(self) -> None:
        """Tell the pager what it does not know yet."""
        if self.token is not None and self.notifier is not None:
            await self.notifier.round(dict(self.known))

    # --- risks ------------------------------------------------------------------------------------

    async def ask_risks(self) -> None:
        """One round of full decisions, for the machines whose class has a risk advisory."""
        if self.token is None:
            return
        for name, watch in list(self._watches.items()):
            if not any(e.source is AlarmSource.RISK for e in watch.machine_class.alarms):
                continue
            for begin in range(0, len(watch.machine_ids), CHUNK):
                ids = watch.machine_ids[begin : begin + CHUNK]
                machines = [self._fleet[i] for i in ids if i in self._fleet]
                answers = await self._service.predictions.predict_all(machines, lifecycle.ENGINE)
                loaded = self._service.slots.get(name)
                levels = dict(loaded.bundle.thresholds) if loaded is not None else {}
                current = self._watches.get(name, watch)
                for answer in answers:
                    risk = Risk(answer["probability"], answer["prediction_id"], self._now(), levels)
                    current.put_risk(answer["machine_id"], risk)
        self._metrics.risks_at.set(self._clock())

    # --- small things -----------------------------------------------------------------------------

    def _system_entries(self) -> list[AlarmDefinition]:
        return [entry for name, entry in self._desk.master if not name]

    def _count_standing(self) -> None:
        counts: dict[tuple[str, str], int] = {}
        for alarm in self.known.values():
            key = alarm.kind.value, alarm.state.value
            counts[key] = counts.get(key, 0) + 1
        self._metrics.standing.clear()
        for (kind, state), count in counts.items():
            if state != AlarmState.NORMAL:
                self._metrics.standing.labels(kind, state).set(count)

    def _now(self) -> int:
        return round(self._clock() * US_PER_SECOND)
