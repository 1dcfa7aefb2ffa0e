"""Served vectors against the lake: the same, late readings apart, and a planted skew."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import numpy as np
import polars as pl
import pytest

from aegisops.features import batch
from aegisops.schemas.tables import EVENTS, PREDICTIONS, READINGS, WAVEFORMS
from aegisops_assets.definitions import build_definitions
from aegisops_assets.steps import parity
from tests.aegisops_assets.conftest import SECOND, frame, make_platform, press_history, register

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
NOW = datetime.now(UTC)
AT = 377 * SECOND


@pytest.fixture
def platform(tmp_path):
    platform = make_platform(tmp_path)
    register(platform.lake)
    readings, events = press_history(cycles=400)
    platform.lake.append(READINGS, readings)
    platform.lake.append(EVENTS, events)
    return platform


def served(platform, machine="press-0"):
    """The vector the online store had: everything up to AT, from values alone."""
    fleet = platform.fleets()[0]
    tables = (platform.lake.scan(t) for t in (READINGS, WAVEFORMS, EVENTS))
    values = batch.values_from_bronze(*tables, fleet.machine_class)
    values = values.with_columns(pl.col("machine_id").cast(pl.String))
    points = pl.DataFrame({"machine_id": [machine], "ts": [AT]})
    return np.array(
        batch.features_at(values, fleet.machine_class, fleet.attributes, points)["vector"][0]
    )


def answer(platform, vector, number=0, source="cache", asked_at=NOW):
    rows = frame(
        {
            "prediction_id": [f"p{number}"], "machine_id": "press-0", "asked_at": asked_at,
            "subject": "s", "served_by": "production", "probability": 0.1, "risk": "normal",
            "failure_mode": None, "model_version": "1", "model_digest": "ab",
            "feature_set": platform.fleets()[0].machine_class.feature_set,
            "features_at": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=AT),
            "vector": [vector.tolist()], "source": source, "latency_us": 1, "instance": "a",
            "chain_seq": number, "previous_digest": "", "digest": "", "ts": [AT],
        },
        f"predictions/{number}",
    ).drop("ts")  # fmt: skip
    platform.lake.append(PREDICTIONS, rows.with_columns(pl.col("failure_mode").cast(pl.String)))


def found(platform):
    return parity.report(platform, now=NOW + timedelta(minutes=1))[0]


def test_vectors_that_the_lake_gives_are_no_skew(platform):
    answer(platform, served(platform))
    answer(platform, served(platform), 1, source="lake")
    report = found(platform)
    assert (report.compared, report.skewed, report.left_out) == (2, 0, 0)


def test_a_planted_skew_fails_the_check_and_names_the_feature(platform):
    answer(platform, served(platform))
    skewed = served(platform)
    skewed[1] *= 1.001
    answer(platform, skewed, 1, source="lake")
    name = platform.fleets()[0].machine_class.vector[1]
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(platform).resolve_job_def("parity")
        done = job.execute_in_process(instance=instance)
    check = done.get_asset_check_evaluations()[0]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert f"1 of 2 vectors differ in {name}" in check.description
    metadata = done.asset_materializations_for_node("ml__parity_report")[0].metadata
    example = metadata["press"].value["examples"][0]
    assert (example["prediction_id"], example["feature"]) == ("p1", name)


def test_a_missing_value_that_the_lake_has_is_skew(platform):
    vector = served(platform)
    vector[0] = np.nan
    answer(platform, vector)
    assert found(platform).skewed == 1


def test_readings_that_arrived_after_the_answer_are_no_skew(platform):
    answer(platform, served(platform))
    late = frame(
        {"machine_id": "press-0", "channel": "force", "ts": [AT - SECOND // 2], "value": 4000.0,
         "quality": 0, "seq": 1}, "late",
    ).with_columns(_ingested_at=pl.lit(NOW + timedelta(hours=1)))  # fmt: skip
    platform.lake.append(READINGS, late)
    assert found(platform).skewed == 0


def test_vectors_of_the_caller_and_answers_of_other_days_are_not_compared(platform):
    wrong = served(platform) + 1
    answer(platform, wrong, source="request")
    answer(platform, wrong, 1, asked_at=NOW - timedelta(days=3))
    assert parity.report(platform, now=NOW) == []
