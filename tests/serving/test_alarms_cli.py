"""`aegisops alarms` against a served API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from aegisops.alarms import lifecycle
from aegisops.cli import app
from aegisops.settings import Settings
from tests.serving.test_alarm_journal import history, write
from tests.serving.test_alarms import Engine, engine, now_us, vibration
from tests.serving.test_telemetry import Live, served

__all__ = ["engine"]

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
async def live(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    async with served(settings) as started:
        monkeypatch.setenv("AEGIS_DATA_DIR", str(settings.data_dir))
        monkeypatch.setenv("AEGIS_API__PORT", started.address.rpartition(":")[2])
        monkeypatch.setenv("COLUMNS", "250")
        yield started


async def run(*arguments: str, code: int = 0) -> Result:
    result = await asyncio.to_thread(CliRunner().invoke, app, ["alarms", *arguments])
    assert result.exit_code == code, result.output
    return result


async def test_list_acknowledge_shelve_and_unshelve(live: Live, engine: Engine):
    alarm = lifecycle.raised(vibration(), now_us(), value=7.5, setpoint=6.0, is_first_out=True)
    await engine.put(alarm)
    shown = (await run("list")).output
    assert alarm.alarm_id[:8] in shown
    assert "SP-BRG-04" in shown
    short = alarm.alarm_id[:6]
    assert "is now acknowledged" in (await run("ack", short, "--comment", "going")).output
    told = await run("shelve", short, "--reason", "cable", "--for", "2h", "--json")
    row = json.loads(told.output)
    assert (row["state"], row["shelve_reason"]) == ("shelved", "cable")
    assert "is now unacknowledged" in (await run("unshelve", short)).output
    assert json.loads((await run("list", "--json")).output)["alarms"][0]["is_active"]
    assert json.loads((await run("list", "--advisories", "--json")).output)["alarms"] == []


async def test_what_cannot_be_done_says_why(live: Live, engine: Engine):
    alarm = lifecycle.raised(vibration(), now_us())
    await engine.put(alarm)
    assert "no alarm that stands" in (await run("ack", "nonsense", code=2)).output
    assert (
        "write 30m" in (await run("shelve", "x", "--reason", "y", "--for", "soon", code=2)).output
    )
    await run("ack", alarm.alarm_id)
    assert "acknowledged" in (await run("ack", alarm.alarm_id, code=2)).output


async def test_a_list_that_nobody_keeps_up_to_date_says_so(live: Live, engine: Engine):
    await engine.store.release(engine.token)
    assert "nobody evaluates" in (await run("list", code=1)).output


async def test_journal_and_figures(live: Live, settings: Settings, tmp_path: Path):
    write(settings, history("m-1", now_us() - 60_000_000))
    shown = (await run("journal", "--machine", "m-1")).output
    assert "acknowledged" in shown
    assert "anna" in shown
    assert json.loads((await run("kpi", "--json")).output)["annunciated"] == 1
    assert "1 × vibration_high on m-1" in (await run("kpi")).output
