"""The views about alerts, costs and models on a history whose outcome is known."""

import datetime as dt
import time

import polars as pl
import pytest

from aegisops.errors import ConfigurationError
from aegisops.lake import Lake
from aegisops.machines import shipped_classes
from aegisops.schemas import tables
from aegisops.warehouse import Warehouse

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
CLASS = shipped_classes()["azure_pdm"]  # horizon 24 h
COSTS = CLASS.costs


def source(offset, **values):
    return {
        "_topic": "t@x", "_partition": 0, "_offset": offset, "_index": 0, "_ingested_at": START,
    } | values  # fmt: skip


def answers(machine, first, hours):
    """(hour, probability) of one machine; high from 0.5 on."""
    return [
        source(
            first + i, prediction_id=f"p{first + i}", machine_id=machine,
            asked_at=START + hour * HOUR, subject="s", served_by="production", probability=p,
            risk="high" if p >= 0.5 else "normal", failure_mode=None, model_version="7",
            model_digest="ab", feature_set=CLASS.feature_set, features_at=START + hour * HOUR,
            vector=[0.0], source="cache", latency_us=1, instance="a", chain_seq=first + i,
            previous_digest="", digest="",
        )
        for i, (hour, p) in enumerate(hours)
    ]  # fmt: skip


@pytest.fixture
def lake(tmp_path):
    """m1 is warned and fails; m2 fails unwarned and cries wolf; m3's alert ends in maintenance or
    feedback; m4's alert is still open."""
    lake = Lake(tmp_path)
    machines = [
        {"machine_id": f"m{i}", "machine_class": "azure_pdm", "site": "s", "area": "",
         "attributes": "{}", "registered_at": START}
        for i in range(1, 5)
    ]  # fmt: skip
    lake.append(tables.MACHINES, pl.DataFrame(machines))
    said = [
        *answers("m1", 0, [(0, 0.1), (50, 0.6), (55, 0.9), (100, 0.1)]),
        *answers("m2", 10, [(0, 0.1), (30, 0.8), (31, 0.7), (200, 0.1)]),
        *answers("m3", 20, [(0, 0.9), (60, 0.9), (200, 0.1)]),
        *answers("m4", 30, [(0, 0.2), (199, 0.9)]),
    ]
    lake.append(
        tables.PREDICTIONS, pl.DataFrame(said, schema_overrides={"failure_mode": pl.String})
    )
    lake.append(
        tables.PREDICTIONS, pl.DataFrame(said[1:2], schema_overrides={"failure_mode": pl.String})
    )
    events = [("m1", 60, "failure", "comp1"), ("m2", 150, "failure", "comp2"),
              ("m3", 10, "maintenance", "comp1")]  # fmt: skip
    lake.append(
        tables.EVENTS,
        pl.DataFrame(
            [
                source(i, machine_id=m, ts=START + h * HOUR, type=kind, code=code, detail="")
                for i, (m, h, kind, code) in enumerate(events)
            ]
        ),
    )
    lake.append(
        tables.FEEDBACK,
        pl.DataFrame(
            [source(0, feedback_id="f", prediction_id="p21", machine_id="m3", ts=START,
                    outcome="prevented", failure_mode="comp1", subject="planner")]
        ),
    )  # fmt: skip
    decision = {
        "decided_at": START, "machine_class": "azure_pdm", "model_version": "7",
        "model_digest": "ab", "decision": "promoted", "decided_by": "x", "reason": "",
        "evidence": "{}",
    }  # fmt: skip
    lake.append(tables.MODEL_DECISIONS, pl.DataFrame([decision]))
    return lake


