"""Journal and figures as the API gives them, from Delta."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import polars as pl
import pytest

from aegisops.alarms import journal, lifecycle
from aegisops.alarms.lifecycle import Alarm
from aegisops.lake import Lake
from aegisops.names import Outcome
from aegisops.schemas.tables import ALARM_JOURNAL
from aegisops.settings import Settings
from aegisops.warehouse import Warehouse
from serving import alarm_contract as contract
from serving.alarm_journal import JournalReader
from tests.serving.conftest import Running, running
from tests.serving.test_alarms import vibration

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

BEGIN = round((time.time() - 3_600) * 1e6)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings, "viewer") as started:
        yield started


def write(settings: Settings, alarms: Sequence[Alarm], offset: int = 0) -> None:
    rows = pl.DataFrame([journal.record(a) for a in alarms], infer_schema_length=None)
    Lake(settings.lake_root).append(
        ALARM_JOURNAL,
        rows.with_columns(
            pl.col("changed_at", "raised_at").cast(pl.Datetime("us", "UTC")),
            pl.lit("t@c").alias("_topic"),
            pl.lit(0, pl.Int32).alias("_partition"),
            pl.int_range(offset, offset + pl.len(), dtype=pl.Int64).alias("_offset"),
            pl.lit(0, pl.Int32).alias("_index"),
            pl.lit(datetime.now(UTC)).alias("_ingested_at"),
        ),
    )


def history(machine_id: str, at: int, **more: object) -> list[Alarm]:
    up = lifecycle.raised(vibration(machine_id, **more), at, value=7.0, setpoint=6.0)
    seen = lifecycle.acknowledged(up, at + 1_000_000, "anna", "going")
    return [up, seen, lifecycle.returned(seen, at + 2_000_000)]


async def pages(api: Running, query: str = "") -> list[list[contract.JournalRow]]:
    found, cursor = [], ""
    while True:
        answer = await api.client.get(f"/api/v1/alarms/journal?limit=4{query}{cursor}")
        assert answer.status_code == 200, answer.text
        page = contract.JournalPage.model_validate_json(answer.content)
        found.append(page.records)
        if page.cursor is None:
            return found
        cursor = f"&cursor={page.cursor}"


async def test_the_journal_comes_in_pages_newest_first_and_each_record_once(
    api: Running, settings: Settings
):
    alarms = [a for i in range(3) for a in history(f"m-{i}", BEGIN + i * 500_000)]
    write(settings, alarms)
    write(settings, alarms[:5], offset=100)  # Kafka delivered them again
    found = await pages(api)
    assert [len(page) for page in found] == [4, 4, 1]
    flat = [row for page in found for row in page]
    assert len({row.journal_id for row in flat}) == 9
    assert [row.changed_at for row in flat] == sorted((r.changed_at for r in flat), reverse=True)
    assert {(row.transition, row.subject, row.comment) for row in flat} >= {
        ("acknowledged", "anna", "going"),
        ("raised", "alarm-engine", ""),
    }


async def test_the_journal_can_be_asked_by_machine_alarm_and_time(api: Running, settings: Settings):
    first, second = history("m-0", BEGIN), history("m-1", BEGIN + 10_000_000)
    write(settings, [*first, *second])
    assert {r.machine_id for p in await pages(api, "&machine_id=m-1") for r in p} == {"m-1"}
    (page,) = await pages(api, f"&alarm_id={first[0].alarm_id}")
    assert len(page) == 3
    until = datetime.fromtimestamp((BEGIN + 5_000_000) / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert {r.machine_id for p in await pages(api, f"&to={until}") for r in p} == {"m-0"}


@pytest.mark.parametrize(
    "query",
    ["cursor=nonsense", "limit=0", "from=2026-01-02&to=2026-01-01", "from=2020-01-01", "x=1"],
)
async def test_a_question_that_makes_no_sense_is_refused(api: Running, query: str):
    assert (await api.client.get(f"/api/v1/alarms/journal?{query}")).status_code == 422


async def test_a_token_sees_the_journal_of_its_areas(settings: Settings):
    write(settings, [*history("m-0", BEGIN), *history("m-1", BEGIN, area="B")])
    async with running(settings, "viewer", areas=["B"]) as api:
        assert {r.machine_id for p in await pages(api) for r in p} == {"m-1"}
        figures = (await api.client.get("/api/v1/alarms/kpi")).json()
        assert figures["annunciated"] == 1


async def test_the_figures_come_from_the_journal_alone(api: Running, settings: Settings):
    alarms = [a for i in range(3) for a in history(f"m-{i}", BEGIN + i)]
    write(settings, [*alarms, lifecycle.raised(vibration("m-9"), BEGIN - 26 * 3_600_000_000)])
    write(settings, alarms, offset=100)
    answer = await api.client.get("/api/v1/alarms/kpi")
    figures = contract.AlarmKpi.model_validate_json(answer.content)
    assert figures.annunciated == 3
    assert figures.standing == 1
    assert [row.machine_id for row in figures.stale] == ["m-9"]
    assert figures.median_seconds_to_acknowledge == 1


async def test_without_a_journal_there_are_figures_of_nothing(api: Running):
    answer = await api.client.get("/api/v1/alarms/kpi")
    assert contract.AlarmKpi.model_validate_json(answer.content).annunciated == 0
    assert (await api.client.get("/api/v1/alarms/journal")).json()["records"] == []


def test_states_are_what_the_newest_records_say(settings: Settings):
    alarms = [*history("m-0", BEGIN), lifecycle.raised(vibration("m-1"), BEGIN)]
    write(settings, alarms)
    reader = JournalReader(lambda: Lake(settings.lake_root), settings)
    assert reader.states(with_tail=False) == {a.alarm_id: a for a in alarms[2:]}


def test_sql_shows_every_occurrence_once_with_who_saw_it_and_what_became_of_it(
    settings: Settings,
):
    first = history("m-0", BEGIN)
    told = lifecycle.outcome_reported(
        first[-1], BEGIN + 3_000_000, "ben", Outcome.FALSE_ALARM, "order-1"
    )
    again = lifecycle.raised(told, BEGIN + 9_000_000, value=8.0, machine_state="stopped")
    write(settings, [*first, told, again])
    write(settings, first, offset=100)
    rows = Warehouse(settings.lake_root).run("FROM alarm_history ORDER BY occurrence").to_dicts()
    assert [(r["occurrence"], r["state"], r["outcome"], r["was_hidden"]) for r in rows] == [
        (1, "normal", "false_alarm", False),
        (2, "suppressed", None, True),
    ]
    assert (rows[0]["acknowledged_by"], rows[0]["seconds_to_acknowledge"]) == ("anna", 1.0)
    assert (rows[0]["seconds_active"], rows[1]["seconds_active"]) == (2.0, None)
