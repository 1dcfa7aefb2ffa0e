"""All machines of one class against the class's entries, as arrays. Pure; no clock, no store.

Who reads features and risks puts them in; `advance` then tells which alarms turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aegisops.alarms.conditions import (
    BETWEEN,
    GONE,
    HOLDS,
    UNKNOWN,
    Bools,
    Codes,
    Floats,
    Timers,
    advance,
    doubtful,
    judge_limit,
)
from aegisops.machines import AlarmDefinition, AlarmSource, Clock, DataFault, MachineClass
from aegisops.machines.durations import US_PER_SECOND


@dataclass(frozen=True, slots=True)
class Turn:
    """An alarm that became active (or inactive), with what to tell about it."""

    entry: AlarmDefinition
    machine_id: str
    is_active: bool
    since: int
    """When the condition first showed so, before its delay; µs."""
    value: float | None = None
    setpoint: float | None = None
    prediction_id: str | None = None
    machine_state: str | None = None
    """State of the machine that explains the condition."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Risk:
    """What the full decision said of a machine."""

    probability: float | None
    prediction_id: str
    at: int
    """µs."""
    levels: dict[str, float]
    """Level (elevated, high) → the model's probability for it; empty without a model."""


class ClassWatch:
    """Newest values of N machines and the timers of every entry of their class."""

    def __init__(
        self, machine_class: MachineClass, machine_ids: Sequence[str], begun_at: int, risk_life: int
    ) -> None:
        """`begun_at`: when the watch began, µs; `risk_life`: age at which a risk is unknown, µs."""
        self.machine_class = machine_class
        self.machine_ids = list(machine_ids)
        self.index = {machine_id: i for i, machine_id in enumerate(self.machine_ids)}
        n = len(self.machine_ids)
        self.values: Floats = np.full((n, len(machine_class.vector)), np.nan)
        self.ts = np.zeros(n, np.int64)
        self.coverage = np.zeros(n)
        self.timers = {entry.id: Timers.of(n) for entry in machine_class.alarms}
        self._begun_at = begun_at
        self._risk_life = risk_life
        self._probability = np.full(n, np.nan)
        self._levels = {level: np.full(n, np.nan) for level in ("elevated", "high")}
        self._risk_at = np.zeros(n, np.int64)
        self._prediction_ids = [""] * n
        self._column = {name: i for i, name in enumerate(machine_class.vector)}
        self._of_channel = {
            name: [i for i, spec in enumerate(machine_class.features) if spec.channel == name]
            for name in machine_class.channels
        }

    def put(
        self, row: int, ts: int, values: npt.NDArray[np.float64], coverage: float, feature_set: str
    ) -> None:
        """The newest vector of a machine; one of another feature set or an older one is ignored."""
        if feature_set == self.machine_class.feature_set and ts >= self.ts[row]:
            self.values[row], self.ts[row], self.coverage[row] = values, ts, coverage

    def put_risk(self, machine_id: str, risk: Risk) -> None:
        """What the full decision said last."""
        row = self.index.get(machine_id)
        if row is None:
            return
        self._probability[row] = np.nan if risk.probability is None else risk.probability
        for level, values in self._levels.items():
            values[row] = risk.levels.get(level, np.nan)
        self._risk_at[row] = risk.at
        self._prediction_ids[row] = risk.prediction_id

    def take_over(self, other: ClassWatch) -> None:
        """Values and timers of the machines that both know: the fleet has changed."""
        rows = [(i, other.index[m]) for m, i in self.index.items() if m in other.index]
        if not rows:
            return
        here, there = np.array(rows).T
        self.values[here], self.ts[here] = other.values[there], other.ts[there]
        self.coverage[here] = other.coverage[there]
        self._probability[here] = other._probability[there]
        self._risk_at[here] = other._risk_at[there]
        for level, values in self._levels.items():
            values[here] = other._levels[level][there]
        for i, k in rows:
            self._prediction_ids[i] = other._prediction_ids[k]
        for name, timers in self.timers.items():
            if name in other.timers:
                timers.is_active[here] = other.timers[name].is_active[there]
                timers.since[here] = other.timers[name].since[there]
        self._begun_at = other._begun_at

    def set_active(self, entry_id: str, machine_id: str, *, is_active: bool) -> None:
        """Make the timers agree with an alarm's stored state."""
        row, timers = self.index.get(machine_id), self.timers.get(entry_id)
        if row is not None and timers is not None and timers.is_active[row] != is_active:
            timers.is_active[row] = is_active
            timers.since[row] = 0

    def stale(self, now: int) -> Bools:
        """Machines [N] without a fresh vector. A cycle clock has no wall-clock age."""
        if self.machine_class.clock is Clock.CYCLES:
            silent: Bools = self.ts == 0
        else:
            silent = now - self.ts > self.machine_class.stale_after
        return silent

    def machine_state(self, row: int, entry: AlarmDefinition, now: int) -> str | None:
        """The state, of those the entry is suppressed in, that the machine is in."""
        for name in entry.suppressed_in:
            rule = self.machine_class.states[name]
            value = self.values[row, self._column[rule.feature]]
            if value <= rule.below and not self.stale(now)[row]:
                return name
        return None

    def advance(self, now: int) -> list[Turn]:
        """Move every timer to `now` (µs); the alarms that turned."""
        stale = self.stale(now)
        turns = []
        for entry in self.machine_class.alarms:
            codes = self._judge(entry, now, stale)
            turned = advance(self.timers[entry.id], codes, now, entry.on_delay, entry.off_delay)
            turns += [
                self._raised(entry, row, int(turned.since[row]), now)
                for row in turned.raised.tolist()
            ]
            turns += [
                Turn(entry, self.machine_ids[row], is_active=False, since=int(turned.since[row]))
                for row in turned.returned.tolist()
            ]
        return turns

    def _judge(self, entry: AlarmDefinition, now: int, stale: Bools) -> Codes:
        if entry.source is AlarmSource.LIMIT:
            assert entry.feature is not None  # noqa: S101 - the model checked it
            assert entry.setpoint is not None  # noqa: S101
            values = np.where(stale, np.nan, self.values[:, self._column[entry.feature]])
            codes = judge_limit(values, entry.setpoint, entry.deadband, entry.direction)
            return doubtful(codes, self.coverage < self.machine_class.min_coverage)
        if entry.source is AlarmSource.RISK:
            limit = self._levels[str(entry.level)]
            margin = np.where(
                now - self._risk_at > self._risk_life, np.nan, self._probability - limit
            )
            return judge_limit(margin, 0.0, entry.deadband, "above")
        return self._judge_data(entry, now, stale)

    def _judge_data(self, entry: AlarmDefinition, now: int, stale: Bools) -> Codes:
        n = len(self.machine_ids)
        if entry.fault is DataFault.NO_DATA:
            # Of a machine that never sent, nothing is known before it had time to.
            waits = (self.ts == 0) & (now - self._begun_at <= self.machine_class.stale_after)
            codes = np.where(stale, np.int8(HOLDS), np.int8(GONE))
            return np.where(waits, np.int8(UNKNOWN), codes)
        if entry.fault is DataFault.LOW_COVERAGE:
            coverage = np.where(stale, np.nan, self.coverage)
            least = self.machine_class.min_coverage
            codes = judge_limit(coverage, least, entry.deadband, "below")
            return np.where(coverage == least, np.int8(BETWEEN), codes)
        missing = np.isnan(self.values[:, self._of_channel[str(entry.channel)]]).all(axis=1)
        codes = np.full(n, UNKNOWN, np.int8)
        codes[~stale & missing] = HOLDS
        codes[~stale & ~missing] = GONE
        return codes

    def _raised(self, entry: AlarmDefinition, row: int, since: int, now: int) -> Turn:
        value: float | None = None
        setpoint = entry.setpoint
        prediction_id = None
        if entry.feature is not None:
            value = float(self.values[row, self._column[entry.feature]])
        elif entry.source is AlarmSource.RISK:
            value = float(self._probability[row])
            setpoint = float(self._levels[str(entry.level)][row])
            prediction_id = self._prediction_ids[row]
        elif entry.fault is DataFault.LOW_COVERAGE:
            value, setpoint = float(self.coverage[row]), self.machine_class.min_coverage
        elif entry.fault is DataFault.NO_DATA:
            setpoint = self.machine_class.stale_after / US_PER_SECOND
            value = (now - int(self.ts[row])) / US_PER_SECOND if self.ts[row] else None
        return Turn(
            entry,
            self.machine_ids[row],
            is_active=True,
            since=since,
            value=value,
            setpoint=setpoint,
            prediction_id=prediction_id,
            machine_state=self.machine_state(row, entry, now),
        )
