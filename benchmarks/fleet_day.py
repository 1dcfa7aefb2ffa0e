"""A fleet at 1 Hz for the lakehouse figures: its machine class and its days of readings."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from aegisops.lake import Lake
from aegisops.machines import MachineClass, load_classes
from aegisops.schemas.tables import MACHINES, READINGS

START = 1_764_028_800_000_000  # 2025-11-25T00:00Z
DAY = 86_400_000_000
CHANNELS = ("power", "temperature", "vibration")
SPINDLE = """
name = "spindle_1hz"
title = "Spindle"
horizon = "24h"
step = "10m"
stale_after = "1h"

[windows]
5m = "10s"
1h = "60s"

[statistics]
vibration = ["rms_5m", "rms_1h", "kurtosis_1h"]
temperature = ["mean_1h", "rate_of_change_1h"]
power = ["deviation_1h"]

[failure_modes.wear]
title = "Wear"
action = "Inspect."
"""


def write_classes(folder: Path) -> MachineClass:
    """The class file, in `folder`/classes."""
    channel = '\n[channels.{}]\nunit = "1"\nperiod = "1s"\nlimits = [-1e9, 1e9]\nbaseline = 1\n'
    (folder / "classes").mkdir(parents=True)
    text = SPINDLE + "".join(channel.format(name) for name in CHANNELS)
    (folder / "classes" / "spindle_1hz.toml").write_text(text)
    return load_classes(folder / "classes")["spindle_1hz"]


def write_day(lake: Lake, machines: int, day: int, commits: int = 24) -> int:
    """One day of every machine and channel at 1 Hz, in commits one after another; rows written."""
    if day == 0:
        lake.append(MACHINES, _machines(machines))
    rng = np.random.default_rng(day)
    each = 86_400 // commits
    for commit in range(commits):
        second = commit * each + np.arange(each)
        parts = [
            pl.DataFrame(
                {
                    "machine_id": f"m{m:03d}",
                    "channel": channel,
                    "ts": START + day * DAY + second * 1_000_000,
                    "value": rng.normal(10, 1, each),
                    "quality": pl.zeros(each, pl.Int8, eager=True),
                    "seq": second,
                    "_topic": f"import/{channel}",
                    "_partition": m,
                    "_offset": day * 86_400 + second,
                    "_index": 0,
                }
            )
            for m in range(machines)
            for channel in CHANNELS
        ]
        rows = pl.concat(parts).with_columns(
            pl.col("ts").cast(pl.Datetime("us", "UTC")),
            _ingested_at=pl.lit(datetime(2025, 11, 25, tzinfo=UTC)),
        )
        lake.append(READINGS, rows)
    return machines * len(CHANNELS) * 86_400


def _machines(count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "machine_id": [f"m{m:03d}" for m in range(count)],
            "machine_class": "spindle_1hz",
            "site": "s",
            "area": "a",
            "attributes": "{}",
            "registered_at": datetime(2025, 1, 1, tzinfo=UTC),
        }
    )
