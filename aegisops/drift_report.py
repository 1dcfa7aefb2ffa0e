"""The Evidently edge: draws a drift report as HTML and JSON with our own method and thresholds.

Verdicts are made in `modelling/drift.py`; Evidently is given the same rows, method and thresholds,
so its tests say the same before context is considered. Only this module imports Evidently (4 s).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from aegisops.modelling import drift

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Report:
    """A finished comparison; `values` and `drifted` are Evidently's own, by feature."""

    values: dict[str, float]
    drifted: dict[str, bool]
    snapshot: Any

    def save_html(self, path: Path) -> None:
        """A page that needs no network, about 4 MB."""
        self.snapshot.save_html(str(path))

    def as_json(self) -> str:
        """Evidently's JSON."""
        return str(self.snapshot.json())


def compare(
    reference: pl.DataFrame, current: pl.DataFrame, thresholds: Mapping[str, float]
) -> Report | None:
    """Compare the columns that have a threshold; None when no column has values on both sides."""
    from evidently import DataDefinition, Dataset
    from evidently import Report as EvidentlyReport
    from evidently.metrics import ValueDrift

    _register_method()
    # A column without values on one side makes Evidently fail as a whole.
    named = [name for name in thresholds if _has_values(reference, current, name)]
    if not named:
        return None
    definition = DataDefinition(numerical_columns=named)

    def dataset(side: pl.DataFrame) -> Any:  # noqa: ANN401 - Evidently is not typed
        # Column by column with to_numpy: pandas, too, then sees NaN where a value is missing.
        columns = {name: drift.sample(side)[name].to_numpy() for name in named}
        return Dataset.from_pandas(_pandas(columns), data_definition=definition)

    metrics = [
        ValueDrift(column=name, method=drift.METHOD, threshold=thresholds[name]) for name in named
    ]
    report = EvidentlyReport(metrics, include_tests=True)
    # Current first: the other order compares the past with the present and gives other numbers.
    snapshot = report.run(dataset(current), dataset(reference))
    found = snapshot.dict()
    values = [float(metric["value"]) for metric in found["metrics"]]
    failed = [str(test["status"]).rpartition(".")[2] == "FAIL" for test in found["tests"]]
    return Report(
        dict(zip(named, values, strict=True)), dict(zip(named, failed, strict=True)), snapshot
    )


def _has_values(reference: pl.DataFrame, current: pl.DataFrame, name: str) -> bool:
    return all(side[name].drop_nulls().len() > 0 for side in (reference, current))


def _pandas(columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns)


def _register_method() -> None:
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    method = StatTest(
        name=drift.METHOD,
        display_name="PSI over reference deciles",
        allowed_feature_types=[ColumnType.Numerical],
        default_threshold=drift.FLOOR,
    )
    register_stattest(method, _decide)


def _decide(
    reference: pd.Series, current: pd.Series, _: object, threshold: float
) -> tuple[float, bool]:
    """Evidently's calling convention: value and whether it is drift."""
    value = drift.psi(reference.to_numpy(), current.to_numpy())
    return value, value >= threshold
