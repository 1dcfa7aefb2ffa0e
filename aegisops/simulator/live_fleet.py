"""Live readings that continue a plan's history without a seam, as records of the wire contracts.

Pure but for its own memory: the clock is an argument. No Kafka and no waiting here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from aegisops.errors import ConfigurationError, UnknownMachine
from aegisops.machines import ChannelKind
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC, EventType, Quality
from aegisops.simulator import sensors
from aegisops.simulator.fleet import MODES, FleetPlan, Floats, Ints, Machine, fleet_of
from aegisops.simulator.sensors import Measured, Station
from aegisops.simulator.wear import Event, Injection

DEFECT_HOURS = 6.0
"""Hours of use from an injected defect to the failure, unless told otherwise."""
MOST_SPEED = 120.0
"""Above it a waveform would be longer than the time between two of them."""


class Message(NamedTuple):
    """One record to publish, keyed by its machine."""

    ts: int
    topic: str
    machine_id: str
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Clock:
    """A machine's time beside the plan's: `now` = `at` + (plan time - `since`) / `speed`, in µs."""

    since: int = 0
    at: int = 0
    speed: float = 1.0
    defect_step: int = 0
    """The first maintenance after this step ends the haste."""

    def of(self, times: Ints) -> Ints:
        """What a person's clock shows at these times of the plan."""
        if self.speed == 1.0:
            return times - self.since + self.at
        shown: Ints = self.at + np.rint((times - self.since) / self.speed).astype(np.int64)
        return shown


@dataclass(slots=True)
class _Running:
    """One machine on its current day."""

    machine: Machine
    block: int
    before: Station
    day: Measured
    after: Station
    step: int
    """Next step to send."""
    injections: tuple[Injection, ...] = ()
    clock: Clock = Clock()


