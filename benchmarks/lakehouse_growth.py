"""Claims: a daily run costs the new day and not the history; definitions and ranking are quick.

A year of two machines at 1 Hz × 3 channels, 189 million readings. The first days' builds are the
yardstick for the last days' (≤ 1.3 times). The definitions load in ≤ 1.5 s. The ranking view
answers in ≤ 1 s after its first query; it reads predictions and not readings, so a count over all
readings is measured beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fleet_day import write_classes, write_day

from aegisops.lake import Lake
from aegisops.settings import Settings
from aegisops.warehouse import Warehouse
from aegisops_assets.steps import features, tiles
from aegisops_assets.steps.platform import Platform

MACHINES, DAYS = 2, 365  # 1.9 × 10^8 readings
BAR_GROWTH, BAR_LOAD, BAR_SQL = 1.3, 1.5, 1.0
ROWS = 100_000_000
RANKING = "SELECT * FROM risk_ranking"
HEALTH = "SELECT count(*), max(ts) FROM bronze.readings"


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def daily(platform: Platform) -> float:
    """Tiles and features of whatever is new."""
    return seconds(lambda: (tiles.build(platform), features.build(platform)))


def load_seconds() -> float:
    """A fresh interpreter that loads the code location; its own start is taken off."""
    code = "import aegisops_assets.definitions as d; d.defs.resolve_all_job_defs()"
    whole = min(
        seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True)) for _ in range(3)
    )
    bare = min(
        seconds(lambda: subprocess.run([sys.executable, "-c", ""], check=True)) for _ in range(3)
    )
    return whole - bare


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_classes(folder)
        platform = Platform.of(Settings(data_dir=folder, classes_dir=folder / "classes"))
        lake = Lake(folder / "lake")
        readings = write_day(lake, MACHINES, 0, commits=1)
        tiles.build(platform)  # the first run also imports
        features.build(platform)
        first = []
        for day in (1, 2, 3):
            readings += write_day(lake, MACHINES, day, commits=1)
            first.append(daily(platform))
        for day in range(4, DAYS - 3):
            readings += write_day(lake, MACHINES, day, commits=1)
        daily(platform)
        last = []
        for day in range(DAYS - 3, DAYS):
            readings += write_day(lake, MACHINES, day, commits=1)
            last.append(daily(platform))
        growth = min(last) / min(first)
        warehouse = Warehouse(lake.root)
        with warehouse.connect() as connection:
            opened = seconds(lambda: connection.sql(RANKING).fetchall())
            ranking = min(seconds(lambda: connection.sql(RANKING).fetchall()) for _ in range(3))
            counting = seconds(lambda: connection.sql(HEALTH).fetchall())
    load = load_seconds()
    met = growth <= BAR_GROWTH and load <= BAR_LOAD and ranking <= BAR_SQL and readings >= ROWS
    print(
        json.dumps(
            {
                "readings": readings,
                "first_day_seconds": round(min(first), 2),
                "day_after_a_year_seconds": round(min(last), 2),
                "growth": round(growth, 2),
                "definitions_load_seconds": round(load, 2),
                "ranking_first_seconds": round(opened, 2),
                "ranking_seconds": round(ranking, 3),
                "count_of_all_readings_seconds": round(counting, 2),
                "met": met,
            }
        )
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
