"""Claim: a backfill makes features of ≥ 3,000,000 readings/s on 2 cores, in memory that stays flat.

`python -m aegisops_assets.backfill`, a process of its own, over one day (10 million readings: 40
machines × 3 channels at 1 Hz) and over ten days (104 million) in the same lake. Timed from exec to
exit; the larger span must be as fast, and its peak memory at most a quarter above the smaller's and
≤ 2 GB. Writing the readings takes longer than the measurement.
    python benchmarks/backfill.py [MACHINES] [DAYS]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fleet_day import START, write_classes, write_day
from kafka_stack import machine, report

from aegisops.lake import Lake

BAR_RATE, BAR_MB, BAR_GROWTH = 3_000_000, 2_000, 1.25


def rebuild(folder: Path, days: int) -> dict[str, float]:
    """Seconds, peak memory and what was written, of a backfill of the first `days` days."""
    first = datetime.fromtimestamp(START / 1e6, UTC).date()
    last = first + timedelta(days=days - 1)
    env = os.environ | {
        "AEGIS_DATA_DIR": str(folder),
        "AEGIS_CLASSES_DIR": str(folder / "classes"),
    }
    code = (
        "import resource, sys; from aegisops_assets import backfill; code = backfill.main();"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    started = time.perf_counter()
    command = [sys.executable, "-c", code, f"--from={first}", f"--to={last}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    made = json.loads(done.stdout.splitlines()[-1])
    peak = int(done.stderr.split()[-1]) / 1_000
    return {"seconds": took, "peak_mb": peak, "tiles": made["tiles"], "features": made["features"]}


def main(machines: int = 40, days: int = 10) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_classes(folder)
        lake = Lake(folder / "lake")
        result: dict = {"machine": machine()}
        total = write_day(lake, machines, 0)
        small = rebuild(folder, 1) | {"readings": total}
        for day in range(1, days):
            total += write_day(lake, machines, day)
        large = rebuild(folder, days) | {"readings": total}
    for label, run in (("small", small), ("large", large)):
        result[label] = {k: round(v, 2) for k, v in run.items()} | {
            "readings_per_second": round(run["readings"] / run["seconds"])
        }
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    result["cpu_seconds"] = round(own.ru_utime + own.ru_stime, 1)
    result["met"] = (
        result["large"]["readings_per_second"] >= BAR_RATE
        and large["peak_mb"] <= BAR_MB
        and large["peak_mb"] <= BAR_GROWTH * small["peak_mb"]
    )
    report(result)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
