"""What followed each feature row, and whether it may be counted. Pure; one rule a function.

A row at `ts` asks: does the machine fail in (ts, ts + horizon]? The answer is 1, 0, or null when
nobody can know. Rules, later ones win:

1. a failure in the interval → 1 (`failure`); none → 0 (`survived`)
2. the record ends inside the interval → null (`end_of_data`)
3. maintenance inside the interval, before any failure, that is not the repair of an earlier
   failure → null (`maintenance`): the failure that might have come was prevented
4. feedback: `planned_work` and `prevented` → null, `false_alarm` → 0 where the rules above left
   the row open, `confirmed` counts as a failure at its time
5. the machine had failed and was not yet repaired at `ts` → null (`down`)
6. feedback `sensor_fault` → null: the vector cannot be trusted
"""

from __future__ import annotations

from typing import Final

import polars as pl

from aegisops.machines import MachineClass
from aegisops.modelling import history
from aegisops.modelling.history import EVENT_COLUMNS, FEEDBACK_COLUMNS, nearest, select
from aegisops.names import Outcome

FAILURE: Final = "failure"
SURVIVED: Final = "survived"
END_OF_DATA: Final = "end_of_data"
MAINTENANCE: Final = "maintenance"
DOWN: Final = "down"
PROVENANCES: Final = (
    FAILURE,
    SURVIVED,
    END_OF_DATA,
    MAINTENANCE,
    DOWN,
    *(str(o) for o in (Outcome.PREVENTED, Outcome.PLANNED_WORK, Outcome.FALSE_ALARM)),
    str(Outcome.CONFIRMED),
    str(Outcome.SENSOR_FAULT),
)


def label_rows(
    features: pl.DataFrame,
    events: pl.DataFrame,
    machine_class: MachineClass,
    *,
    horizon: int | None = None,
    observed_until: int | None = None,
    feedback: pl.DataFrame | None = None,
    censor: bool = True,
) -> pl.DataFrame:
    """Rows of gold/labels, one per feature row, sorted by machine and time.

    Args:
        features: machine_id, ts (µs or datetime); other columns are ignored.
        events: machine_id, ts, type, code, as in bronze/events.
        machine_class: says whether maintenance censors, and the horizon.
        horizon: µs; the class's own when absent.
        observed_until: no event after this time (µs) is known; latest feature or event of the
            whole frame when absent. A machine's own record may end earlier.
        feedback: machine_id, ts, outcome, failure_mode, as in bronze/feedback.
        censor: False gives the published protocol's labels: 1 or 0 by the failures alone.

    Returns:
        machine_id, machine_class, ts (int µs), horizon_us, label (0, 1 or null), failure_modes,
        hours_to_failure (cycles on a cycle clock; to the next known failure, however far),
        hours_followed (to that failure, to work that may have prevented it, or to the end of the
        machine's record, whichever came first), provenance.
    """
    horizon = machine_class.horizon if horizon is None else horizon
    rows = select(features, {"machine_id": pl.String, "ts": pl.Int64}).sort("machine_id", "ts")
    events = select(events, EVENT_COLUMNS)
    said = select(feedback, FEEDBACK_COLUMNS)
    if observed_until is not None:
        events = events.filter(pl.col("ts") <= observed_until)
    failures = history.failures(events, said)
    rows = _next_failures(rows, failures, horizon)
    rows = history.record_end(rows, events, observed_until)
    rows = _outcome(rows, horizon, machine_class)
    if censor:
        rows = _end_of_data(rows, horizon)
        if machine_class.censor_on_maintenance:
            rows = _maintenance(rows, events, failures, horizon, machine_class)
        rows = _feedback(rows, said, horizon)
        rows = _down(rows, events, failures, horizon, machine_class)
        rows = _sensor_fault(rows, said, machine_class)
    rows = _followed(rows, machine_class)
    return rows.select(
        "machine_id",
        pl.lit(machine_class.name).alias("machine_class"),
        "ts",
        pl.lit(horizon, pl.Int64).alias("horizon_us"),
        pl.col("label").cast(pl.Int8),
        pl.when(pl.col("label") == 1)
        .then(pl.col("failure_modes"))
        .otherwise(pl.lit([], pl.List(pl.String)))
        .alias("failure_modes"),
        "hours_to_failure",
        "hours_followed",
        "provenance",
    )


