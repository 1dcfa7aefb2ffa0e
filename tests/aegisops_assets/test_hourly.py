import polars as pl
import pytest
from polars.testing import assert_frame_equal

from aegisops import history
from aegisops.history import Kind, Series, Span
from aegisops.machines.model import US_PER_HOUR
from aegisops.schemas.tables import HOURLY, READINGS
from aegisops_assets.steps import features, hourly, tiles
from tests.aegisops_assets.conftest import make_platform, press_history, register

END = 4 * US_PER_HOUR


def build(platform, **options):
    tiles.build(platform, **options)
    features.build(platform, **options)
    return hourly.build(platform, **options)


def strokes():
    """One each six seconds."""
    readings, _ = press_history()
    return readings.with_columns((pl.col("ts").cast(pl.Int64) * 6).cast(readings.schema["ts"]))


def rows(platform):
    return platform.lake.scan(HOURLY).collect().sort(HOURLY.keys)


@pytest.fixture
def built(tmp_path):
    """Two hours and a half of strokes."""
    platform = make_platform(tmp_path)
    register(platform.lake)
    readings = strokes()
    platform.lake.append(READINGS, readings)
    build(platform)
    return platform


def test_hours_hold_what_their_single_values_say(built):
    force = rows(built).filter(machine_id="press-3", kind="channel", name="force")
    readings = strokes()
    own = readings.filter(machine_id="press-3", channel="force")
    expected = own.group_by(pl.col("ts").dt.truncate("1h")).agg(
        n=pl.len().cast(pl.Float64),
        mean=pl.col("value").mean(),
        min=pl.col("value").min(),
        max=pl.col("value").max(),
    )
    merged = force.join(expected, on="ts", suffix="_expected")
    assert merged.height == 3
    for name in ("n", "mean", "min", "max"):
        assert merged[name].to_list() == pytest.approx(merged[f"{name}_expected"].to_list())


def test_every_model_input_has_its_hours(built):
    press = next(f.machine_class for f in built.fleets())
    found = rows(built).filter(machine_id="press-0", kind="feature")
    assert set(found["name"]) == set(press.vector)
    tonnage = found.filter(name="tonnage")
    assert set(tonnage["mean"]) == {400.0}
    never = found.filter(name="time_since_overhaul")
    assert set(never["n"]) == {0.0}, "a machine that was never overhauled has no such value"
    assert never["mean"].null_count() == never.height


def test_new_days_are_added_and_give_what_a_full_build_gives(built):
    again = hourly.build(built)
    assert again.days == ()
    day = 86_400
    later = strokes().with_columns(pl.col("ts") + pl.duration(seconds=day))
    built.lake.append(READINGS, later)
    made = build(built)
    # The features' day before is written again too: a lifetime value may have moved.
    assert 1 <= len(made.days) <= 2
    before = rows(built)
    assert set(before["ts"].dt.day()) == {1, 2}
    build(built, full=True)
    assert_frame_equal(rows(built), before, rel_tol=1e-9)  # sums in parallel differ in last bits


def test_long_views_read_the_hours_and_agree_with_the_tiles(built):
    press = next(f.machine_class for f in built.fleets())
    over = Span(0, END, US_PER_HOUR)
    for kind, name in ((Kind.CHANNEL, "force"), (Kind.FEATURE, "force_mean_20c")):
        series = Series(press, "press-5", kind, name)
        with_hours = history.read(built.lake, series, over)
        hours = built.lake.scan(HOURLY).collect()
        built.lake.overwrite(HOURLY, hours.clear())
        without = history.read(built.lake, series, over)
        built.lake.overwrite(HOURLY, hours)
        assert with_hours.height == 3
        for column in history.COLUMNS:
            assert with_hours[column].to_list() == pytest.approx(without[column].to_list())


def test_a_month_is_one_file_in_small_sorted_groups(built):
    files = built.lake.open(HOURLY).file_uris()
    assert len(files) == 1
    keys = pl.read_parquet(files[0]).select("machine_id", "kind", "name", "ts")
    assert keys.equals(keys.sort("machine_id", "kind", "name", "ts"))