def test_answers_of_one_episode_are_one_alert_with_what_followed(lake):
    rows = Warehouse(lake.root).run(
        "SELECT machine_id, alert, answers, probability, prediction_id, lead_hours, verdict "
        "FROM alerts ORDER BY ALL"
    )
    assert rows.rows() == [
        ("m1", 1, 2, 0.9, "p1", 10.0, "right"),
        ("m2", 1, 2, 0.8, "p11", None, "wrong"),
        ("m3", 1, 1, 0.9, "p20", None, "undecided"),
        ("m3", 2, 1, 0.9, "p21", None, "right"),
        ("m4", 1, 1, 0.9, "p31", None, "open"),
    ]


def test_alert_precision_counts_only_what_is_decided(lake):
    row = Warehouse(lake.root).run("SELECT * FROM alert_precision").row(0, named=True)
    assert row == {
        "machine_class": "azure_pdm", "served_by": "production", "model_version": "7", "alerts": 5,
        "right_alerts": 2, "wrong_alerts": 1, "undecided_alerts": 1, "open_alerts": 1,
        "precision": 2 / 3, "machines": 4, "median_lead_hours": 10.0,
    }  # fmt: skip


def test_downtime_cost_prices_warned_missed_and_prevented_failures_and_false_alarms(lake):
    rows = Warehouse(lake.root).run("SELECT * FROM downtime_cost ORDER BY machine_id").to_dicts()
    shown = [
        (r["machine_id"], r["failures"], r["warned_failures"], r["missed_failures"],
         r["prevented_failures"], r["wrong_alerts"], r["cost"], r["saved"])
        for r in rows
    ]  # fmt: skip
    missed, planned, wolf = COSTS.missed_failure, COSTS.planned_stop, COSTS.false_alarm
    assert shown == [
        ("m1", 1, 1, 0, 0, 0, planned, missed - planned),
        ("m2", 1, 0, 1, 0, 1, missed + wolf, -wolf),
        ("m3", 0, 0, 0, 1, 0, planned, missed - planned),
    ]
    assert {r["month"].date() for r in rows} == {dt.date(2026, 3, 1)}


def test_model_performance_scores_settled_answers_only(lake):
    row = Warehouse(lake.root).run("SELECT * FROM model_performance").row(0, named=True)
    # Settled: m1 0 h (0), 50 h (1), 55 h (1); m2 0, 30, 31 h (0); m3 60 h (0); m4 0 h (0). Not:
    # each machine's last answer, and m3 at 0 h, which maintenance hides.
    outcomes = [(0.1, 0), (0.6, 1), (0.9, 1), (0.1, 0), (0.8, 0), (0.7, 0), (0.9, 0), (0.2, 0)]
    assert (row["answers"], row["machines"], row["settled_answers"]) == (13, 4, len(outcomes))
    assert row["failure_share"] == 0.25
    brier = sum((p - y) ** 2 for p, y in outcomes) / len(outcomes)
    assert row["brier"] == pytest.approx(brier)
    assert row["brier_skill"] == pytest.approx(1 - brier / (0.25 * 0.75))
    assert row["mean_probability"] == pytest.approx(sum(p for p, _ in outcomes) / len(outcomes))
    assert (row["high_answers"], row["precision_high"], row["recall_high"]) == (5, 0.4, 1.0)
    assert row["promoted_at"] == START


def test_the_lake_can_be_read_as_it_was_at_a_time(tmp_path):
    lake = Lake(tmp_path)
    moments = [dt.datetime.now(dt.UTC)]
    for i in range(3):
        time.sleep(0.02)
        lake.append(
            tables.EVENTS,
            pl.DataFrame([source(i, machine_id="m", ts=START, type="error", code="", detail="")]),
        )
        time.sleep(0.02)
        moments.append(dt.datetime.now(dt.UTC))
    warehouse = Warehouse(tmp_path)
    seen = [
        warehouse.run("SELECT count(*) FROM bronze.events", warehouse.versions_at(moment)).item()
        for moment in moments
    ]
    assert seen == [0, 1, 2, 3]
    with pytest.raises(ConfigurationError, match="latest is 3"):
        warehouse.run("SELECT 1", {"bronze/events": 99})
