"""bronze/predictions against the lake: were the vectors that answered the ones the lake gives?

Every logged vector carries its place of origin (`cache` or `lake`) and the event time it stands
for. It is computed again from bronze at that time by the slow, exact way, and compared feature by
feature. What arrived after the answer is no skew: a vector that differs is compared again without
the readings that reached the lake later. Vectors from requests are the caller's, not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from aegisops.features import batch
from aegisops.features.tiles import Floats
from aegisops.machines.model import LIFETIME_STATISTICS
from aegisops.schemas.tables import EVENTS, PREDICTIONS, READINGS, WAVEFORMS, Table
from aegisops_assets.steps.platform import Fleet, Platform

TOLERANCE = 1e-6
"""Relative; the two ways agree to 1e-9, served vectors may have been stored as they were."""
MOST = 200
"""Vectors per class and run: each costs a pass over its machine's recent readings."""
SINCE = timedelta(hours=25)
ARRIVES = timedelta(seconds=60)
"""Readings reach the lake in commits, some seconds after the online store had them."""


@dataclass(frozen=True, slots=True)
class ClassParity:
    """How the answers of one class compare."""

    machine_class: str
    compared: int
    skewed: int
    features: dict[str, int]
    """Feature → vectors in which it differs."""
    examples: tuple[dict[str, object], ...]
    """Some skewed answers: prediction_id, machine_id, feature, served, computed."""
    left_out: int
    """Answers without a reading in the lake to compute from."""


def report(platform: Platform, *, now: datetime) -> list[ClassParity]:
    """Compare a sample of the answers of the last day, per class."""
    made = []
    for fleet in platform.fleets():
        asked = _answers(platform, fleet, now)
        if not asked.is_empty():
            made.append(_compare(platform, fleet, asked))
    return made


def _answers(platform: Platform, fleet: Fleet, now: datetime) -> pl.DataFrame:
    """Sampled answers [prediction_id, machine_id, asked_at, features_at, vector, source]."""
    since = now - SINCE
    rows = (
        platform.lake.scan(PREDICTIONS)
        .filter(
            (pl.col("date") >= since.date())
            & (pl.col("asked_at") >= since)
            & pl.col("source").is_in(["cache", "lake"])
            & (pl.col("feature_set") == fleet.machine_class.feature_set)
            & pl.col("features_at").is_not_null()
            & pl.col("machine_id").is_in(fleet.machine_ids)
        )
        .select("prediction_id", "machine_id", "asked_at", "features_at", "vector", "source")
        # One vector often answers many questions.
        .unique(["machine_id", "features_at", "source"], keep="any")
        .sort("prediction_id")
        .collect()
    )
    return rows if rows.height <= MOST else rows.sample(MOST, seed=0)


def _compare(platform: Platform, fleet: Fleet, asked: pl.DataFrame) -> ClassParity:
    names = fleet.machine_class.vector
    counts: dict[str, int] = {}
    examples: list[dict[str, object]] = []
    compared = skewed = left_out = 0
    for answer in asked.iter_rows(named=True):
        served = np.array(answer["vector"], dtype=np.float64)
        computed = _again(platform, fleet, answer, None)
        if computed is None:
            left_out += 1
            continue
        compared += 1
        wrong = differing(served, computed)
        for known_by in (answer["asked_at"] + ARRIVES, answer["asked_at"]):
            earlier = _again(platform, fleet, answer, known_by) if wrong else None
            wrong = wrong if earlier is None else min(wrong, differing(served, earlier), key=len)
        skewed += bool(wrong)
        for i in wrong:
            name = names[i] if i < len(names) else f"number {i}"
            counts[name] = counts.get(name, 0) + 1
            if len(examples) < 20:  # noqa: PLR2004 - what a page can show
                examples.append(
                    {
                        "prediction_id": answer["prediction_id"],
                        "machine_id": answer["machine_id"],
                        "source": answer["source"],
                        "feature": name,
                        "served": float(served[i]) if i < len(served) else None,
                        "computed": float(computed[i]) if i < len(computed) else None,
                    }
                )
    return ClassParity(
        fleet.machine_class.name, compared, skewed, counts, tuple(examples), left_out
    )


def differing(served: Floats, computed: Floats) -> list[int]:
    """Positions at which two vectors differ; missing equals only missing."""
    if served.shape != computed.shape:
        return list(range(max(len(served), len(computed))))
    same = np.isclose(served, computed, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    return [int(i) for i in np.flatnonzero(~same)]


def _again(
    platform: Platform, fleet: Fleet, answer: dict[str, Any], known_by: datetime | None
) -> Floats | None:
    """The answer's vector from bronze, from what was there at a time; None without a reading."""
    machine_class, at = fleet.machine_class, answer["features_at"]
    reach = timedelta(microseconds=machine_class.lateness + max(machine_class.windows.values()))
    oldest = (at - reach - timedelta(days=1)).date()
    lifelong = {s.channel for s in machine_class.features if s.statistic in LIFETIME_STATISTICS}

    def rows(table: Table) -> pl.LazyFrame:
        own = (pl.col("machine_id") == answer["machine_id"]) & (pl.col("ts") <= at)
        if known_by is not None:
            own &= pl.col("_ingested_at") <= known_by
        if table is not EVENTS:
            own &= (pl.col("date") >= oldest) | pl.col("channel").is_in(sorted(lifelong))
        return platform.lake.scan(table).filter(own)

    values = batch.values_from_bronze(rows(READINGS), rows(WAVEFORMS), rows(EVENTS), machine_class)
    if values.is_empty():
        return None
    when = pl.Series("ts", [at]).cast(pl.Datetime("us", "UTC")).cast(pl.Int64)
    points = pl.DataFrame({"machine_id": [answer["machine_id"]], "ts": when})
    values = values.with_columns(pl.col("machine_id").cast(pl.String))
    vectors = batch.features_at(values, machine_class, fleet.attributes, points)
    return np.asarray(vectors["vector"][0], dtype=np.float64)