def _next_failures(rows: pl.DataFrame, failures: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """Columns next_failure and failure_modes (all modes that fail within the horizon)."""
    rows = nearest(rows, failures, "next_failure", after=True)
    modes = sorted(set(failures["code"].to_list()) - {""})
    for mode in modes:
        rows = nearest(rows, failures.filter(pl.col("code") == mode), f"_{mode}", after=True)
    within = [
        pl.when(pl.col(f"_{m}") - pl.col("ts") <= horizon).then(pl.lit(m, pl.String)) for m in modes
    ]
    listed = pl.concat_list(within).list.drop_nulls() if within else pl.lit([], pl.List(pl.String))
    return rows.with_columns(listed.alias("failure_modes")).drop([f"_{m}" for m in modes])


def _outcome(rows: pl.DataFrame, horizon: int, machine_class: MachineClass) -> pl.DataFrame:
    fails = (pl.col("next_failure") - pl.col("ts") <= horizon).fill_null(value=False)
    return rows.with_columns(
        fails.cast(pl.Int8).alias("label"),
        pl.when(fails).then(pl.lit(FAILURE)).otherwise(pl.lit(SURVIVED)).alias("provenance"),
        ((pl.col("next_failure") - pl.col("ts")) / machine_class.hour).alias("hours_to_failure"),
    )


def _followed(rows: pl.DataFrame, machine_class: MachineClass) -> pl.DataFrame:
    """Column hours_followed; `record_end` is by now the end of what the row can be judged by."""
    until = pl.min_horizontal("record_end", "next_failure")
    hours = (until - pl.col("ts")) / machine_class.hour
    return rows.with_columns(hours.alias("hours_followed"))


def _followed_to(rows: pl.DataFrame, point: str) -> pl.DataFrame:
    """Nothing after `point` can be told from the row: people changed the machine there."""
    return rows.with_columns(pl.min_horizontal("record_end", point).alias("record_end"))


def _null(rows: pl.DataFrame, condition: pl.Expr, provenance: str) -> pl.DataFrame:
    return _set(rows, condition, None, provenance)


def _set(
    rows: pl.DataFrame, condition: pl.Expr, label: int | None, provenance: str
) -> pl.DataFrame:
    holds = condition.fill_null(value=False)
    return rows.with_columns(
        pl.when(holds).then(pl.lit(label, pl.Int8)).otherwise(pl.col("label")).alias("label"),
        pl.when(holds).then(pl.lit(provenance)).otherwise(pl.col("provenance")).alias("provenance"),
    )


def _end_of_data(rows: pl.DataFrame, horizon: int) -> pl.DataFrame:
    open_ended = (pl.col("label") == 0) & (pl.col("ts") + horizon > pl.col("record_end"))
    return _null(rows, open_ended, END_OF_DATA)


def _maintenance(
    rows: pl.DataFrame,
    events: pl.DataFrame,
    failures: pl.DataFrame,
    horizon: int,
    machine_class: MachineClass,
) -> pl.DataFrame:
    """A row with a failure in the interval keeps its 1 only if the failure came first (or with it).

    A failure after preventive work tells nothing about what the work prevented.
    """
    _, other = history.repairs(events, failures, horizon, machine_class)
    rows = nearest(rows, other, "_work", after=True)
    hidden = (pl.col("_work") - pl.col("ts") <= horizon) & (
        pl.col("next_failure").is_null() | (pl.col("_work") < pl.col("next_failure"))
    )
    return _followed_to(_null(rows, hidden, MAINTENANCE), "_work").drop("_work")


def _feedback(rows: pl.DataFrame, said: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """An outcome at time t speaks about the rows whose interval reaches t, and the row at t."""
    for outcome in (
        Outcome.PLANNED_WORK,
        Outcome.PREVENTED,
        Outcome.FALSE_ALARM,
        Outcome.CONFIRMED,
    ):
        points = said.filter(pl.col("outcome") == outcome)
        if points.is_empty():
            continue
        rows = nearest(rows, points, "_said", after=True, strict=False)
        about = pl.col("_said") - pl.col("ts") <= horizon
        fails_first = (pl.col("next_failure") <= pl.col("_said")).fill_null(value=False)
        if outcome is Outcome.FALSE_ALARM:
            # People looked and found nothing; a failure on record is stronger than that.
            rows = _set(rows, about & pl.col("label").is_null(), 0, str(outcome))
        elif outcome is Outcome.CONFIRMED:
            rows = _set(rows, about & (pl.col("label") == 1), 1, str(outcome))
        else:
            rows = _followed_to(_null(rows, about & ~fails_first, str(outcome)), "_said")
        rows = rows.drop("_said")
    return rows


def _down(
    rows: pl.DataFrame,
    events: pl.DataFrame,
    failures: pl.DataFrame,
    horizon: int,
    machine_class: MachineClass,
) -> pl.DataFrame:
    """Rows from a failure to before its repair describe a broken machine, not a coming failure."""
    repairs, _ = history.repairs(events, failures, horizon, machine_class)
    rows = nearest(rows, repairs, "_repaired", after=True)
    spans = repairs.group_by("machine_id", "ts").agg(pl.col("failed").min())
    rows = rows.join(
        spans.rename({"ts": "_repaired", "failed": "_failed"}),
        on=["machine_id", "_repaired"],
        how="left",
        maintain_order="left",
    )
    return _null(rows, pl.col("ts") >= pl.col("_failed"), DOWN).drop("_repaired", "_failed")


def _sensor_fault(
    rows: pl.DataFrame, said: pl.DataFrame, machine_class: MachineClass
) -> pl.DataFrame:
    """Rows whose longest window may hold the faulty values: one such window before and after."""
    points = said.filter(pl.col("outcome") == Outcome.SENSOR_FAULT)
    if points.is_empty():
        return rows
    reach = machine_class.lateness
    rows = nearest(rows, points, "_later", after=True, strict=False)
    rows = nearest(rows, points, "_earlier", after=False, strict=False)
    near = ((pl.col("_later") - pl.col("ts")) <= reach).fill_null(value=False) | (
        (pl.col("ts") - pl.col("_earlier")) <= reach
    ).fill_null(value=False)
    return _null(rows, near, str(Outcome.SENSOR_FAULT)).drop("_later", "_earlier")