class LiveFleet:
    """The plan's machines after its history.

    Args:
        plan: the fleet; its history ends where this begins.
        resume_at: everything before this time (µs) has been sent already; default the plan's end.
        readings_from: older readings are left out, as if the machines had been off line; events
            are not, because features count from them. Default: send every reading.
    """

    def __init__(
        self, plan: FleetPlan, resume_at: int | None = None, readings_from: int = 0
    ) -> None:
        self.plan = plan
        self.readings_from = readings_from
        begin = max(plan.end, resume_at if resume_at is not None else plan.end)
        self._running = {m.machine_id: self._start(m, begin) for m in fleet_of(plan)}

    def due(self, now: int, limit: int | None = None) -> list[Message]:
        """Records with a source time up to `now` (µs) that were not returned before, in time order.

        With `limit` no machine sends more than so many readings; ask again for the rest.
        """
        messages: list[Message] = []
        for running in self._running.values():
            left = limit if limit is not None else 2**62
            while left > 0:
                count, found = self._advance(running, now, left)
                messages += found
                left -= count
                if running.step < running.day.first + self.plan.block_steps:
                    break
                self._turn(running)
        return sorted(messages, key=lambda m: (m.ts, m.machine_id, m.topic))

    def inject(
        self, machine_id: str, mode: str, hours: float = DEFECT_HOURS, speed: float = 1.0
    ) -> None:
        """Start a defect on the machine's next step; it fails after `hours` of use.

        With a `speed` above 1 the machine lives so many times faster until it is repaired: its
        readings come as much closer together, on the real clock.
        Raises `UnknownMachine`, or `ConfigurationError` for a mode or time that does not exist.
        """
        if machine_id not in self._running:
            raise UnknownMachine(machine_id)
        if mode not in MODES:
            raise ConfigurationError(f"no failure mode {mode!r}; choose one of {', '.join(MODES)}")
        if hours <= 0:
            raise ConfigurationError(f"a defect needs some hours to grow, not {hours}")
        if not 1 <= speed <= MOST_SPEED:
            raise ConfigurationError(f"a machine lives 1 to {MOST_SPEED:g} times as fast as time")
        running = self._running[machine_id]
        running.injections += (Injection(self._next_up(running), mode, hours),)
        running.day, running.after = sensors.measure(
            self.plan, running.machine, running.before, running.injections
        )
        self._pace(running, speed)

    def _pace(self, running: _Running, speed: float) -> None:
        """Another speed from the machine's last reading on, without a jump of its clock."""
        last = self.plan.times(running.machine, running.step - 1, 1)
        defect_step = running.injections[-1].step if running.injections else 0
        running.clock = Clock(int(last[0]), int(running.clock.of(last)[0]), speed, defect_step)

    def _start(self, machine: Machine, begin: int) -> _Running:
        # First step at or after `begin`; history ends with a step before plan.end.
        step = -(-(begin - self.plan.start - machine.phase_us) // self.plan.period)
        step = max(step, self.plan.steps)
        block = step // self.plan.block_steps
        before = sensors.station_at(self.plan, machine, block)
        day, after = sensors.measure(self.plan, machine, before)
        return _Running(machine, block, before, day, after, step)

    def _next_up(self, running: _Running) -> int:
        """The machine's next step at work: a defect cannot start while it is being repaired."""
        left = np.flatnonzero(running.day.is_up[running.step - running.day.first :])
        if left.size:
            return running.step + int(left[0])
        return max(running.day.first + self.plan.block_steps, running.after.state.age.down_until)

    def _turn(self, running: _Running) -> None:
        """Midnight of the plan: go on to the next day."""
        running.block += 1
        running.before = running.after
        running.day, running.after = sensors.measure(
            self.plan, running.machine, running.before, running.injections
        )

    def _advance(self, running: _Running, now: int, limit: int) -> tuple[int, list[Message]]:
        day, first = running.day, running.step - running.day.first
        # Readings that are left out cost nothing, so they do not count against the limit.
        clock = running.clock
        times = clock.of(day.ts)
        begin = max(first, int(np.searchsorted(times, self.readings_from)))
        last = min(int(np.searchsorted(times, now, side="right")), begin + limit)
        if last <= first:
            return 0, []
        messages = [
            message
            for i in range(first, last)
            if (message := self._readings(day, i, int(times[i]))) is not None
        ]
        passed = range(running.step, day.first + last)
        events = [e for e in day.events if e.step in passed]
        messages += [_event(day.machine, e, int(clock.of(np.array([e.ts]))[0])) for e in events]
        running.step = day.first + last
        if clock.speed != 1.0 and any(
            e.type is EventType.MAINTENANCE and e.step > clock.defect_step for e in events
        ):
            self._pace(running, 1.0)
        return max(last - begin, 0), messages

    def _readings(self, day: Measured, i: int, ts: int) -> Message | None:
        if ts < self.readings_from:
            return None
        blocks = [
            self._block(name, ts, signal.values[i], int(signal.quality[i]))
            for name, signal in day.signals.items()
            if signal.is_sent[i]
        ]
        if not blocks:
            return None
        machine_id = day.machine.machine_id
        record = {"machine_id": machine_id, "seq": day.first + i, "sent_at": ts, "blocks": blocks}
        return Message(ts, READINGS_TOPIC, machine_id, record)

    def _block(self, name: str, ts: int, value: Floats, quality: int) -> dict[str, Any]:
        declared = self.plan.machine_class.channels[name]
        is_waveform = declared.kind is ChannelKind.WAVEFORM
        values = np.atleast_1d(value).tolist()
        if quality == Quality.BAD and not is_waveform:
            values = []  # the sensor said "bad" and nothing else
        return {
            "channel": name,
            "start_us": ts,
            "period_us": declared.sample_period if is_waveform else None,
            "quality": quality,
            "values": values,
        }


def stamped(message: Message, now: int) -> Message:
    """The message as sent at `now` (µs): readings carry the sender's clock beside the source's."""
    if message.topic != READINGS_TOPIC:
        return message
    return message._replace(record={**message.record, "sent_at": now})


def _event(machine: Machine, event: Event, ts: int) -> Message:
    record = {
        "machine_id": machine.machine_id,
        "ts": ts,
        "type": str(event.type),
        "code": event.code,
        "detail": event.detail,
    }
    return Message(ts, EVENTS_TOPIC, machine.machine_id, record)
