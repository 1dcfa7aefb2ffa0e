from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from aegisops import history
from aegisops.features import batch
from aegisops.history import Kind, Series, Span
from aegisops.lake import Lake
from aegisops.machines import load_class
from aegisops.machines.model import US_PER_HOUR, US_PER_SECOND
from aegisops.schemas.tables import (
    EVENTS,
    FEATURES,
    FEEDBACK,
    PREDICTIONS,
    READINGS,
    TILES,
    WAVEFORMS,
)

SPINDLE = load_class("cnc_spindle")
START = 480_000 * US_PER_HOUR
HOURS = 30
EMPTY_EVENTS = pl.from_arrow(EVENTS.schema.empty_table())


def bronze(rows: dict[str, object], n: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            **rows,
            "machine_id": "m",
            "seq": 0,
            "_topic": "import/test",
            "_partition": 0,
            "_offset": np.arange(n),
            "_index": 0,
            "_ingested_at": datetime.now(UTC),
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))


def readings() -> pl.DataFrame:
    """A reading each half minute for 30 h, a tenth of them bad, with a silence of three hours."""
    rng = np.random.default_rng(5)
    ts = START + np.arange(HOURS * 120) * 30 * US_PER_SECOND
    ts = ts[(ts < START + 10 * US_PER_HOUR) | (ts >= START + 13 * US_PER_HOUR)]
    bad = rng.random(len(ts)) < 0.1
    values = rng.normal(40, 5, len(ts))
    rows = {"channel": "temperature", "ts": ts, "value": values, "quality": bad.astype(np.int8)}
    return bronze(rows, len(ts))


def captures() -> pl.DataFrame:
    rng = np.random.default_rng(6)
    ts = START + np.arange(HOURS * 60) * 60 * US_PER_SECOND
    rows = {
        "channel": "vibration",
        "ts": ts,
        "period_us": 1_000,
        "values": rng.normal(0, 2, (len(ts), 32)).tolist(),
        "quality": (rng.random(len(ts)) < 0.1).astype(np.int8),
    }
    return bronze(rows, len(ts))


def fill(lake: Lake, *, tiles_until: int | None = None) -> None:
    scalars, waves = readings(), captures()
    lake.append(READINGS, scalars)
    lake.append(WAVEFORMS, waves)
    if tiles_until is not None:
        early = pl.col("ts").cast(pl.Int64) < tiles_until
        values = batch.values_from_bronze(
            scalars.filter(early), waves.filter(early), EMPTY_EVENTS, SPINDLE
        )
        made = batch.tiles_from_values(values, SPINDLE)
        lake.append(TILES, made.with_columns(pl.col("tile_start").dt.date().alias("date")))


