"""gold/features + bronze/events + bronze/feedback → gold/labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from aegisops.modelling.labels import label_rows
from aegisops.schemas.tables import EVENTS, FEATURES, FEEDBACK, LABELS
from aegisops_assets.steps.platform import Platform, of_machines


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the step wrote."""

    version: int
    rows: int
    positive: int
    provenance: dict[str, int]
    """Why rows got their label, or none: reason → rows."""


def build(
    platform: Platform, *, horizon: int | None = None, classes: Iterable[str] = ()
) -> Labelled:
    """Label every feature row of each class anew: an event may change any row before it."""
    lake = platform.lake
    version = lake.ensure(LABELS).version()
    made = []
    for fleet in platform.fleets(classes):
        name = fleet.machine_class.name
        features = (
            lake.scan(FEATURES)
            .filter(pl.col("machine_class") == name)
            .select("machine_id", "ts")
            .collect()
        )
        events = of_machines(lake.scan(EVENTS), fleet).collect()
        said = of_machines(lake.scan(FEEDBACK), fleet).collect()
        rows = label_rows(
            features, events, fleet.machine_class, horizon=horizon, feedback=said
        ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
        version = lake.overwrite(LABELS, rows, predicate=f"machine_class = '{name}'")
        made.append(rows.select("label", "provenance"))
    rows = pl.concat(made) if made else pl.DataFrame({"label": [], "provenance": []})
    return Labelled(
        version,
        rows.height,
        int(rows["label"].sum() or 0),
        dict(sorted(rows["provenance"].value_counts().iter_rows())) if made else {},
    )
