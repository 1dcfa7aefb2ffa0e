"""Commands as people type them, without a running stack."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import polars as pl
import pytest
from typer.testing import CliRunner

from aegisops.cli import app
from aegisops.lake import Lake
from aegisops.schemas.tables import DEAD_LETTERS, DRIFT, MACHINES


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(*arguments, code=0, text=None):
    result = CliRunner().invoke(app, list(map(str, arguments)), input=text)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def lake(folder):
    lake = Lake(folder / "lake")
    at = pl.Series([1], dtype=pl.Datetime("us", "UTC"))
    machine = {"machine_id": "m1", "machine_class": "cnc_spindle", "site": "s", "area": "a"}
    lake.append(
        MACHINES, pl.DataFrame(machine | {"attributes": "{}"}).with_columns(registered_at=at)
    )
    return lake


def test_help_imports_nothing_heavy():
    heavy = {"polars", "numpy", "pydantic", "duckdb", "dagster", "mlflow", "confluent_kafka"}
    code = "import sys, aegisops.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert heavy & set(loaded) == set()


def test_sql_gives_csv_json_and_parquet(lake, folder):
    query = ("sql", "-c", "SELECT machine_id, 1.5 AS x FROM bronze.machines")
    assert run(*query, "--format", "csv").stdout == "machine_id,x\nm1,1.5\n"
    assert json.loads(run(*query, "--json").stdout) == [{"machine_id": "m1", "x": 1.5}]
    run(*query, "--format", "parquet", "-o", folder / "out.parquet")
    assert pl.read_parquet(folder / "out.parquet")["machine_id"].to_list() == ["m1"]


def test_sql_parquet_without_a_file_is_refused(lake):
    assert "--output" in run("sql", "-c", "SELECT 1", "--format", "parquet", code=2).output


def test_wrong_sql_is_a_message_not_a_traceback(lake):
    result = run("sql", "-c", "SELEKT 1", code=2)
    assert "syntax error" in result.output
    assert "Traceback" not in result.output


def test_an_interactive_statement_may_span_lines_and_survives_a_mistake(lake):
    result = run("sql", text="nonsense;\nSELECT machine_id\nFROM bronze.machines;\n")
    assert "m1" in result.stdout


def test_a_token_is_minted_for_the_data_folder(folder):
    answer = json.loads(run("token", "--role", "viewer", "--json").stdout)
    assert answer["role"] == "viewer"
    assert answer["token"].count(".") == 2
    assert (folder / "keys").is_dir()


def test_an_unknown_role_is_refused_with_the_known_ones():
    assert "operator" in run("token", "--role", "king", code=2).output


def test_doctor_finds_a_misspelt_setting(monkeypatch):
    monkeypatch.setenv("AEGIS_APY__PORT", "1")
    result = run("doctor", "--json", code=1)
    findings = json.loads(result.stdout)
    assert any("AEGIS_APY__PORT" in f["detail"] and f["status"] == "fail" for f in findings)


def test_doctor_finds_a_wrong_value(monkeypatch):
    monkeypatch.setenv("AEGIS_API__PORT", "many")
    findings = json.loads(run("doctor", "--json", code=1).stdout)
    assert any("AEGIS_API__PORT" in f["detail"] and f["status"] == "fail" for f in findings)


def test_status_says_that_nothing_runs():
    assert json.loads(run("status", "--json", code=3).stdout)["running"] is False


def test_down_without_a_run_is_no_error():
    assert json.loads(run("down", "--json").stdout) == {"stopped": False}


def test_predict_without_an_api_says_how_to_start_one(monkeypatch):
    monkeypatch.setenv("AEGIS_API__PORT", "9")
    assert "aegisops up" in run("predict", "m1", code=75).output


def test_predict_needs_a_machine():
    assert "--all" in run("predict", code=2).output


def test_dead_letters_are_counted_by_reason(folder):
    at = pl.Series([1], dtype=pl.Datetime("us", "UTC"))
    letter = {
        "reason": "not_finite", "detail": "NaN", "machine_id": "m1", "channel": "c", "ts": 1,
        "schema_id": 1, "raw": b"x", "_topic": "t", "_partition": 0, "_offset": 5, "_index": 0,
    }  # fmt: skip
    Lake(folder / "lake").append(DEAD_LETTERS, pl.DataFrame(letter).with_columns(_ingested_at=at))
    answer = json.loads(run("dlq", "list", "--json").stdout)
    assert answer["counts"] == {"not_finite": 1}
    assert answer["newest"][0]["at"] == "t/0/5"
    assert "m1" in run("dlq", "list").stdout


def test_an_evaluation_refuses_a_split_that_is_no_time(tmp_path):
    arguments = ["--machine-class", "azure_pdm", "--split-at", "spring"]
    assert "--split-at" in run("evaluate", tmp_path, *arguments, code=2).output


def test_an_evaluation_never_deletes_a_folder_that_is_not_its_own(tmp_path):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1").write_text("years of work")
    from aegisops.cli.evaluate import _data_folder
    from aegisops.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="other files"), _data_folder(other):
        pass
    assert (other / "chapter1").exists()


def drift_rows(run, day, *values):
    at = datetime(2026, 1, day, tzinfo=UTC)
    names = ("power_mean_1h", "coverage")
    return pl.DataFrame(
        {
            "run_id": run,
            "checked_at": at,
            "machine_class": "cnc_spindle",
            "kind": ["data", "quality"],
            "feature": names,
            "value": values,
            "threshold": 0.25,
            "drifted": [v > 0.25 for v in values],
            "verdict": ["drifted" if v > 0.25 else "steady" for v in values],
            "machines": [["spindle-003"]] * 2,
            "doubtful_modes": [["drive_overload"]] * 2,
            "reference_rows": 300,
            "current_rows": 80,
            "current_from": at,
            "current_until": at,
            "report": run,
        }
    )


def test_drift_shows_the_newest_report_and_what_moved(lake, folder):
    assert "run the job `drift`" in run("drift", code=2).output
    lake.append(DRIFT, drift_rows("old", 1, 0.1, 0.9))
    lake.append(DRIFT, drift_rows("new", 2, 0.4, 0.1))
    printed = run("drift").stdout
    assert "1 drifted, 1 steady" in printed
    for word in ("power_mean_1h", "0.40", "0.25", "spindle-003", "drive_overload", "new.json"):
        assert word in printed
    assert "coverage" not in printed
    assert "coverage" in run("drift", "--all").stdout
    assert {row["run_id"] for row in json.loads(run("drift", "--json").stdout)} == {"new"}
    assert "no drift report" in run("drift", "--machine-class", "press", code=2).output


def test_drift_opens_the_page(lake, folder, monkeypatch):
    lake.append(DRIFT, drift_rows("new", 2, 0.4, 0.1))
    page = folder / "reports" / "drift" / "cnc_spindle" / "new.html"
    page.parent.mkdir(parents=True)
    page.write_text("page")
    opener = folder / "xdg-open"
    opener.write_text(f'#!/bin/sh\necho "$1" > {folder}/opened\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    assert str(page) in run("drift", "--open").stdout.replace("\n", "")
    assert "new.html" in (folder / "opened").read_text()
