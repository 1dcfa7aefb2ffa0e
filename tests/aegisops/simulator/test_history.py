"""History: the same bytes every time, rows as declared, all that a fleet does in three weeks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from aegisops.lake import conform
from aegisops.names import EventType, Quality
from aegisops.schemas.tables import EVENTS, READINGS, WAVEFORMS, Table
from aegisops.simulator import Chunk, FleetPlan, fleet_of, history
from aegisops.simulator.truth import sensor_faults, truth

END = datetime(2025, 6, 20, 5, 30, tzinfo=UTC)


def plan(*, seed: int = 7, machines: int = 2, days: float = 3.4) -> FleetPlan:
    return FleetPlan.ending(END, seed=seed, machines=machines, days=days)


def digest(frames: Iterable[pl.DataFrame]) -> str:
    """Hash of the Arrow IPC stream of the concatenated rows."""
    sink = hashlib.sha256()
    buffer = pl.concat(frames).rechunk().write_ipc(None, compression="uncompressed")
    sink.update(buffer.getvalue())
    return sink.hexdigest()


def digests(chunks: list[Chunk], machine_id: str) -> tuple[str, str, str]:
    mine = [c for c in chunks if c.machine.machine_id == machine_id]
    return (
        digest(c.readings for c in mine),
        digest(c.waveforms for c in mine),
        digest(c.events for c in mine),
    )


@pytest.fixture(scope="module")
def three_weeks() -> tuple[FleetPlan, pl.DataFrame, pl.DataFrame]:
    """Readings and events of the demo fleet."""
    wanted = plan(machines=20, days=21)
    chunks = list(history(wanted))
    return (
        wanted,
        pl.concat(c.readings for c in chunks),
        pl.concat(c.events for c in chunks),
    )


def test_two_runs_with_one_seed_give_identical_bytes() -> None:
    first, second = (list(history(plan())) for _ in range(2))
    assert digests(first, "spindle-002") == digests(second, "spindle-002")


def test_another_seed_gives_other_readings() -> None:
    first, second = list(history(plan())), list(history(plan(seed=8)))
    assert digests(first, "spindle-001")[0] != digests(second, "spindle-001")[0]


def test_chunks_and_fleet_size_do_not_change_a_machine() -> None:
    whole = list(history(plan()))
    pieces = list(history(plan(machines=3), chunk_days=1))
    assert len(pieces) > len(whole)
    assert digests(whole, "spindle-002") == digests(pieces, "spindle-002")


def test_a_shorter_history_is_the_beginning_of_a_longer_one() -> None:
    long = plan(machines=1, days=3.4)
    short = FleetPlan(long.seed, 1, long.start, 2.25)
    head, tail = next(history(short)), next(history(long))
    cut = pl.col("ts").cast(pl.Int64) < short.end
    both = [c.readings.sort("channel", "ts") for c in (head, tail)]
    assert both[0].equals(both[1].filter(cut))


@pytest.mark.parametrize(
    ("table", "part"), [(READINGS, "readings"), (WAVEFORMS, "waveforms"), (EVENTS, "events")]
)
def test_rows_conform_to_the_declared_table(table: Table, part: str) -> None:
    frame = pl.concat(getattr(c, part) for c in history(plan()))
    rows = conform(table, frame)
    assert rows.schema.equals(table.schema)
    assert frame.select(table.keys).is_duplicated().sum() == 0
    for name, column in table.columns.items():
        if not column.nullable:
            assert rows.column(name).null_count == 0, name
    assert frame.columns == list(table.columns)


def test_scalar_values_stay_inside_the_physical_limits(
    three_weeks: tuple[FleetPlan, pl.DataFrame, pl.DataFrame],
) -> None:
    wanted, readings, _ = three_weeks
    for channel, rows in readings.group_by("channel"):
        low, high = wanted.machine_class.channels[str(channel[0])].limits
        values = rows["value"].drop_nulls()
        assert values.min() >= low  # type: ignore[operator]
        assert values.max() <= high  # type: ignore[operator]


def test_failures_of_every_mode_occur_and_each_is_repaired(
    three_weeks: tuple[FleetPlan, pl.DataFrame, pl.DataFrame],
) -> None:
    _, _, events = three_weeks
    failures = events.filter(pl.col("type") == EventType.FAILURE)
    count = dict(failures["code"].value_counts().iter_rows())
    assert set(count) == {"bearing_wear", "coolant_loss", "drive_overload"}
    assert min(count.values()) >= 5
    planned = events.filter(
        (pl.col("type") == EventType.MAINTENANCE) & (pl.col("code") == "planned")
    )
    assert planned.height >= 20


def test_a_counter_falls_only_where_a_reset_is_told(
    three_weeks: tuple[FleetPlan, pl.DataFrame, pl.DataFrame],
) -> None:
    _, readings, events = three_weeks
    cycles = readings.filter(pl.col("channel") == "cycles").sort("machine_id", "ts")
    falls = cycles.filter(pl.col("value").diff().over("machine_id") < 0)
    resets = events.filter(pl.col("type") == EventType.COUNTER_RESET)
    assert falls.height >= 1
    assert falls["machine_id"].to_list() == resets.sort("machine_id", "ts")["machine_id"].to_list()
    assert falls["value"].max() <= 5  # type: ignore[operator]


def test_sensor_faults_appear_and_bad_values_are_null(
    three_weeks: tuple[FleetPlan, pl.DataFrame, pl.DataFrame],
) -> None:
    wanted, readings, _ = three_weeks
    faults = sensor_faults(wanted)
    assert set(faults["fault"]) == {"stuck", "drift", "missing", "bad", "spikes"}
    bad = readings.filter(pl.col("quality") == Quality.BAD)
    assert bad.height > 0
    assert bad["value"].null_count() == bad.height
    assert readings.filter(pl.col("quality") == Quality.UNCERTAIN).height > 0
    good = readings.filter(pl.col("quality") == Quality.GOOD)
    assert good["value"].null_count() == 0
    stuck = faults.filter((pl.col("fault") == "stuck") & (pl.col("channel") == "temperature"))
    row = stuck.row(0, named=True)
    during = readings.filter(
        (pl.col("machine_id") == row["machine_id"])
        & (pl.col("channel") == "temperature")
        & (pl.col("ts") >= row["first"])
        & (pl.col("ts") < row["last"])
    )
    assert during.height > 10
    assert during["value"].n_unique() == 1


def test_truth_knows_the_next_failure_the_events_tell(
    three_weeks: tuple[FleetPlan, pl.DataFrame, pl.DataFrame],
) -> None:
    wanted, _, events = three_weeks
    failure = events.filter(pl.col("type") == EventType.FAILURE).row(0, named=True)
    machine = next(m for m in fleet_of(wanted) if m.machine_id == failure["machine_id"])
    known = truth(wanted, machine)
    before = known.filter(pl.col("ts") < failure["ts"]).tail(1).row(0, named=True)
    assert before["next_failure"] == failure["ts"]
    assert before["next_mode"] == failure["code"]
    assert before[f"severity_{failure['code']}"] > 0.95
    assert known.height == wanted.steps


def test_plain_features_tell_the_last_day_before_a_failure_from_health() -> None:
    wanted = plan(machines=12, days=14)
    healthy: dict[str, list[float]] = {"temperature": [], "power": [], "vibration": []}
    failing: dict[str, list[float]] = {"temperature": [], "power": [], "vibration": []}
    channel_of = {
        "coolant_loss": "temperature",
        "drive_overload": "power",
        "bearing_wear": "vibration",
    }
    for chunk in history(wanted):
        known = truth(wanted, chunk.machine).with_columns(
            hours=(pl.col("next_failure") - pl.col("ts")).dt.total_minutes() / 60
        )
        energy = chunk.waveforms.select(
            "ts", pl.lit("vibration").alias("channel"), pl.col("values").list.std().alias("value")
        )
        rows = pl.concat([chunk.readings.select("ts", "channel", "value"), energy]).join(
            known, on="ts"
        )
        rows = rows.filter(pl.col("load") > 0)
        for channel in healthy:
            mine = rows.filter(pl.col("channel") == channel)
            calm = pl.max_horizontal(pl.col("^severity_.*$")) == 0
            healthy[channel] += mine.filter(calm)["value"].drop_nulls().to_list()
        for mode, channel in channel_of.items():
            late = (
                (pl.col("channel") == channel)
                & (pl.col("next_mode") == mode)
                & (pl.col("hours") < 6)
            )
            failing[channel] += rows.filter(late)["value"].drop_nulls().to_list()
    for channel, values in failing.items():
        assert len(values) > 100, channel
        assert np.median(values) > np.percentile(healthy[channel], 95), channel
