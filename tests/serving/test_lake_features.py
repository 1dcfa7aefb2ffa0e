from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from aegisops.features.batch import features_at, values_from_bronze
from aegisops.lake import Lake
from aegisops.names import EventType
from aegisops.schemas.tables import EVENTS, MACHINES, READINGS, TILES, WAVEFORMS
from aegisops.settings import Settings
from serving.contract import Prediction
from serving.lake_features import LakeFeatures
from tests.serving.conftest import SPINDLE, WORN, Fleet, running

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

MINUTE = 60_000_000


def fill(
    lake: Lake, machine_id: str, until: float, minutes: int = 180, level: float = WORN
) -> None:
    """One reading a minute of every channel up to `until` (Unix seconds), and a maintenance."""
    last = round(until * 1e6)
    ts = np.arange(last - (minutes - 1) * MINUTE, last + 1, MINUTE)
    now = datetime.now(UTC)
    rng = np.random.default_rng(1)
    source = {"_topic": "t", "_partition": 0, "_index": 0, "_ingested_at": now}
    base = pl.DataFrame({"ts": ts}).with_columns(
        pl.lit(machine_id).alias("machine_id"),
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        pl.lit(0).alias("quality").cast(pl.Int8),
        pl.int_range(pl.len()).alias("seq"),
        pl.int_range(pl.len()).alias("_offset"),
        *(pl.lit(v).alias(k) for k, v in source.items()),
    )
    scalars = {
        "temperature": 45 + rng.normal(size=len(ts)),
        "power": 9 + rng.normal(size=len(ts)),
        "cycles": np.arange(len(ts)) * 3.0 + 100,
    }
    for channel, values in scalars.items():
        rows = base.with_columns(pl.lit(channel).alias("channel"), pl.Series("value", values))
        lake.append(READINGS, rows)
    waves = rng.normal(size=(len(ts), 32)) * level
    lake.append(
        WAVEFORMS,
        base.with_columns(
            pl.lit("vibration").alias("channel"),
            pl.lit(1_000).cast(pl.Int64).alias("period_us"),
            pl.Series("values", waves.tolist()),
        ),
    )
    lake.append(
        EVENTS,
        base.head(1).with_columns(
            pl.lit(EventType.MAINTENANCE.value).alias("type"),
            pl.lit("").alias("code"),
            pl.lit("").alias("detail"),
        ),
    )


def register(lake: Lake, machine_id: str) -> None:
    lake.append(
        MACHINES,
        pl.DataFrame(
            {
                "machine_id": [machine_id],
                "machine_class": ["cnc_spindle"],
                "site": ["S"],
                "area": ["A"],
                "attributes": ["{}"],
                "registered_at": [datetime.now(UTC)],
            }
        ),
    )


def expected(lake: Lake, machine_id: str, at: int) -> np.ndarray:
    values = values_from_bronze(
        lake.scan(READINGS), lake.scan(WAVEFORMS), lake.scan(EVENTS), SPINDLE
    )
    points = pl.DataFrame({"machine_id": [machine_id], "ts": [at]})
    return np.array(features_at(values, SPINDLE, {}, points)["vector"][0].to_list())


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake_root)


async def test_a_cache_miss_is_answered_from_the_lake(
    settings: Settings, promoted: Path, fleet: Fleet, lake: Lake
) -> None:
    fill(lake, "m", time.time() - 5)
    fleet.add("m")
    async with running(settings) as api:
        answer = Prediction.model_validate_json((await api.predict("m")).content)
        (record,) = await api.records(1)
    assert answer.source == "lake"
    assert answer.served_by == "production"
    assert answer.risk == "high"
    at = record["features_at"]
    assert isinstance(at, int)
    np.testing.assert_allclose(record["vector"], expected(lake, "m", at), rtol=1e-9)
    assert not np.isnan(record["vector"]).any()


async def test_a_machine_known_only_to_the_lake_is_answered(
    settings: Settings, promoted: Path, lake: Lake
) -> None:
    fill(lake, "m", time.time() - 5)
    register(lake, "m")
    async with running(settings) as api:
        assert (await api.predict("m")).json()["source"] == "lake"
        listed = (await api.client.get("/api/v1/machines")).json()["machines"]
        assert [m["machine_id"] for m in listed] == ["m"]


