"""Asset checks made from the table declarations: schema, keys, nulls, ranges. None is hand-written.

A layer's checks are blocking: a failed one stops the run before the next layer reads the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import dagster as dg
import polars as pl

from aegisops.schemas.tables import Table
from aegisops_assets.keys import key
from aegisops_assets.steps.platform import Platform

CHECKS = ("schema", "keys_unique", "no_nulls", "ranges")


def specs(table: Table) -> list[dg.AssetCheckSpec]:
    """Check specs of a table's asset."""
    return [
        dg.AssetCheckSpec(name, asset=key(table.name), blocking=True, description=_ABOUT[name])
        for name in CHECKS
    ]


def run(platform: Platform, table: Table) -> Iterator[dg.AssetCheckResult]:
    """Check the table's latest snapshot, without loading it whole."""
    frame = platform.lake.scan(table)
    yield _schema(platform, table)
    yield _keys_unique(frame, table)
    yield _no_nulls(frame, table)
    yield _ranges(frame, table)


_ABOUT = {
    "schema": "the stored schema is the declared one",
    "keys_unique": "no two rows share the declared keys",
    "no_nulls": "no null in a column declared without",
    "ranges": "every value lies in its declared range",
}


def _result(table: Table, name: str, bad: dict[str, int] | list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=key(table.name),
        passed=not bad,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_ABOUT[name] if not bad else f"violated by {bad}",
        metadata={"violations": dg.MetadataValue.json(bad)},
    )


def _schema(platform: Platform, table: Table) -> dg.AssetCheckResult:
    import pyarrow as pa

    # Arrow's stubs do not know schemas of other libraries.
    stored = pa.schema(cast("Any", platform.lake.ensure(table).schema()))
    wrong = [
        name
        for name, column in table.columns.items()
        if name not in stored.names or stored.field(name).type != column.type
    ]
    return _result(table, "schema", wrong + sorted(set(stored.names) - set(table.columns)))


def _keys_unique(frame: pl.LazyFrame, table: Table) -> dg.AssetCheckResult:
    counts = frame.select(
        pl.len().alias("rows"), pl.struct(table.keys).n_unique().alias("keys")
    ).collect()
    twice = counts["rows"][0] - counts["keys"][0]
    return _result(table, "keys_unique", {"repeated": twice} if twice else {})


def _no_nulls(frame: pl.LazyFrame, table: Table) -> dg.AssetCheckResult:
    required = [name for name, column in table.columns.items() if not column.nullable]
    counts = frame.select(pl.col(required).null_count()).collect().row(0, named=True)
    return _result(table, "no_nulls", {name: n for name, n in counts.items() if n})


def _ranges(frame: pl.LazyFrame, table: Table) -> dg.AssetCheckResult:
    rules = []
    for name, column in table.columns.items():
        value, outside = pl.col(name), pl.lit(value=False)
        if column.low is not None:
            outside |= value < column.low
        if column.high is not None:
            outside |= value > column.high
        if column.low is not None or column.high is not None:
            rules.append(outside.sum().alias(name))
    if not rules:
        return _result(table, "ranges", {})
    counts = frame.select(rules).collect().row(0, named=True)
    return _result(table, "ranges", {name: n for name, n in counts.items() if n})
