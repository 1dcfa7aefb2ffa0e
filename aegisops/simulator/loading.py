"""Writes a plan's history into the lake, once.

Loading again does nothing; a half-finished load is completed.

Commits hold four days of up to 20 machines, so a day of the lake has one file per 20 machines. The
number of the last batch inside a table is part of that batch's own commit (app transaction
`import/simulator/<table>`); the plan is kept the same way beside the registrations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

from aegisops.errors import ConfigurationError
from aegisops.lake import Lake
from aegisops.schemas.tables import EVENTS, MACHINES, READINGS, WAVEFORMS, Table
from aegisops.simulator.fleet import TOPIC, US_PER_DAY, FleetPlan, Machine, fleet_of
from aegisops.simulator.history import Chunk, machine_history

DAYS_PER_COMMIT = 4
MACHINES_PER_COMMIT = 20
_PLAN = ("seed", "machines", "start", "steps")

Progress = Callable[[int, int], None]
"""Called with (machine days done, machine days in all)."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows written by this call, by table name; all zero when everything was there."""

    rows: dict[str, int]


def plan_in(lake: Lake) -> FleetPlan | None:
    """The plan whose history the lake holds (or began to); None for a lake without one."""
    if not lake.exists(MACHINES):
        return None
    handle = lake.open(MACHINES)
    kept = [handle.transaction_version(f"{TOPIC}/plan/{name}") for name in _PLAN]
    values = [int(value) for value in kept if value is not None]
    if len(values) < len(_PLAN):
        return None
    seed, machines, start, steps = values
    plan = FleetPlan(seed, machines, start, 0)
    return FleetPlan(seed, machines, start, steps * plan.period / US_PER_DAY)


def load_history(lake: Lake, plan: FleetPlan, progress: Progress | None = None) -> Loaded:
    """Write machines, readings, waveforms and events of the plan's history.

    Raises `ConfigurationError` when the lake holds another plan's history: the same machines would
    then have two pasts.
    """
    found = plan_in(lake)
    if found is not None and _values(found) != _values(plan):
        raise ConfigurationError(
            f"{lake.root} already holds a simulated fleet ({_told(found)}), not the one asked for "
            f"({_told(plan)}); continue that one, or choose another AEGIS_DATA_DIR"
        )
    machines = fleet_of(plan)
    if found is None:
        kept = {f"{TOPIC}/plan/{k}": v for k, v in zip(_PLAN, _values(plan), strict=True)}
        lake.append(MACHINES, registrations(plan, machines), transactions=kept)
    tables = (READINGS, WAVEFORMS, EVENTS)
    done = {table.name: _last_batch(lake, table) for table in tables}
    rows = dict.fromkeys(done, 0)
    spans, total = _spans(plan), _spans(plan) * -(-len(machines) // MACHINES_PER_COMMIT)
    blocks = -(-plan.steps // plan.block_steps)
    if min(done.values()) == total:
        return Loaded(rows)
    meter = _Meter(progress, blocks * len(machines))
    number = 0
    for first in range(0, len(machines), MACHINES_PER_COMMIT):
        group = machines[first : first + MACHINES_PER_COMMIT]
        if min(done.values()) >= number + spans:
            number += spans
            meter.add(blocks * len(group))
            continue
        for chunks in _span_by_span(plan, group, meter):
            number += 1
            for table in tables:
                if done[table.name] < number:
                    rows[table.name] += _append(lake, table, chunks, number)
    return Loaded(rows)


def registrations(plan: FleetPlan, machines: Sequence[Machine]) -> pl.DataFrame:
    """Rows of bronze/machines, registered when the recording began."""
    return pl.DataFrame(
        {
            "machine_id": [m.machine_id for m in machines],
            "machine_class": [plan.machine_class.name] * len(machines),
            "site": [m.site for m in machines],
            "area": [m.area for m in machines],
            "attributes": [orjson.dumps(m.attributes).decode() for m in machines],
            "registered_at": pl.Series([plan.start] * len(machines), dtype=pl.Int64).cast(
                pl.Datetime("us", "UTC")
            ),
        }
    )


@dataclass(slots=True)
class _Meter:
    """Counts machine days for the progress callback."""

    progress: Progress | None
    total: int
    done: int = field(default=0)

    def add(self, days: int) -> None:
        self.done += days
        if self.progress is not None:
            self.progress(self.done, self.total)


def _span_by_span(
    plan: FleetPlan, group: Sequence[Machine], meter: _Meter
) -> Iterator[list[Chunk]]:
    """The group's chunks span by span: all machines of a span together make one commit."""
    running = [machine_history(plan, machine, DAYS_PER_COMMIT) for machine in group]
    for _ in range(_spans(plan)):
        chunks: list[Chunk] = []
        for machine in running:
            chunk = next(machine)
            meter.add(chunk.days)
            chunks.append(chunk)
        yield chunks


def _append(lake: Lake, table: Table, chunks: list[Chunk], number: int) -> int:
    frames = {
        READINGS.name: [c.readings for c in chunks],
        WAVEFORMS.name: [c.waveforms for c in chunks],
        EVENTS.name: [c.events for c in chunks],
    }
    frame = pl.concat(frames[table.name])
    lake.append(table, frame, transactions={_app(table): number})
    return frame.height


def _spans(plan: FleetPlan) -> int:
    return -(-plan.steps // (plan.block_steps * DAYS_PER_COMMIT))


def _app(table: Table) -> str:
    return f"{TOPIC}/{table.name}"


def _last_batch(lake: Lake, table: Table) -> int:
    last: Any = lake.ensure(table).transaction_version(_app(table))
    return 0 if last is None else int(last)


def _values(plan: FleetPlan) -> tuple[int, int, int, int]:
    return plan.seed, plan.machines, plan.start, plan.steps


def _told(plan: FleetPlan) -> str:
    return f"seed {plan.seed}, {plan.machines} machines, {plan.days:g} days from {plan.start} µs"
