"""The log's check over real Delta tables, row by row and against heads noted earlier."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from aegisops import audit_log
from aegisops.audit_chain import verify
from aegisops.cli import app
from aegisops.lake import Lake
from aegisops.schemas.tables import PREDICTIONS
from tests.aegisops.test_audit_chain import chain


def store(lake: Lake, records: list[dict[str, Any]]) -> None:
    source = {"_topic": "t", "_partition": 0, "_index": 0, "_ingested_at": datetime.now(UTC)}
    rows = [r | source | {"_offset": i} for i, r in enumerate(records)]
    frame = pl.DataFrame(rows).with_columns(
        pl.col("asked_at", "features_at").cast(pl.Datetime("us", "UTC"))
    )
    lake.append(PREDICTIONS, frame)


@pytest.fixture
def lake(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(audit_log, "_STRETCH", 3)
    return Lake(tmp_path / "lake")


def run(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def test_a_whole_log_holds_and_its_heads_are_told(lake: Lake) -> None:
    records = chain(8)
    store(lake, records[:5])
    store(lake, [*records[5:], records[2], *chain(3, "api-2")])
    answer = json.loads(run("audit", "verify", "--json").stdout)
    assert answer["holds"] is True
    assert answer["faults"] == []
    assert [(c["instance"], c["records"], c["repeats"]) for c in answer["chains"]] == [
        ("api-1", 8, 1),
        ("api-2", 3, 0),
    ]
    assert answer["chains"][0]["digest"] == records[-1]["digest"]


def test_an_empty_log_holds(lake: Lake) -> None:
    assert json.loads(run("audit", "verify", "--json").stdout)["chains"] == []


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda r: r.pop(4), 5),
        (lambda r: r[4].update(probability=0.01), 4),
        (lambda r: r[4].update(vector=[]), 4),
        (lambda r: (r[3].update(chain_seq=4), r[4].update(chain_seq=3)), 3),
        (lambda r: r.pop(0), 1),
    ],
    ids=["removed", "altered", "vector altered", "reordered", "first removed"],
)
def test_each_forgery_shows_with_its_row_whatever_stretch_it_is_in(
    lake: Lake, change: Any, number: int
) -> None:
    records = chain(8)
    change(records)
    store(lake, records)
    faults = json.loads(run("audit", "verify", "--json", code=1).stdout)["faults"]
    assert faults[0]["chain_seq"] == number
    assert faults == [asdict(f) for f in verify(records)]
    assert f"record {number}" in run("audit", "verify", code=1).output


def test_a_tail_cut_off_shows_against_a_head_noted_earlier(lake: Lake, tmp_path: Any) -> None:
    store(lake, chain(8))
    noted = tmp_path / "noted.json"
    noted.write_text(run("audit", "verify", "--json").stdout)
    run("audit", "verify", "--against", noted)
    lake.overwrite(PREDICTIONS, lake.scan(PREDICTIONS).filter(pl.col("chain_seq") < 6).collect())
    run("audit", "verify")
    (fault,) = json.loads(run("audit", "verify", "--against", noted, "--json", code=1).stdout)[
        "faults"
    ]
    assert (fault["chain_seq"], "gone" in fault["problem"]) == (7, True)


def test_a_chain_written_anew_shows_against_a_head_noted_earlier(lake: Lake) -> None:
    store(lake, chain(4))
    heads, _ = audit_log.check(lake)
    forged = dict(asdict(heads[0]), digest="0" * 64)
    (fault,) = audit_log.against(lake, [forged])
    assert "another record" in fault.problem


def test_a_file_that_is_no_earlier_answer_is_refused(lake: Lake, tmp_path: Any) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert (
        "audit verify --json"
        in run("audit", "verify", "--against", tmp_path / "x.json", code=2).output
    )


SPAN = ("--from", "2023-11-14T22:13:20", "--to", "2023-11-14T22:13:20.123459")
"""The first three records of `chain`: asked at …20.123456 and one µs apart."""


def test_an_export_holds_the_span_and_parquet_verifies_by_itself(lake: Lake, tmp_path: Any) -> None:
    store(lake, [*chain(8), *(r | {"machine_id": "n"} for r in chain(8, "api-2"))])
    target = tmp_path / "out.parquet"
    run("audit", "export", *SPAN, "--machine", "m", "-o", target)
    rows = pl.read_parquet(target)
    assert rows["chain_seq"].to_list() == [0, 1, 2]
    assert rows["machine_id"].unique().to_list() == ["m"]
    assert verify(rows.to_dicts()) == []
    run("audit", "export", *SPAN, "-o", target)
    assert pl.read_parquet(target).height == 6


@pytest.mark.parametrize("form", ["csv", "json"])
def test_an_export_as_text_keeps_numbers_and_writes_missing_inputs_as_null(
    lake: Lake, tmp_path: Any, form: str
) -> None:
    records = chain(3)
    store(lake, records)
    target = tmp_path / "out"
    run("audit", "export", *SPAN, "--format", form, "-o", target)
    if form == "csv":
        rows = pl.read_csv(target)
        vector = json.loads(rows["vector"][2])
        probability = rows["probability"][2]
    else:
        rows = json.loads(target.read_text())
        vector, probability = rows[2]["vector"], rows[2]["probability"]
    assert len(rows) == 3
    assert vector == [1.5, None, -0.0, 1e-300]
    assert probability == records[2]["probability"]


def test_a_time_that_is_none_is_refused_and_nothing_is_written(lake: Lake, tmp_path: Any) -> None:
    target = tmp_path / "out.csv"
    result = run("audit", "export", "--from", "spring", "--to", "2026-01-01", "-o", target, code=2)
    assert "--from spring" in result.output
    assert not target.exists()


def test_an_unknown_prediction_is_named(lake: Lake) -> None:
    assert "no prediction 'nobody'" in run("replay-prediction", "nobody", code=2).output


def test_two_records_of_one_id_are_not_guessed_between(lake: Lake) -> None:
    records = chain(3)
    records[2]["prediction_id"] = records[1]["prediction_id"]
    store(lake, records)
    assert "audit verify" in run("replay-prediction", "api-1-1", code=2).output
