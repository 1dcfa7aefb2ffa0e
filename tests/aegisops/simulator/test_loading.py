"""Loading a history into a real lake happens once, whatever interrupts it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from aegisops.errors import ConfigurationError
from aegisops.lake import Lake, Rows
from aegisops.schemas.tables import EVENTS, MACHINES, READINGS, WAVEFORMS, Table
from aegisops.simulator import FleetPlan, history
from aegisops.simulator.loading import load_history, plan_in

PLAN = FleetPlan.ending(datetime(2025, 6, 20, tzinfo=UTC), machines=3, days=9)


class DyingLake(Lake):
    """A lake whose process dies after some commits."""

    left = 0

    def append(self, table: Table, rows: Rows, *args: object, **kwargs: object) -> int:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().append(table, rows, *args, **kwargs)  # type: ignore[arg-type]


def contents(lake: Lake) -> list[pl.DataFrame]:
    tables = (MACHINES, READINGS, WAVEFORMS, EVENTS)
    return [lake.scan(t).collect().sort(t.keys) for t in tables]


def test_the_lake_holds_the_whole_history_and_loading_again_does_nothing(tmp_path: Path) -> None:
    lake, steps = Lake(tmp_path), []
    loaded = load_history(lake, PLAN, progress=lambda done, total: steps.append((done, total)))
    readings = pl.concat(c.readings for c in history(PLAN))
    assert steps[-1] == (27, 27)
    assert loaded.rows[READINGS.name] == readings.height
    stored = lake.scan(READINGS).collect()
    assert stored.sort(READINGS.keys).equals(readings.select(stored.columns).sort(READINGS.keys))
    versions = [lake.version(t) for t in (MACHINES, READINGS, WAVEFORMS, EVENTS)]
    assert load_history(lake, PLAN).rows == dict.fromkeys(loaded.rows, 0)
    assert [lake.version(t) for t in (MACHINES, READINGS, WAVEFORMS, EVENTS)] == versions
    assert plan_in(lake) == PLAN
    assert lake.scan(MACHINES).collect()["machine_id"].sort().to_list() == [
        "spindle-001", "spindle-002", "spindle-003",
    ]  # fmt: skip


@pytest.mark.parametrize("commits", [0, 1, 2, 5])
def test_a_half_finished_load_is_completed_not_duplicated(tmp_path: Path, commits: int) -> None:
    dying = DyingLake(tmp_path / "dying")
    dying.left = commits
    with pytest.raises(KeyboardInterrupt):
        load_history(dying, PLAN)
    load_history(Lake(tmp_path / "dying"), PLAN)
    load_history(Lake(tmp_path / "whole"), PLAN)
    for resumed, whole in zip(
        contents(Lake(tmp_path / "dying")), contents(Lake(tmp_path / "whole")), strict=True
    ):
        assert resumed.equals(whole)


def test_another_fleet_in_the_same_lake_is_refused(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    short = FleetPlan(PLAN.seed, 1, PLAN.start, 1)
    load_history(lake, short)
    with pytest.raises(ConfigurationError, match="already holds a simulated fleet"):
        load_history(lake, FleetPlan(8, 1, PLAN.start, 1))


def test_a_lake_without_a_simulated_fleet_has_no_plan(tmp_path: Path) -> None:
    assert plan_in(Lake(tmp_path)) is None
