"""Folds that do not leak: an embargo of one horizon between times, machines kept apart. Pure.

A row at `ts` looks at (ts, ts + horizon]. A fold that ends at `cut` therefore ends with the row
whose interval ends at `cut`; the rows between belong to no fold.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from aegisops.errors import Permanent
from aegisops.machines import Clock, MachineClass
from aegisops.modelling.rows import Ints, failure_times

TRAIN, CALIBRATE, TEST = "train", "calibrate", "test"
TRAIN_SHARE, CALIBRATE_SHARE = 0.5, 0.7
"""Shares of the failures that happened before the end of the train and calibrate folds."""
TEST_MACHINES = 3
"""Every third machine is kept for testing only."""
MACHINE_GROUPS = 5
"""On a cycle clock: three fifths of the machines train, one calibrates, one tests."""


class TooFewFailures(Permanent):
    """A fold would have no failure, so nothing could be learned or measured."""


def time_split(rows: pl.DataFrame, split_at: int, embargo: int) -> pl.DataFrame:
    """Rows with a `fold`: train (interval ends by `split_at`, µs) or test (from `split_at` on)."""
    fold = (
        pl.when(pl.col("ts") + embargo <= split_at)
        .then(pl.lit(TRAIN))
        .when(pl.col("ts") >= split_at)
        .then(pl.lit(TEST))
    )
    return rows.with_columns(fold.alias("fold")).drop_nulls("fold")


def calibration_split(
    rows: pl.DataFrame, machine_class: MachineClass, embargo: int, share: float = 0.7
) -> pl.DataFrame:
    """Rows with a `fold`: train, then calibrate after `share` of the failures; all machines."""
    cut = _cut(rows, machine_class, share)
    split = time_split(rows, cut, embargo)
    return split.with_columns(pl.col("fold").replace(TEST, CALIBRATE))


def folds(
    rows: pl.DataFrame, machine_class: MachineClass, embargo: int, seed: int = 0
) -> pl.DataFrame:
    """Labelled rows with a `fold`: train and calibrate (later) of some machines, test of others.

    Test rows are of machines that no other fold has, and from after both other folds. Test
    machines are drawn by seed, balanced by how many of their failures are late. On a cycle clock,
    where times of different machines cannot be compared, the folds differ in machines only.

    Raises `TooFewFailures` naming the fold that would have no failure.
    """
    _known_failures(rows, machine_class)
    if machine_class.clock is Clock.CYCLES:
        fold = _fold_of_machine(rows, seed)
    else:
        fold = _fold_of_time(rows, machine_class, embargo, seed)
    split = rows.with_columns(fold.alias("fold")).drop_nulls("fold")
    for name in (TRAIN, CALIBRATE, TEST):
        labels = split.filter(pl.col("fold") == name)["label"]
        if labels.n_unique() < 2:  # noqa: PLR2004
            raise TooFewFailures(
                f"the {name} fold of {machine_class.name} has {labels.len()} rows and "
                f"{int(labels.sum())} before a failure; both kinds are needed. "
                "Bring more history, more machines or more failure events"
            )
    return split


def _fold_of_machine(rows: pl.DataFrame, seed: int) -> pl.Expr:
    """On a cycle clock every machine starts at zero: no row is later than another machine's row."""
    group = machine_groups(rows["machine_id"], MACHINE_GROUPS, seed)
    names = [TRAIN] * (MACHINE_GROUPS - 2) + [CALIBRATE, TEST]
    return pl.lit(pl.Series("fold", [names[g] for g in group], dtype=pl.String))


def _fold_of_time(
    rows: pl.DataFrame, machine_class: MachineClass, embargo: int, seed: int
) -> pl.Expr:
    first = _cut(rows, machine_class, TRAIN_SHARE)
    second = _cut(rows, machine_class, CALIBRATE_SHARE)
    held_out = pl.col("machine_id").is_in(_test_machines(rows, machine_class, second, seed))
    ts = pl.col("ts")
    return (
        pl.when(held_out & (ts >= second))
        .then(pl.lit(TEST))
        .when(~held_out & (ts + embargo <= first))
        .then(pl.lit(TRAIN))
        .when(~held_out & (ts >= first) & (ts + embargo <= second))
        .then(pl.lit(CALIBRATE))
    )


def _cut(rows: pl.DataFrame, machine_class: MachineClass, share: float) -> int:
    """Time by which `share` of the distinct failures have happened."""
    failures = _known_failures(rows, machine_class)
    return int(failures[min(int(share * failures.size), failures.size - 1)])


def _known_failures(rows: pl.DataFrame, machine_class: MachineClass) -> Ints:
    """Sorted times of the distinct failures. Raises `TooFewFailures` when there is none."""
    times = pl.DataFrame(
        {"machine_id": rows["machine_id"], "t": failure_times(rows, machine_class)}
    )
    failures = np.sort(times.filter(pl.col("t") >= 0).unique()["t"].to_numpy())
    if not failures.size:
        raise TooFewFailures(
            f"no failure is known for {machine_class.name}; import failure events first"
        )
    return failures


def _test_machines(
    rows: pl.DataFrame, machine_class: MachineClass, after: int, seed: int
) -> list[str]:
    """Machines drawn for testing: every third after sorting by late failures, ties by hash."""
    late = pl.DataFrame(
        {"machine_id": rows["machine_id"], "t": failure_times(rows, machine_class)}
    ).filter(pl.col("t") > after)
    counts = dict(late.unique().group_by("machine_id").len().iter_rows())
    machines = rows["machine_id"].unique().to_list()

    def rank(machine: str) -> tuple[int, str]:
        drawn = hashlib.sha256(f"{seed}:{machine}".encode()).hexdigest()
        return -counts.get(machine, 0), drawn

    return sorted(machines, key=rank)[0::TEST_MACHINES]


def machine_groups(machines: pl.Series, k: int, seed: int = 0) -> np.ndarray:
    """Group 0…k-1 [n] of each row's machine, for cross-fitting; the same for every row of one."""
    names = sorted(
        machines.unique().to_list(),
        key=lambda m: hashlib.sha256(f"{seed}:{m}".encode()).hexdigest(),
    )
    group = {name: i % k for i, name in enumerate(names)}
    return np.array([group[m] for m in machines.to_list()], dtype=np.int64)
