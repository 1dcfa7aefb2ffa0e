"""What production and shadow said of the same served vectors, and whether it is enough."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from aegisops.lake import Lake
from aegisops.machines import load_class
from aegisops.releases import Pointer
from aegisops.schemas.tables import EVENTS, PREDICTIONS, SHADOW_SCORES
from aegisops.shadow_comparison import ENOUGH_PAIRS, compare, served_pairs

CLASS = load_class("azure_pdm")
H = 3_600_000_000
PRODUCTION, SHADOW = Pointer("1", "aa"), Pointer("2", "bb")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def logged(lake, rows, *, digest="aa", shadow="bb", first=0):
    """rows: (machine, hour, production's probability, shadow's)."""
    frame = pl.DataFrame(
        rows, schema=["machine_id", "hour", "probability", "q"], orient="row"
    ).with_row_index("i")
    ids = pl.format("id-{}", pl.col("i") + first)
    source = {
        "_topic": pl.lit("t"),
        "_partition": pl.lit(0, pl.Int32),
        "_offset": pl.col("i").cast(pl.Int64) + first,
        "_index": pl.lit(0, pl.Int32),
        "_ingested_at": pl.lit(NOW),
        "date": pl.lit(NOW.date()),
    }
    answers = frame.select(
        ids.alias("prediction_id"),
        "machine_id",
        pl.lit(NOW).alias("asked_at"),
        pl.lit("ann").alias("subject"),
        pl.lit("production").alias("served_by"),
        pl.col("probability").cast(pl.Float64),
        pl.lit("normal").alias("risk"),
        pl.lit(None, pl.String).alias("failure_mode"),
        pl.lit("1").alias("model_version"),
        pl.lit(digest).alias("model_digest"),
        pl.lit(CLASS.feature_set).alias("feature_set"),
        (pl.col("hour") * H).cast(pl.Datetime("us", "UTC")).alias("features_at"),
        pl.lit([0.0], pl.List(pl.Float64)).alias("vector"),
        pl.lit("cache").alias("source"),
        pl.lit(1, pl.Int64).alias("latency_us"),
        pl.lit("api").alias("instance"),
        pl.col("i").cast(pl.Int64).alias("chain_seq"),
        pl.lit("x").alias("previous_digest"),
        pl.lit("y").alias("digest"),
        **source,
    )
    scores = frame.select(
        ids.alias("prediction_id"),
        "machine_id",
        pl.lit(NOW).alias("scored_at"),
        pl.lit("2").alias("model_version"),
        pl.lit(shadow).alias("digest"),
        pl.col("q").cast(pl.Float64).alias("probability"),
        **source,
    )
    lake.append(PREDICTIONS, answers.select(list(PREDICTIONS.columns)))
    lake.append(SHADOW_SCORES, scores.select(list(SHADOW_SCORES.columns)))


def happened(lake, *rows):
    frame = pl.DataFrame(rows, schema=["machine_id", "hour", "type", "code"], orient="row")
    lake.append(
        EVENTS,
        frame.with_row_index("_offset").select(
            "machine_id",
            (pl.col("hour") * H).cast(pl.Datetime("us", "UTC")).alias("ts"),
            "type",
            "code",
            pl.lit("").alias("detail"),
            pl.lit(NOW.date()).alias("date"),
            pl.lit("t").alias("_topic"),
            pl.lit(0, pl.Int32).alias("_partition"),
            pl.col("_offset").cast(pl.Int64),
            pl.lit(0, pl.Int32).alias("_index"),
            pl.lit(NOW).alias("_ingested_at"),
        ),
    )


def compared(lake):
    return compare(lake, CLASS, PRODUCTION, SHADOW, elevated=(0.1, 0.1), horizon=CLASS.horizon)


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path)


def fleet_rows(p, q, machines=10, hours=60):
    return [(f"m{m}", h, p(m, h), q(m, h)) for m in range(machines) for h in range(hours)]


def test_only_pairs_of_these_two_models_count_and_each_once(lake):
    rows = [("m0", 1, 0.2, 0.3), ("m0", 2, 0.2, 0.4)]
    logged(lake, rows)
    logged(lake, rows)  # delivered twice
    logged(lake, [("m0", 2, 0.2, 0.4)], first=50)  # asked about twice
    logged(lake, [("m0", 5, 0.9, 0.9)], digest="older", first=60)
    logged(lake, [("m0", 6, 0.9, 0.9)], shadow="older", first=70)
    assert served_pairs(lake, PRODUCTION, SHADOW).rows() == [
        ("m0", H, 0.2, 0.3),
        ("m0", 2 * H, 0.2, 0.4),
    ]


def test_nothing_logged_is_not_enough_and_no_error(lake):
    found = compared(lake)
    assert not found.is_enough
    assert found.objections == []
    assert f"0 of {ENOUGH_PAIRS}" in found.told


def test_without_outcomes_scores_alone_decide(lake):
    logged(lake, fleet_rows(lambda m, h: 0.01 + 0.001 * h, lambda m, h: 0.02 + 0.001 * h))
    found = compared(lake)
    assert found.is_enough
    assert found.mean_difference == pytest.approx(0.01)
    assert found.mean_difference_low == pytest.approx(0.01)
    assert found.mean_difference_high == pytest.approx(0.01)
    assert found.rank_correlation == pytest.approx(1)
    assert found.failed_machines == 0
    assert found.objections == []


def test_a_shadow_that_would_flood_the_control_room_is_refused(lake):
    logged(lake, fleet_rows(lambda m, h: 0.02, lambda m, h: 0.5))
    (why,) = compared(lake).objections
    assert "100.0% of the served vectors elevated, production 0.0%" in why


@pytest.mark.parametrize(("shadow_is_worse", "refused"), [(True, True), (False, False)])
def test_known_outcomes_decide_beyond_chance(lake, shadow_is_worse, refused):
    rng = np.random.default_rng(0)

    def good(m, h):
        return 0.9 if m % 2 and 26 < h < 50 else 0.02

    def bad(m, h):
        return float(rng.random())

    worse, better = (bad, good) if shadow_is_worse else (good, bad)
    logged(lake, fleet_rows(better, worse, hours=100))
    happened(lake, *((f"m{m}", 50, "failure", "comp1") for m in (1, 3, 5, 7, 9)))
    found = compared(lake)
    assert found.known_outcomes > 500
    assert found.failures_ahead == 5 * 24
    assert (found.brier_gain < 0) == shadow_is_worse
    assert found.pr_auc_gain_low < found.pr_auc_gain < found.pr_auc_gain_high
    assert (found.pr_auc_gain_high < 0) == shadow_is_worse
    assert any("production is better" in why for why in found.objections) == refused
