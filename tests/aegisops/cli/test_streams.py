"""`aegisops run`, `backfill` and `replay` as people type them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from aegisops.cli import app


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_readings_do_not_go_twice_into_the_lake_by_a_replay():
    days = ("--from", "2026-01-31", "--to", "2026-02-01")
    said = run("replay", *days, "--topic", "aegis.readings.v1", code=2)
    assert "--to-now" in said


def test_a_replay_of_no_time_is_refused():
    said = run("replay", "--from", "2026-01-31", "--to", "2026-01-31", "--topic", "t", code=2)
    assert "not after" in said


@pytest.mark.slow
def test_a_backfill_of_an_empty_lake_says_so_and_a_wrong_span_fails(folder):
    said = run("backfill", "--from", "2026-01-01", "--to", "2026-01-09", "--json")
    made = json.loads(said[said.index("{") :])
    assert (made["days"], made["tiles"], made["features"]) == (0, 0, 0)
    assert "goes on there" in run("backfill", "--from", "2026-01-09", "--to", "2026-01-01", code=1)


@pytest.mark.slow
def test_an_application_that_ends_is_started_again_until_sigterm(folder):
    # The in-memory broker without an identity: refused at every start, with the way out named.
    child = subprocess.Popen(
        [sys.executable, "-m", "aegisops.cli", "run", "lake-writer"], env=dict(os.environ)
    )
    log = folder / "logs" / "lake-writer.log"
    deadline = time.monotonic() + 90
    while not log.exists() or log.read_text().count("AEGIS_KAFKA__CLUSTER_ID") < 2:
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    assert child.wait(40) == 0
