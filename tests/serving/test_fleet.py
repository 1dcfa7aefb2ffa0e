from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from aegisops.lake import Lake
from aegisops.machines.model import US_PER_HOUR, US_PER_SECOND
from aegisops.names import RiskLevel, Rung
from aegisops.online_store import Machine, OnlineStore, connect
from aegisops.settings import RedisSettings, Settings
from serving import fleet
from serving.console_contract import FleetPage, Sites
from serving.ladder import Judgement
from serving.latest import TREND_POINTS, TREND_STEP, Row, follow
from serving.prediction import Case
from serving.vectors import Vector
from tests.serving.conftest import SOUND, SPINDLE, WORN, Fleet, Running, running
from tests.serving.test_lake_features import register

MACHINE = Machine("m", "cnc_spindle", "S", "A", {"owner": "mechanics"})


def answered(at: int, risk: RiskLevel, before: Row | None = None) -> Row | None:
    vector = Vector(np.zeros(len(SPINDLE.vector)), SPINDLE.feature_set, at, 1.0, "cache")
    case = Case(MACHINE, SPINDLE, vector, "s", at, 0.0, is_current=True)
    judgement = Judgement(Rung.PRODUCTION, risk, "why", "good", probability=0.5)
    return follow(before, case, judgement, {"prediction_id": f"p{at}"})


def test_abnormal_since_is_the_first_of_the_abnormal_answers() -> None:
    row = answered(1, RiskLevel.NORMAL)
    assert row is not None
    assert row["abnormal_since"] is None
    for at, risk in ((2, RiskLevel.ELEVATED), (3, RiskLevel.HIGH), (4, RiskLevel.UNKNOWN)):
        row = answered(at, risk, row)
        assert row is not None
        assert row["abnormal_since"] == 2
    row = answered(5, RiskLevel.NORMAL, row)
    assert row is not None
    assert row["abnormal_since"] is None


def test_an_answer_to_an_earlier_question_changes_nothing() -> None:
    row = answered(10, RiskLevel.HIGH)
    assert answered(9, RiskLevel.NORMAL, row) is None


def test_the_trend_holds_two_hours_in_steps() -> None:
    row: Row | None = None
    for minute in range(300):
        row = answered(minute * 60 * US_PER_SECOND, RiskLevel.NORMAL, row)
    assert row is not None
    times = [point[0] for point in row["trend"]]
    assert len(times) <= TREND_POINTS
    assert {b - a for a, b in pairwise(times)} == {TREND_STEP}
    assert times[0] >= 299 * 60 * US_PER_SECOND - 2 * US_PER_HOUR


def test_the_slope_is_that_of_the_last_hour() -> None:
    old = [(0, 0.0)]
    falling = [(10 * US_PER_HOUR + i * TREND_STEP, 90.0 - i) for i in range(12)]
    slope = fleet.slope_per_hour(old + falling)
    assert slope == pytest.approx(-12.0)
    assert fleet.slope_per_hour(falling[:2]) is None


@pytest.mark.anyio
@pytest.mark.integration
async def test_the_page_shows_the_worst_first_with_what_is_known_of_each(
    api: Running, fleet: Fleet
) -> None:
    for name, rms in (("sound", SOUND), ("worn", WORN), ("silent", None), ("unasked", SOUND)):
        fleet.add(name, rms)
    for name in ("sound", "worn", "silent"):
        await api.predict(name)
    await api.service.latest.flush()
    answer = await api.client.get("/api/v1/machines")
    page = FleetPage.model_validate_json(answer.content)
    assert [m.machine_id for m in page.machines] == ["worn", "silent", "unasked", "sound"]
    assert page.counts == {"high": 1, "elevated": 0, "unknown": 2, "normal": 1}
    worn, silent, unasked, sound = page.machines
    assert worn.is_abnormal
    assert worn.abnormal_since == worn.predicted_at
    assert worn.health.score is not None
    assert worn.health.score < 30
    assert worn.served_by is Rung.PRODUCTION
    assert worn.data_quality.status == "good"
    assert worn.feature_age_seconds is not None
    assert silent.served_by is Rung.ABSTAINED
    assert silent.cause == "no_readings"
    assert unasked.served_by is None
    assert unasked.predicted_at is None
    assert unasked.feature_age_seconds is not None, "the age of the data does not need an answer"
    assert not sound.is_abnormal
    assert page.notice is None


@pytest.mark.anyio
@pytest.mark.integration
async def test_what_is_no_news_of_the_machine_does_not_touch_the_page(
    api: Running, fleet: Fleet
) -> None:
    fleet.add("m", SOUND)
    await api.predict("m", features={"vibration_rms_1h": WORN})
    await api.predict("m", at="2020-01-01T00:00:00Z")
    await api.service.latest.flush()
    assert await api.service.latest.row("m") is None


@pytest.mark.anyio
@pytest.mark.integration
async def test_the_page_filters_and_pages(settings: Settings, api: Running) -> None:
    client = connect(settings.redis)
    OnlineStore(client).register(
        Machine(f"m{i:02d}", "cnc_spindle", "N" if i % 2 else "S", f"area-{i % 3}", {"owner": "o"})
        for i in range(30)
    )
    client.close()

    async def ids(query: str) -> list[str]:
        answer = await api.client.get(f"/api/v1/machines?{query}")
        assert answer.status_code == 200, answer.text
        return [m["machine_id"] for m in answer.json()["machines"]]

    assert len(await ids("site=N")) == 15
    assert await ids("site=N&area=area-0&limit=2") == ["m03", "m09"]
    assert await ids("site=N&area=area-0&limit=2&offset=2") == ["m15", "m21"]
    assert await ids("q=M07") == ["m07"]
    assert await ids("owner=nobody") == []
    assert await ids("risk=high") == []
    assert len(await ids("risk=unknown&sort=machine_id")) == 30
    assert await ids("abnormal=true") == []
    for wrong in ("limit=0", "limit=9999", "offset=-1", "sort=size", "risk=awful"):
        answer = await api.client.get(f"/api/v1/machines?{wrong}")
        assert answer.status_code == 422
    found = Sites.model_validate_json((await api.client.get("/api/v1/sites")).content)
    assert [(s.site, s.machines) for s in found.sites] == [("N", 15), ("S", 15)]
    assert found.owners == ["o"]


@pytest.mark.anyio
@pytest.mark.integration
async def test_without_redis_the_page_still_names_the_machines_and_says_why_no_more(
    settings: Settings, promoted: Path
) -> None:
    register(Lake(settings.lake_root), "m")
    away = settings.model_copy(update={"redis": RedisSettings(url="redis://127.0.0.1:1/0")})
    async with running(away, "viewer") as api:
        page = FleetPage.model_validate_json((await api.client.get("/api/v1/machines")).content)
    assert [m.machine_id for m in page.machines] == ["m"]
    assert page.notice is not None
    assert "Redis does not answer" in page.notice


@pytest.mark.anyio
@pytest.mark.integration
@pytest.mark.slow
async def test_two_hundred_machines_are_one_quick_call(api: Running, fleet: Fleet) -> None:
    for i in range(200):
        fleet.add(f"m{i:03d}", SOUND)
    await api.client.post("/api/v1/predict/batch", json={"all": True})
    await api.service.latest.flush()
    await api.client.get("/api/v1/machines")
    took = []
    for _ in range(5):
        started = time.perf_counter()
        answer = await api.client.get("/api/v1/machines")
        took.append(time.perf_counter() - started)
    assert len(answer.json()["machines"]) == 200
    assert min(took) < 0.1
