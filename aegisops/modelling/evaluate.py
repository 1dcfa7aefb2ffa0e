"""Trains and measures a class's model on given rows, beside what simple methods get. Pure.

Everything that is chosen (trees, calibration, alarm thresholds) is chosen on rows whose interval
ends before the split. Test rows are only scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from aegisops import thresholds
from aegisops.errors import BadInput
from aegisops.machines import MachineClass, parse_duration
from aegisops.modelling import baselines
from aegisops.modelling.fitting import Recipe
from aegisops.modelling.labels import label_rows
from aegisops.modelling.measure import Exam, Json
from aegisops.modelling.rows import (
    error_inputs,
    labelled,
    matrix,
    outcomes,
    schedule_inputs,
    without,
)
from aegisops.modelling.search import search
from aegisops.modelling.split import CALIBRATE, TEST, TRAIN, calibration_split, time_split
from aegisops.modelling.training import Model, Progress, fit

SEED = 0
PUBLISHED_SHARE = 0.8
"""The published protocol trains on the first 80 % of time."""
_BASELINES = {
    "logistic_regression": baselines.logistic_regression,
    "random_forest": baselines.random_forest,
}


@dataclass(frozen=True)
class _Study:
    """What stays the same for every model of one evaluation."""

    features: pl.DataFrame
    events: pl.DataFrame
    machine_class: MachineClass
    recipe: Recipe | None
    replicates: int
    alerts_per_machine_week: float


def evaluate(
    features: pl.DataFrame,
    events: pl.DataFrame,
    machine_class: MachineClass,
    *,
    split_at: int,
    horizons: Iterable[str] = ("24h", "48h"),
    recipe: Recipe | None = None,
    replicates: int = 200,
    alerts_per_machine_week: float = 1.0,
    published_protocol: bool = True,
    progress: Progress = lambda *_: None,
) -> Json:
    """Figures of the class's model on rows from `split_at` on, trained on rows before.

    Args:
        features: rows of gold/features of one class.
        events: rows of bronze/events of the same machines.
        machine_class: its `horizon` is used by the published protocol and the ablation.
        split_at: µs; a training row's interval ends by then, a test row starts from then.
        horizons: durations as text; `30c` on a cycle clock.
        recipe: training settings; searched for on the training rows of each model when absent.
        replicates: bootstrap draws of machines per interval (95 %).
        alerts_per_machine_week: budget of `recall_at_budget`.
        published_protocol: also train on the first 80 % of time and test on all later rows
            without censoring, at the class's horizon, as published comparisons do.
        progress: told what is done.

    Returns:
        JSON: `horizons.<h>.<with_errors|without_errors>` with `any`, `per_mode`, `baselines` and
        `training`; `ablation`, `permuted_labels`, `published_protocol`. Figures that the rows
        cannot give are null.

    Raises `BadInput` when a fold is empty or has no failure to learn from.
    """
    study = _Study(features, events, machine_class, recipe, replicates, alerts_per_machine_week)
    spans = {text: parse_duration(text) for text in horizons}
    choices = _choices(machine_class)
    total = len(spans) * len(choices) + 2 + (len(choices) if published_protocol else 0)
    done = 0

    def step(what: str) -> None:
        nonlocal done
        progress(what, done / total)
        done += 1

    result: Json = {
        "machine_class": machine_class.name,
        "feature_set": machine_class.feature_set,
        "split_at": _iso(split_at),
        "rows": features.height,
        "machines": features["machine_id"].n_unique(),
        "failures": _count_failures(events, split_at),
        "interval": {"level": 0.95, "by": "machine", "replicates": replicates},
        "horizons": {},
    }
    for text, horizon in spans.items():
        labels = label_rows(features, events, machine_class, horizon=horizon)
        rows = time_split(labelled(features, labels), split_at, horizon)
        entry: Json = {"labels": dict(sorted(labels["provenance"].value_counts().iter_rows()))}
        for name, inputs in choices.items():
            step(f"{text} {name.replace('_', ' ')}")
            entry[name] = _compare(study, rows, horizon, inputs)
        result["horizons"][text] = entry
    horizon = machine_class.horizon
    labels = label_rows(features, events, machine_class)
    rows = time_split(labelled(features, labels), split_at, horizon)
    step("ablation")
    result["ablation"] = _ablation(study, rows, horizon)
    step("permuted labels")
    result["permuted_labels"] = _permuted(study, rows, horizon)
    if published_protocol:
        result["published_protocol"] = _published(study, choices, step)
    progress("done", 1.0)
    clean: Json = _without_nan(result)
    return clean


def _choices(machine_class: MachineClass) -> dict[str, tuple[str, ...]]:
    choices = {"with_errors": machine_class.vector}
    errors = error_inputs(machine_class)
    if errors:
        choices["without_errors"] = without(machine_class, errors)
    return choices


def _fit(study: _Study, rows: pl.DataFrame, horizon: int, inputs: tuple[str, ...]) -> Model:
    train = _training(study, rows, horizon)
    recipe = study.recipe
    if recipe is None:
        recipe = search(train, study.machine_class, inputs=inputs)[0].recipe
    return fit(train, study.machine_class, horizon=horizon, inputs=inputs, recipe=recipe)


def _training(study: _Study, rows: pl.DataFrame, horizon: int) -> pl.DataFrame:
    train = rows.filter(pl.col("fold") == TRAIN)
    if train["label"].n_unique() < 2 or rows.filter(pl.col("fold") == TEST).is_empty():  # noqa: PLR2004
        raise BadInput(
            "split",
            f"{train.height} training rows with {int(train['label'].sum())} before a failure: "
            "choose a split with failures and survival before it and rows after it",
        )
    return calibration_split(train, study.machine_class, horizon)


def _exam(study: _Study, rows: pl.DataFrame, horizon: int, *, open_ended: bool = False) -> Exam:
    """`open_ended`: rows may reach beyond the record; figures without them are added."""
    test = rows.filter(pl.col("fold") == TEST).sort("machine_id", "ts")
    end = pl.col("ts").max().over("machine_id")
    known = test.select(k=(pl.col("label") == 1) | (pl.col("ts") + horizon <= end))["k"]
    return Exam(
        test,
        study.machine_class,
        horizon,
        study.alerts_per_machine_week,
        study.replicates,
        known=known.to_numpy() if open_ended else None,
    )


def _compare(
    study: _Study,
    rows: pl.DataFrame,
    horizon: int,
    inputs: tuple[str, ...],
    *,
    open_ended: bool = False,
) -> Json:
    """The model, the baselines and the limit rules on the same rows."""
    model = _fit(study, rows, horizon, inputs)
    exam = _exam(study, rows, horizon, open_ended=open_ended)
    data = matrix(exam.rows, study.machine_class, inputs)
    probability = model.probability(data)
    figures = exam.any_failure(probability, model.thresholds["f1"])
    figures["at_cost_threshold"] = {
        "threshold": model.thresholds["elevated"],
        **exam.alerting(probability, model.thresholds["elevated"], {}),
    }
    return {
        "test_rows": exam.rows.height,
        "positive_rows": int(exam.y.sum()),
        "inputs": len(inputs),
        "any": figures,
        "per_mode": exam.per_mode(model.modes, model.mode_probability(data), model.mode_thresholds),
        "baselines": _baselines(study, rows, horizon, inputs, exam),
        "training": {
            **model.training,
            "trees": model.rounds * model.recipe.parallel_trees,
            "calibration": model.calibration.method,
            "calibrated_on": model.calibrated_on,
        },
    }


def _baselines(
    study: _Study, rows: pl.DataFrame, horizon: int, inputs: tuple[str, ...], exam: Exam
) -> Json:
    machine_class = study.machine_class
    train = _training(study, rows, horizon)
    late = (train["fold"] == CALIBRATE).to_numpy()
    data, y = matrix(train, machine_class, inputs), outcomes(train)
    asked = matrix(exam.rows, machine_class, inputs)
    result: Json = {}
    for name, build in _BASELINES.items():
        baseline = build(data, y, late, SEED)
        result[name] = exam.any_failure(baseline.probability(asked), baseline.threshold)
        del result[name]["reliability"]
    if machine_class.thresholds:
        severity = thresholds.severity(machine_class, matrix(exam.rows, machine_class))
        figures, intervals = exam.ranking(severity)
        result["limit_rules"] = {**figures, "intervals": intervals}
    return result


def _ablation(study: _Study, rows: pl.DataFrame, horizon: int) -> Json:
    """The score without inputs that know the maintenance calendar or the time in service."""
    dropped = schedule_inputs(study.machine_class)
    if not dropped:
        return {}
    exam = _exam(study, rows, horizon)
    result: Json = {"without": list(dropped)}
    for name, inputs in _choices(study.machine_class).items():
        kept = tuple(i for i in inputs if i not in dropped)
        if not kept:
            continue
        model = _fit(study, rows, horizon, kept)
        figures, intervals = exam.ranking(
            model.probability(matrix(exam.rows, study.machine_class, kept))
        )
        result[name] = {**figures, "intervals": intervals}
    return result


def _permuted(study: _Study, rows: pl.DataFrame, horizon: int) -> Json:
    """Trained on shuffled labels a model must score at chance; more would be a leak."""
    random = np.random.default_rng(SEED)
    order = random.permutation(rows.filter(pl.col("fold") == TRAIN).height)
    columns = ["label", "failure_modes", "hours_to_failure"]
    train = rows.filter(pl.col("fold") == TRAIN)
    shuffled = train.with_columns(train.select(columns)[order.tolist()])
    model = _fit(
        study,
        pl.concat([shuffled, rows.filter(pl.col("fold") == TEST)]),
        horizon,
        study.machine_class.vector,
    )
    exam = _exam(study, rows, horizon)
    figures, intervals = exam.ranking(model.probability(matrix(exam.rows, study.machine_class)))
    chance = float(exam.y.mean())
    return {**figures, "chance_pr_auc": chance, "intervals": intervals}


def _published(
    study: _Study, choices: Mapping[str, tuple[str, ...]], step: Callable[[str], None]
) -> Json:
    machine_class = study.machine_class
    horizon = machine_class.horizon
    labels = label_rows(study.features, study.events, machine_class, censor=False)
    rows = labelled(study.features, labels)
    times = rows["ts"].unique().sort()
    cut = int(times[int(PUBLISHED_SHARE * len(times))])
    rows = time_split(rows, cut, horizon)
    result: Json = {
        "split_at": _iso(cut),
        "horizon_us": horizon,
        "rows": "every row from the split on, none censored; rows whose horizon passes the end of "
        "the record count as survived, `known_outcomes` leaves them out",
    }
    for name, inputs in choices.items():
        step(f"published protocol {name.replace('_', ' ')}")
        result[name] = _compare(study, rows, horizon, inputs, open_ended=True)
    return result


def _count_failures(events: pl.DataFrame, split_at: int) -> dict[str, int]:
    failed = events.filter(pl.col("type") == "failure").select(
        "machine_id", pl.col("ts").cast(pl.Int64)
    )
    distinct = failed.unique()
    return {
        "before_split": distinct.filter(pl.col("ts") < split_at).height,
        "from_split": distinct.filter(pl.col("ts") >= split_at).height,
    }


def _iso(us: int) -> str:
    return f"{np.datetime64(us // 1_000_000, 's')}Z"


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
