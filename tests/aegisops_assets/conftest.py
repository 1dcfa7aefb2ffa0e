"""A small lake of a class nobody shipped: presses that count strokes instead of time."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from aegisops.lake import Lake
from aegisops.schemas.tables import EVENTS, MACHINES, READINGS
from aegisops.settings import Settings
from aegisops_assets.steps.platform import Platform

PRESS = """
name = "press"
title = "Stamping press"
clock = "cycles"
horizon = "40c"
step = "10c"
stale_after = "100c"

[channels.force]
unit = "kN"
period = "1c"
limits = [0, 5000]
baseline = 900

[channels.oil]
unit = "°C"
period = "2c"
limits = [-20, 150]

[events]
overhaul = { type = "maintenance" }

[attributes]
tonnage = { unit = "t" }

[windows]
20c = "5c"
100c = "10c"

[statistics]
force = ["mean_20c", "std_100c", "deviation_100c"]
oil = ["mean_20c", "rate_of_change_100c"]
overhaul = ["time_since"]

[failure_modes.die_crack]
title = "Die crack"
action = "Change the die."
channels = ["force"]

[[thresholds]]
feature = "force_mean_20c"
warning = 1100
alarm = 1200
failure_mode = "die_crack"
"""
MACHINES_COUNT, CYCLES, LIFE = 9, 1500, 300
SECOND = 1_000_000
INGESTED = datetime(2026, 1, 1, tzinfo=UTC)


def source(name, n, first=0):
    return {
        "_topic": f"import/{name}",
        "_partition": 0,
        "_offset": np.arange(first, first + n),
        "_index": 0,
        "_ingested_at": INGESTED,
    }


def frame(columns, name, first=0):
    n = len(columns["ts"])
    return pl.DataFrame({**columns, **source(name, n, first)}).with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC"))
    )


def press_history(first_cycle=0, cycles=CYCLES):
    """Force rises over the last 60 strokes before a die cracks, every LIFE strokes or so."""
    readings, events = [], []
    for m in range(MACHINES_COUNT):
        rng = np.random.default_rng([11, m])
        lives = LIFE + rng.integers(-60, 60, 3 * CYCLES // LIFE)
        ends = np.cumsum(lives)
        cycle = np.arange(first_cycle, first_cycle + cycles)
        left = ends[np.searchsorted(ends, cycle, side="right")] - cycle
        noise = np.random.default_rng([12, m]).normal(0, 25, 3 * CYCLES)[cycle]
        force = 900 + np.clip(60 - left, 0, None) * 5 + noise
        oil = 45 + 3 * np.sin(cycle / 50)
        name = f"press-{m}"
        for channel, x, every in (("force", force, 1), ("oil", oil, 2)):
            readings.append(
                frame(
                    {
                        "machine_id": name,
                        "channel": channel,
                        "ts": cycle[::every] * SECOND,
                        "value": x[::every],
                        "quality": 0,
                        "seq": cycle[::every],
                    },
                    f"{name}/{channel}",
                    first_cycle,
                )
            )
        failed = ends[(ends >= first_cycle) & (ends < first_cycle + cycles)]
        times = np.repeat(failed, 2) * SECOND
        events.append(
            frame(
                {
                    "machine_id": name,
                    "ts": times,
                    "type": ["failure", "maintenance"] * len(failed),
                    "code": ["die_crack", ""] * len(failed),
                    "detail": "",
                },
                f"{name}/events",
                first_cycle,
            )
        )
    return pl.concat(readings), pl.concat(events)


def make_platform(folder: Path) -> Platform:
    classes = folder / "classes"
    classes.mkdir(parents=True, exist_ok=True)
    (classes / "press.toml").write_text(PRESS)
    return Platform.of(Settings(data_dir=folder, classes_dir=classes))


def register(lake: Lake):
    lake.append(
        MACHINES,
        pl.DataFrame(
            {
                "machine_id": [f"press-{m}" for m in range(MACHINES_COUNT)],
                "machine_class": "press",
                "site": "north",
                "area": "stamping",
                "attributes": '{"tonnage": 400}',
                "registered_at": INGESTED,
            }
        ),
    )


def fill(lake: Lake):
    register(lake)
    readings, events = press_history()
    lake.append(READINGS, readings)
    lake.append(EVENTS, events)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A platform after a whole run, and the run's result. Read only: copy it to change it."""
    import dagster as dg

    from aegisops_assets import materialize

    folder = tmp_path_factory.mktemp("press")
    platform = make_platform(folder)
    fill(platform.lake)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize.run(platform, "everything", instance=instance)
    return platform, result


@pytest.fixture
def copied(finished, tmp_path):
    """The finished platform in a folder of its own."""
    platform, _ = finished
    target = tmp_path / "data"
    shutil.copytree(platform.settings.data_dir, target)
    return make_platform(target)
