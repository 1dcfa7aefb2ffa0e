"""Where the live process starts, and what it says when it cannot."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from aegisops.lake import Lake
from aegisops.names import READINGS_TOPIC
from aegisops.schemas.tables import READINGS
from aegisops.simulator import FleetPlan, history
from aegisops.simulator.live import main, resume_at
from aegisops.simulator.loading import load_history

PLAN = FleetPlan.ending(datetime(2025, 6, 20, 5, 30, tzinfo=UTC), machines=2, days=2)


def test_live_readings_start_where_history_or_an_earlier_run_ended(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert resume_at(lake, PLAN) == PLAN.end
    load_history(lake, PLAN)
    assert resume_at(lake, PLAN) == PLAN.end
    longer = FleetPlan(PLAN.seed, PLAN.machines, PLAN.start, 2.5)
    later = pl.concat(c.readings for c in history(longer)).filter(
        pl.col("ts").cast(pl.Int64) >= PLAN.end
    )
    lake.append(READINGS, later.with_columns(pl.lit(READINGS_TOPIC).alias("_topic")))
    assert resume_at(lake, PLAN) == later["ts"].cast(pl.Int64).max() + 1


def test_a_lake_without_a_fleet_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    assert main([]) == 2
    assert "aegisops simulate" in caplog.text
