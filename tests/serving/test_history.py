from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from aegisops.history import Span
from aegisops.lake import Lake
from aegisops.machines.model import US_PER_HOUR
from aegisops.schemas.tables import EVENTS, HOURLY, READINGS
from aegisops.settings import Settings
from serving.console_contract import History, MachineEvents
from serving.history import gaps
from tests.serving.conftest import Fleet, Running, running

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

SOURCE = {"_topic": "t", "_partition": 0, "_index": 0, "_ingested_at": datetime.now(UTC)}


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake_root)


@pytest.fixture
async def api(settings: Settings, fleet: Fleet) -> AsyncIterator[Running]:
    fleet.add("m")
    fleet.add("theirs", area="B")
    async with running(settings, "viewer", areas=["A"]) as started:
        yield started


def temperatures(lake: Lake, end: float, minutes: int) -> None:
    """A reading a minute up to `end`, without the ten minutes before the last ten."""
    kept = [i for i in range(minutes) if not 10 <= i < 20]
    rows = {
        "machine_id": "m",
        "channel": "temperature",
        "ts": [datetime.fromtimestamp(end - 60 * i, UTC) for i in kept],
        "value": [40.123456789 + i for i in kept],
        "quality": [2 if i == 5 else 0 for i in kept],
        "seq": 0,
        "_offset": kept,
        **SOURCE,
    }
    lake.append(READINGS, pl.DataFrame(rows))


async def test_the_last_hour_comes_with_its_gap_and_its_bad_values(
    api: Running, lake: Lake
) -> None:
    temperatures(lake, time.time() - 30, 60)
    answer = await api.client.get("/api/v1/machines/m/history?channel=temperature")
    assert answer.status_code == 200, answer.text
    found = History.model_validate_json(answer.content)
    assert found.bucket_seconds == 60
    assert len(found.mean) == len(found.count) == found.buckets
    assert sum(found.count) == 49
    assert max(v for v in found.bad_share if v is not None) == 1.0
    assert len(found.gaps) == 1
    assert found.gaps[0].end - found.gaps[0].begin == timedelta(minutes=10)
    assert found.rms is None
    assert all(v is None or len(f"{v:g}") <= 7 for v in found.mean)


async def test_an_answer_that_still_holds_is_not_sent_again(api: Running, lake: Lake) -> None:
    temperatures(lake, 1_780_000_000, 60)
    address = (
        "/api/v1/machines/m/history?channel=temperature"
        "&from=2026-05-28T00:00:00Z&to=2026-05-29T00:00:00Z"
    )
    first = await api.client.get(address)
    assert first.headers["cache-control"] == "private, no-cache"
    assert first.headers["vary"] == "Authorization"
    again = await api.client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    lake.append(READINGS, lake.scan(READINGS).collect().tail(1))
    newer = await api.client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert newer.status_code == 200


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("", "exactly one of"),
        ("channel=temperature&risk=true", "exactly one of"),
        ("channel=pressure", "no channel of this name"),
        ("feature=nonsense", "no feature of this name"),
        ("channel=temperature&from=2026-01-02&to=2026-01-01", "before"),
        ("channel=temperature&from=1066-10-14T00:00:00Z", "between 1970 and 2200"),
        ("channel=temperature&from=yesterday", "from"),
        ("channel=temperature&points=100000", "points"),
    ],
)
async def test_a_question_that_cannot_be_drawn_is_told_why(
    api: Running, query: str, told: str
) -> None:
    answer = await api.client.get(f"/api/v1/machines/m/history?{query}")
    assert answer.status_code == 422
    assert told in answer.text


async def test_a_machine_outside_the_scope_has_no_history(api: Running) -> None:
    for path in ("history?risk=true", "events"):
        answer = await api.client.get(f"/api/v1/machines/theirs/{path}")
        assert answer.status_code == 404
        assert answer.json()["type"] == "/api/problems/unknown-machine"


async def test_an_empty_lake_gives_empty_buckets(api: Running) -> None:
    answer = await api.client.get("/api/v1/machines/m/history?feature=vibration_rms_1h")
    found = History.model_validate_json(answer.content)
    assert set(found.mean) == {None}
    assert found.gaps == []


async def test_waveforms_have_an_rms(api: Running) -> None:
    answer = await api.client.get("/api/v1/machines/m/history?channel=vibration")
    assert History.model_validate_json(answer.content).rms is not None


async def test_a_lake_that_cannot_be_read_is_a_503_with_the_reason(
    api: Running, settings: Settings
) -> None:
    log = Path(settings.lake_root) / READINGS.name / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("no log")
    answer = await api.client.get("/api/v1/machines/m/history?channel=temperature")
    assert answer.status_code == 503
    assert "the lake cannot be read" in answer.json()["detail"]


async def test_events_are_on_the_same_axis(api: Running, lake: Lake) -> None:
    happened = {
        "machine_id": ["m", "theirs"],
        "ts": [datetime.now(UTC) - timedelta(days=1)] * 2,
        "type": "failure",
        "code": "bearing_wear",
        "detail": "<script>alert(1)</script>",
        "_offset": [0, 1],
        **SOURCE,
    }
    lake.append(EVENTS, pl.DataFrame(happened))
    answer = await api.client.get("/api/v1/machines/m/events")
    found = MachineEvents.model_validate_json(answer.content)
    assert [(e.source, e.type, e.code) for e in found.events] == [
        ("event", "failure", "bearing_wear")
    ]
    assert answer.headers["content-type"] == "application/json"


async def test_a_year_is_small_and_quick(api: Running, lake: Lake) -> None:
    hours = np.arange(24 * 365)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    begin = end - timedelta(days=365)
    rng = np.random.default_rng(0)
    values = rng.normal(40, 5, len(hours))
    rows = pl.DataFrame(
        {
            "machine_id": "m", "kind": "channel", "name": "temperature",
            "ts": [begin + timedelta(hours=int(h)) for h in hours], "n": 60.0, "n_bad": 0.0,
            "mean": values, "mean_square": values**2, "min": values - 1, "max": values + 1,
        }
    )  # fmt: skip
    lake.append(HOURLY, rows.with_columns(month=pl.col("ts").dt.strftime("%Y-%m")))
    address = f"/api/v1/machines/m/history?channel=temperature&from={begin:%Y-%m-%d}&points=1000"
    await api.client.get(address)
    started = time.perf_counter()
    answer = await api.client.get(address)
    took = time.perf_counter() - started
    found = History.model_validate_json(answer.content)
    assert found.bucket_seconds == 12 * 3_600
    # The last hour may be half full: it would be read from finer tables, which are empty here.
    assert sum(found.count) == 60 * (len(hours) - 1)
    assert len(answer.content) < 300_000
    assert took < 1.0


def test_only_runs_of_empty_buckets_between_values_are_gaps() -> None:
    over = Span(0, 10 * US_PER_HOUR, US_PER_HOUR)
    assert gaps(over, set()) == []
    assert gaps(over, {4}) == []
    assert gaps(over, {1, 3}) == [], "one empty bucket is no gap"
    assert gaps(over, {1, 4, 9}) == [
        {"from": "1970-01-01T02:00:00.000Z", "to": "1970-01-01T04:00:00.000Z"},
        {"from": "1970-01-01T05:00:00.000Z", "to": "1970-01-01T09:00:00.000Z"},
    ]
