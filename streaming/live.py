"""What the live view gets of a flush, as JSON, because browsers read it.

Each machine's readings for its raw buffer, and one message with all new vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
import polars as pl

from aegisops.online_store import FeatureVector
from aegisops.quality import Judged

_NULL = pl.lit("null")


def raw_batches(judged: Judged) -> dict[str, bytes]:
    """Machine → its good readings of a flush.

    `readings` [channel, ts, value, quality], `waveforms` [channel, ts, period_us, values, quality].
    The texts are put together by polars: many times the speed of Python.
    """
    scalars = judged.scalars
    readings = scalars.select(
        "machine_id",
        text=pl.format(
            "[{},{},{},{}]",
            _quoted(scalars["channel"]),
            pl.col("ts").cast(pl.Int64),
            pl.coalesce(pl.col("value").cast(pl.String), _NULL),
            "quality",
        ),
    )
    joined = readings.group_by("machine_id").agg(pl.col("text").str.join(","))
    parts = {m: [f'"readings":[{text}]'] for m, text in joined.iter_rows()}
    captures: dict[str, list[list[object]]] = {}
    columns = ("machine_id", "channel", "ts", "period_us", "values", "quality")
    for machine_id, *row in judged.waveforms.select(columns).iter_rows():
        captures.setdefault(machine_id, []).append(row)
    for machine_id, rows in captures.items():
        parts.setdefault(machine_id, []).append(f'"waveforms":{orjson.dumps(rows).decode()}')
    return {machine_id: f"{{{','.join(part)}}}".encode() for machine_id, part in parts.items()}


def message(
    at_us: int, features: Sequence[FeatureVector], feature_names: Mapping[str, Sequence[str]]
) -> bytes:
    """New vectors of a flush, with the names of their features; NaN is null."""
    return orjson.dumps(
        {
            "at": at_us,
            "machines": [
                {
                    "machine_id": f.machine_id,
                    "ts": f.ts,
                    "coverage": f.coverage,
                    "features": dict(
                        zip(feature_names[f.feature_set], f.vector.tolist(), strict=True)
                    ),
                }
                for f in features
            ],
        }
    )


def _quoted(texts: pl.Series) -> pl.Series:
    quoted = {text: orjson.dumps(text).decode() for text in texts.unique()}
    return texts.replace_strict(quoted, return_dtype=pl.String) if quoted else texts
