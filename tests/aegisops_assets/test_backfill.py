"""A span made again from bronze: the same tables, whatever stood there and however often it ran."""

import json
from datetime import date

import polars as pl
import pytest

from aegisops.errors import ConfigurationError
from aegisops.schemas.tables import FEATURES, TILES
from aegisops_assets import backfill
from aegisops_assets.steps import features, tiles
from tests.aegisops_assets.conftest import fill, make_platform

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
# The presses' cycle clock begins in 1970 and is stored as seconds.
FIRST, LAST = date(1970, 1, 1), date(1970, 1, 1)


@pytest.fixture
def built(tmp_path):
    platform = make_platform(tmp_path)
    fill(platform.lake)
    tiles.build(platform)
    features.build(platform)
    return platform


def tables(platform):
    return [platform.lake.scan(t).collect().sort(t.keys) for t in (TILES, FEATURES)]


def assert_same(before, after):
    for one, other in zip(before, after, strict=True):
        assert one.height
        assert one.equals(other, null_equal=True)


def test_a_span_made_again_is_the_same_however_often(built, tmp_path):
    before = tables(built)
    told = []
    for _ in range(2):
        made = backfill.rebuild(
            built, FIRST, LAST, state=tmp_path / "state", tell=lambda share, _: told.append(share)
        )
        assert_same(before, tables(built))
    assert made.tiles == before[0].height
    assert made.features == before[1].height
    assert made.days == 1
    assert max(told) == 1.0
    assert list((tmp_path / "state").iterdir()) == []  # nothing is left to go on with


def test_what_was_damaged_inside_the_span_is_right_afterwards(built, tmp_path):
    before = tables(built)
    wrong = before[0].with_columns(mean=pl.lit(-1.0))
    built.lake.overwrite(TILES, wrong)
    backfill.rebuild(built, FIRST, LAST, state=tmp_path / "state")
    assert_same(before, tables(built))


def test_a_run_that_was_broken_off_goes_on_where_it_stopped(built, tmp_path, monkeypatch):
    monkeypatch.setattr(backfill, "DAYS_AT_ONCE", 2)
    state = tmp_path / "state"
    begun = []

    build = tiles.build

    def until_the_third(platform, *, days):
        if len(begun) == 2:
            raise KeyboardInterrupt
        begun.append(days)
        return build(platform, days=days)

    monkeypatch.setattr(backfill.tiles, "build", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        backfill.rebuild(built, date(1970, 1, 1), date(1970, 1, 7), state=state)
    assert [str(day) for _, day in begun] == ["1970-01-02", "1970-01-04"]
    kept = json.loads((state / "1970-01-01_1970-01-07.json").read_text())
    assert kept["next"] == "1970-01-05"
    rest = []

    def counted(platform, *, days):
        rest.append(days)
        return build(platform, days=days)

    monkeypatch.setattr(backfill.tiles, "build", counted)
    made = backfill.rebuild(built, date(1970, 1, 1), date(1970, 1, 7), state=state)
    assert [str(day) for day, _ in rest] == ["1970-01-05", "1970-01-07"]
    assert (str(made.resumed_at), made.days) == ("1970-01-05", 1)


def test_a_span_that_ends_before_it_begins_is_refused(built, tmp_path):
    with pytest.raises(ConfigurationError, match="before it begins"):
        backfill.rebuild(built, date(2026, 2, 1), date(2026, 1, 1), state=tmp_path)