async def test_a_stale_vector_gives_way_to_fresher_readings_of_the_lake(
    settings: Settings, promoted: Path, fleet: Fleet, lake: Lake
) -> None:
    fill(lake, "m", time.time() - 5)
    fleet.add("m", 1.0, age=3_600)
    async with running(settings) as api:
        answer = (await api.predict("m")).json()
    assert (answer["source"], answer["risk"]) == ("lake", "high")


async def test_when_the_lake_is_stale_too_the_answer_abstains_with_the_age(
    settings: Settings, promoted: Path, fleet: Fleet, lake: Lake
) -> None:
    fill(lake, "m", time.time() - 7_200)
    fleet.add("m", 1.0, age=7_200)
    async with running(settings) as api:
        answer = Prediction.model_validate_json((await api.predict("m")).content)
        latest = Prediction.model_validate_json((await api.predict("m", at="latest")).content)
    assert (answer.served_by, answer.cause) == ("abstained", "stale")
    assert "7200 s" in answer.explanation or "7201 s" in answer.explanation
    assert answer.features_at is not None
    assert latest.served_by == "production"
    assert latest.feature_age_seconds is not None
    assert latest.feature_age_seconds > 7_000


async def test_a_question_about_the_past_is_answered_as_of_then(
    settings: Settings, promoted: Path, fleet: Fleet, lake: Lake
) -> None:
    end = time.time() - 5
    fill(lake, "m", end)
    fleet.add("m", 1.0)
    then = datetime.fromtimestamp(end - 1_800, UTC)
    async with running(settings) as api:
        await api.predict("m", at=then.isoformat())
        too_early = datetime.fromtimestamp(end - 90_000, UTC)
        before = (await api.predict("m", at=too_early.isoformat())).json()
        record = (await api.records(2))[0]
    assert before["cause"] == "no_readings"
    at = record["features_at"]
    assert isinstance(at, int)
    assert then.timestamp() * 1e6 - SPINDLE.step <= at <= then.timestamp() * 1e6
    np.testing.assert_allclose(record["vector"], expected(lake, "m", at), rtol=1e-9)


async def test_a_lake_that_is_too_slow_or_broken_makes_the_answer_abstain(
    settings: Settings, promoted: Path, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    fleet.add("m")
    hold = threading.Event()
    monkeypatch.setattr("serving.features.COLD_SECONDS", 0.0)
    quick = settings.model_copy(
        update={"api": settings.api.model_copy(update={"lake_budget_seconds": 0.05})}
    )

    def slow(*_: object) -> dict[str, object]:
        hold.wait(10)
        return {}

    monkeypatch.setattr(LakeFeatures, "vectors", slow)
    async with running(quick) as api:
        answer = (await api.predict("m")).json()
        hold.set()
        assert (answer["served_by"], answer["cause"]) == ("abstained", "time_budget")

    def broken(*_: object) -> None:
        raise OSError("disk")

    monkeypatch.setattr(LakeFeatures, "vectors", broken)
    async with running(quick) as api:
        answer = (await api.predict("m")).json()
        assert (answer["served_by"], answer["cause"]) == ("abstained", "lake_away")
        assert "disk" not in answer["detail"]


def test_older_counter_tiles_stand_in_for_old_readings(lake: Lake, tmp_path: Path) -> None:
    from aegisops.features.batch import tiles_from_values
    from aegisops.online_store import Machine

    end = time.time() - 5
    fill(lake, "m", end, minutes=4 * 1_440)
    machine = Machine("m", "cnc_spindle")
    features = LakeFeatures(lambda: lake, time.time)
    alone = features.vectors([machine], SPINDLE)["m"]
    values = values_from_bronze(
        lake.scan(READINGS), lake.scan(WAVEFORMS), lake.scan(EVENTS), SPINDLE
    )
    old = values.filter(pl.col("ts") < (end - 2.5 * 86_400) * 1e6)
    tiles = tiles_from_values(old, SPINDLE)
    lake.append(TILES, tiles.with_columns(pl.col("tile_start").dt.date().alias("date")))
    helped = features.vectors([machine], SPINDLE)["m"]
    assert alone.at == helped.at
    np.testing.assert_allclose(helped.values, alone.values, rtol=1e-9)
    np.testing.assert_allclose(alone.values, expected(lake, "m", alone.at or 0), rtol=1e-9)