def naive(series: Series, over: Span) -> pl.DataFrame:
    """Every value put into its bucket, one by one."""
    if series.is_waveform:
        rows = [
            (ts, v if q == 0 else None)
            for ts, values, q in captures()
            .select(pl.col("ts").cast(pl.Int64), "values", "quality")
            .iter_rows()
            for v in values
        ]
    else:
        rows = [
            (ts, v if q == 0 else None)
            for ts, v, q in readings()
            .select(pl.col("ts").cast(pl.Int64), "value", "quality")
            .iter_rows()
        ]
    buckets: dict[int, list[float | None]] = {}
    for ts, value in rows:
        if over.begin <= ts < over.end:
            buckets.setdefault(ts // over.width * over.width, []).append(value)
    out = []
    for bucket, values in sorted(buckets.items()):
        good = np.array([v for v in values if v is not None])
        some = len(good) > 0
        out.append(
            {
                "bucket": bucket,
                "n": float(len(good)),
                "n_bad": float(len(values) - len(good)),
                "mean": good.mean() if some else None,
                "mean_square": (good**2).mean() if some else None,
                "min": good.min() if some else None,
                "max": good.max() if some else None,
            }
        )
    return pl.DataFrame(out)


def equal(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert found["bucket"].to_list() == expected["bucket"].to_list()
    for name in history.COLUMNS:
        np.testing.assert_allclose(
            found[name].cast(pl.Float64).to_numpy(),
            expected[name].cast(pl.Float64).to_numpy(),
            rtol=1e-9,
            err_msg=name,
        )


@pytest.mark.parametrize("name", ["temperature", "vibration"])
@pytest.mark.parametrize("points", [20, 100, 1_000])
@pytest.mark.parametrize("tiled_hours", [None, 17.35, HOURS])
def test_every_bucket_is_that_of_the_single_values(
    tmp_path: Path, name: str, points: int, tiled_hours: float | None
) -> None:
    lake = Lake(tmp_path)
    until = None if tiled_hours is None else START + round(tiled_hours * US_PER_HOUR)
    fill(lake, tiles_until=until)
    series = Series(SPINDLE, "m", Kind.CHANNEL, name)
    begin, end = START + 7 * US_PER_HOUR // 3, START + 29 * US_PER_HOUR
    over = history.span(begin, end, points, series.period)
    equal(history.read(lake, series, over), naive(series, over))


def test_another_machine_and_another_channel_are_not_mixed_in(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    fill(lake)
    lake.append(READINGS, readings().with_columns(machine_id=pl.lit("other")))
    series = Series(SPINDLE, "m", Kind.CHANNEL, "temperature")
    over = history.span(START, START + 5 * US_PER_HOUR, 100)
    equal(history.read(lake, series, over), naive(series, over))
    power = Series(SPINDLE, "m", Kind.CHANNEL, "power")
    assert history.read(lake, power, over).is_empty()


def test_widths_are_round_and_never_finer_than_the_readings() -> None:
    for seconds in (60, 3_600, 86_400, 365 * 86_400):
        over = history.span(START + 17, START + seconds * US_PER_SECOND, 600)
        assert over.begin % over.width == over.end % over.width == 0
        assert over.begin <= START + 17
        assert over.end >= START + seconds * US_PER_SECOND
        assert over.buckets <= 602
    assert history.span(START, START + US_PER_HOUR, 4_000, 60 * US_PER_SECOND).buckets == 60


def prediction(ts: int, probability: float | None, rms: float, source: str = "cache") -> dict:
    vector = np.zeros(len(SPINDLE.vector))
    vector[SPINDLE.vector.index("vibration_rms_1h")] = rms
    at = datetime.fromtimestamp(ts / 1e6, UTC)
    return {
        "prediction_id": f"{ts}", "machine_id": "m", "asked_at": at, "subject": "s",
        "served_by": "production", "probability": probability, "risk": "normal",
        "failure_mode": None, "model_version": "1", "model_digest": "d",
        "feature_set": SPINDLE.feature_set, "features_at": at, "vector": vector.tolist(),
        "source": source, "latency_us": 1, "instance": "i", "chain_seq": ts, "previous_digest": "",
        "digest": "", "_topic": "t", "_partition": 0, "_offset": ts, "_index": 0,
        "_ingested_at": at,
    }  # fmt: skip


def test_risk_is_what_was_answered_and_abstentions_count_as_bad(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    minute = 60 * US_PER_SECOND
    rows = [
        prediction(START + 1, 0.2, 1.0),
        prediction(START + 2, 0.4, 1.0),
        prediction(START + 3, None, 1.0),
        prediction(START + 4, 0.99, 1.0, source="request"),
    ]
    lake.append(PREDICTIONS, pl.DataFrame(rows, infer_schema_length=None))
    found = history.read(
        lake,
        Series(SPINDLE, "m", Kind.RISK, "probability"),
        Span(START, START + 10 * minute, minute),
    )
    assert found.to_dicts() == [
        {
            "bucket": START, "n": 2.0, "n_bad": 1.0, "mean": pytest.approx(0.3),
            "mean_square": pytest.approx(0.1), "min": 0.2, "max": 0.4,
        }
    ]  # fmt: skip


def test_a_feature_goes_on_where_the_batch_ends_with_what_predictions_saw(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    step = SPINDLE.step
    index = SPINDLE.vector.index("vibration_rms_1h")
    vectors = np.zeros((3, len(SPINDLE.vector)))
    vectors[:, index] = [1.0, 2.0, 3.0]
    gold = pl.DataFrame(
        {
            "machine_id": "m", "machine_class": SPINDLE.name, "feature_set": SPINDLE.feature_set,
            "ts": START + np.arange(3) * step, "vector": vectors.tolist(), "coverage": 1.0,
        }
    )  # fmt: skip
    lake.append(FEATURES, gold.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))))
    served = [prediction(START + i * step, 0.1, 10.0 * i) for i in (1, 3, 4)]
    lake.append(PREDICTIONS, pl.DataFrame(served, infer_schema_length=None))
    series = Series(SPINDLE, "m", Kind.FEATURE, "vibration_rms_1h")
    found = history.read(lake, series, Span(START, START + 6 * step, step))
    # The batch's last row may still move, so from it on the newer source counts.
    assert found["mean"].to_list() == [1.0, 2.0, 30.0, 40.0]


def test_events_and_feedback_come_in_order_of_time(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    happened = bronze(
        {
            "ts": [START + 5, START + 1],
            "type": ["failure", "maintenance"],
            "code": ["bearing_wear", ""],
            "detail": "",
        },
        2,
    ).drop("seq")
    lake.append(EVENTS, happened)
    told = bronze(
        {
            "feedback_id": ["a", "a"],
            "prediction_id": "p",
            "ts": [START + 3] * 2,
            "outcome": "confirmed",
            "failure_mode": None,
            "subject": "s",
        },
        2,
    ).drop("seq")
    lake.append(FEEDBACK, told.with_columns(pl.col("failure_mode").cast(pl.String)))
    found = history.events(lake, "m", START, START + 10)
    assert found.select("ts", "source", "type").rows() == [
        (START + 1, "event", "maintenance"),
        (START + 3, "feedback", "confirmed"),
        (START + 5, "event", "failure"),
    ]
