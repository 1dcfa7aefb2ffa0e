"""Labelled rows and the one place that turns them into a matrix. Pure.

xgboost and numpy do not check column names: a frame in another order gives silently wrong
predictions. So vectors keep the class's order, and only `matrix` selects inputs, by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from aegisops.errors import BadInput
from aegisops.machines import MachineClass, Statistic
from aegisops.names import EventType

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def labelled(features: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Rows of gold/features with a known outcome in gold/labels.

    Returns machine_id, ts (int µs), vector, label, failure_modes, hours_to_failure, hours_followed,
    sorted by machine and time.
    """
    known = labels.filter(pl.col("label").is_not_null()).select(
        pl.col("machine_id").cast(pl.String),
        pl.col("ts").cast(pl.Int64),
        "label",
        "failure_modes",
        "hours_to_failure",
        "hours_followed",
    )
    return (
        features.select(pl.col("machine_id").cast(pl.String), pl.col("ts").cast(pl.Int64), "vector")
        .join(known, on=["machine_id", "ts"], how="inner")
        .sort("machine_id", "ts")
    )


def matrix(
    rows: pl.DataFrame, machine_class: MachineClass, inputs: Sequence[str] | None = None
) -> Matrix:
    """Float32 [n, d] of the named inputs (all, in vector order, when absent); missing = NaN.

    Raises `BadInput` when a vector has another width than the class, or an input is unknown.
    """
    width = len(machine_class.vector)
    if not rows.is_empty() and (rows["vector"].list.len() != width).any():
        raise BadInput(
            "vector_shape",
            f"rows with vectors of other than {width} values for {machine_class.feature_set}; "
            "rebuild gold/features for this version of the class",
        )
    data = rows["vector"].explode(empty_as_null=False).to_numpy().reshape(rows.height, width)
    if inputs is None:
        return np.ascontiguousarray(data, dtype=np.float32)
    unknown = sorted(set(inputs) - set(machine_class.vector))
    if unknown:
        raise BadInput("unknown_feature", f"{machine_class.name} has no inputs {unknown}")
    columns = [machine_class.vector.index(name) for name in inputs]
    return np.ascontiguousarray(data[:, columns], dtype=np.float32)


def outcomes(rows: pl.DataFrame) -> npt.NDArray[np.int8]:
    """Labels [n] of labelled rows."""
    return rows["label"].to_numpy().astype(np.int8)


def mode_outcomes(rows: pl.DataFrame, modes: Sequence[str]) -> npt.NDArray[np.int8]:
    """[n, k]: 1 where the mode fails within the horizon."""
    if not modes:
        return np.zeros((rows.height, 0), np.int8)
    columns = [rows["failure_modes"].list.contains(mode).to_numpy() for mode in modes]
    return np.stack(columns, axis=1).astype(np.int8)


def failure_times(rows: pl.DataFrame, machine_class: MachineClass) -> Ints:
    """Time (µs) of the failure each positive row looks ahead to; -1 for other rows."""
    ahead = (pl.col("hours_to_failure") * machine_class.hour).round().cast(pl.Int64)
    known = pl.when(pl.col("label") == 1).then(pl.col("ts") + ahead).otherwise(-1)
    return rows.select(known.alias("t"))["t"].fill_null(-1).to_numpy()


def healthy(rows: pl.DataFrame, horizon: int, machine_class: MachineClass) -> npt.NDArray[np.bool_]:
    """[n]: rows without a failure within two horizons (µs); the time in between may be wear."""
    far = (pl.col("hours_to_failure") * machine_class.hour > 2 * horizon) | pl.col(
        "hours_to_failure"
    ).is_null()
    return rows.select((far & (pl.col("label") == 0)).alias("h"))["h"].to_numpy()


def error_inputs(machine_class: MachineClass) -> tuple[str, ...]:
    """Inputs that come from error events, for evaluation without them."""
    errors = {n for n, e in machine_class.events.items() if e.type == EventType.ERROR}
    return tuple(s.name for s in machine_class.features if s.channel in errors)


def schedule_inputs(machine_class: MachineClass) -> tuple[str, ...]:
    """Inputs that know the maintenance calendar or age in service, for the ablation."""
    return tuple(
        s.name
        for s in machine_class.features
        if s.statistic is Statistic.CUMULATIVE
        or (
            s.statistic is Statistic.TIME_SINCE
            and s.channel in machine_class.events
            and machine_class.events[s.channel].type == EventType.MAINTENANCE
        )
    )


def total_inputs(machine_class: MachineClass) -> tuple[str, ...]:
    """Inputs that add up over a machine's whole life."""
    return tuple(s.name for s in machine_class.features if s.statistic is Statistic.CUMULATIVE)


def without(machine_class: MachineClass, inputs: Sequence[str]) -> tuple[str, ...]:
    """The class's vector less some inputs."""
    return tuple(name for name in machine_class.vector if name not in set(inputs))
