"""`aegisops demo` and `aegisops evaluate` as people run them: every process for real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.integration]

AZURE = Path(os.environ.get("AEGIS_SHARED_DATA", Path(__file__).parents[4] / "shared/data"))

CLASS = """
name = "pump_by_strokes"
title = "Pump counted by strokes"
clock = "cycles"
horizon = "20c"
step = "1c"
stale_after = "5c"
[channels.pressure]
unit = "bar"
period = "1c"
limits = [0, 100]
baseline = 10
[windows]
5c = "1c"
15c = "1c"
[statistics]
pressure = ["mean_5c", "rate_of_change_15c", "deviation_15c"]
[failure_modes.seal]
title = "Seal worn"
action = "Change the seal."
channels = ["pressure"]
[[thresholds]]
feature = "pressure_mean_5c"
warning = 15
alarm = 18
failure_mode = "seal"
"""
MAPPING = """
name = "pumps"
[machine]
column = "pump"
[clock]
cycles = "stroke"
[[readings]]
files = "strokes.csv"
channels = { pressure = { column = "bar", unit = "bar" } }
[[events]]
files = "ends.csv"
type = "failure"
code = "seal"
"""


def aegisops(*arguments, data_dir, timeout=280):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AEGIS_")}
    return subprocess.run(
        [sys.executable, "-m", "aegisops.cli", *map(str, arguments)],
        env=environment | {"AEGIS_DATA_DIR": str(data_dir), "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def write_pumps(folder):
    """40 pumps whose pressure climbs over the last 40 strokes before the seal goes."""
    random = np.random.default_rng(5)
    rows, ends = [], []
    for pump in range(40):
        begin, life = int(random.integers(0, 300)), int(random.integers(90, 160))
        stroke = np.arange(life)
        wear = np.clip(stroke - (life - 40), 0, None) * 0.2
        bar = 10 + wear + random.normal(0, 0.5, life)
        rows += [(f"pump-{pump}", begin + s, round(b, 3)) for s, b in zip(stroke, bar, strict=True)]
        ends.append((f"pump-{pump}", begin + life - 1))
    folder.mkdir()
    schema = ["pump", "stroke", "bar"]
    pl.DataFrame(rows, schema=schema, orient="row").write_csv(folder / "strokes.csv")
    pl.DataFrame(ends, schema=["pump", "stroke"], orient="row").write_csv(folder / "ends.csv")
    (folder / "mapping.toml").write_text(MAPPING)
    (folder / "pump.toml").write_text(CLASS)
    return len(rows)


def test_a_class_nobody_knew_goes_from_files_to_figures_to_an_answer(tmp_path):
    count = write_pumps(tmp_path / "pumps")
    done = aegisops(
        *("evaluate", tmp_path / "pumps", "--machine-class", tmp_path / "pumps/pump.toml"),
        *("--split-at", "250", "--json", tmp_path / "out.json", "--keep", tmp_path / "kept"),
        *("--replicates", 20),
        data_dir=tmp_path / "unused",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["readings_in"] == report["readings_in_delta"] == count
    assert report["duplicates"] == report["refused"] == 0
    assert set(report["horizons"]) == {"20c", "40c"}
    assert report["horizons"]["20c"]["with_errors"]["any"]["pr_auc"] > 0.7

    asked = aegisops(
        "predict", "pump-3", "--data-dir", tmp_path / "kept", "--json", data_dir=tmp_path / "unused"
    )
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)[0]
    assert answer["risk"] in {"elevated", "high"}  # its last stroke was its failure
    assert answer["recommended_action"]["text"] == "Change the seal."

    stranger = aegisops(
        "predict", "pump-99", "--data-dir", tmp_path / "kept", data_dir=tmp_path / "unused"
    )
    assert stranger.returncode == 2
    assert "pump-99" in stranger.stderr


def test_the_demo_answers_for_every_machine_and_leaves_nothing_running(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "half-finished").write_text("of an earlier run")
    done = aegisops(
        *("demo", "--once", "--machines", 6, "--days", 8, "--json", tmp_path / "out.json"),
        data_dir=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert len({a["machine_id"] for a in result["predictions"]}) == 6
    live = [a for a in result["predictions"] if a["source"] == "cache"]
    assert len(live) > 3
    # A machine under repair sends nothing, and its answer says so instead of a number.
    assert {a["cause"] for a in result["predictions"] if a not in live} <= {"stale"}
    assert "Riskiest of 6 machines" in done.stdout
    assert not (tmp_path / "demo" / "half-finished").exists()

    state = json.loads((tmp_path / "run.json").read_text())
    assert [p for p in state["processes"].values() if Path(f"/proc/{p}").exists()] == []
    assert aegisops("status", data_dir=tmp_path).returncode == 3

    query = "SELECT count(*) AS n, count(DISTINCT machine_id) AS machines FROM bronze.predictions"
    told = aegisops("sql", "-c", query, "--json", data_dir=tmp_path)
    assert json.loads(told.stdout)[0]["machines"] == 6  # every answer reached the audit log
    once = aegisops("sql", "-c", "FROM delivery_check", "--json", data_dir=tmp_path)
    assert once.returncode == 0, once.stderr


@pytest.mark.skipif(not (AZURE / "azure_pdm").is_dir(), reason=f"NO REFERENCE DATA in {AZURE}")
def test_the_azure_rows_go_in_as_they_come_out_and_beat_the_published_forest(tmp_path):
    done = aegisops(
        *("evaluate", AZURE / "azure_pdm", "--machine-class", "azure_pdm"),
        *("--split-at", "2015-03-01T00:00", "--horizon", "24h", "--replicates", 20),
        *("--json", tmp_path / "out.json"),
        data_dir=tmp_path / "unused",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["readings_in"] == report["readings_in_delta"] == 172_800
    assert report["duplicates"] == 0
    published = report["published_protocol"]["with_errors"]["any"]
    assert published["f1"] > 0.54
    assert published["pr_auc"] > 0.41
