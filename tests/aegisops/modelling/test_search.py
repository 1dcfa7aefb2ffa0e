"""The search for a recipe: a budget of trials, judged on machines a trial did not see."""

import numpy as np
import polars as pl
import pytest

from aegisops.machines import load_class
from aegisops.modelling import search as module
from aegisops.modelling.fitting import Fitter, Recipe
from aegisops.modelling.rows import matrix, outcomes
from aegisops.modelling.search import grid, search
from aegisops.modelling.training import fit

QUICK = Recipe(rounds=8, mode_rounds=5)


def test_the_budget_is_kept_and_the_best_or_first_recipe_comes_first(training_rows, pump_class):
    trials = search(training_rows, pump_class, start=QUICK, budget=3)
    assert len(trials) == 3
    first = next(t for t in trials if t.recipe == grid(pump_class, QUICK)[0])
    best = max(t.pr_auc for t in trials)
    assert trials[0].pr_auc == best or trials[0] is first
    if trials[0] is first:
        assert best < first.pr_auc + module.CLEAR_GAIN


def test_the_same_rows_give_the_same_recipe(training_rows, pump_class):
    shuffled = training_rows.sample(fraction=1, shuffle=True, seed=2)
    one, other = (search(r, pump_class, start=QUICK, budget=2) for r in (training_rows, shuffled))
    assert one == other


def test_test_rows_have_no_say(training_rows, pump_class):
    spoiled = training_rows.with_columns(
        pl.when(pl.col("fold") == "test")
        .then(1 - pl.col("label"))
        .otherwise("label")
        .alias("label")
    )
    one, other = (search(r, pump_class, start=QUICK, budget=2) for r in (training_rows, spoiled))
    assert one == other


def test_totals_come_in_only_if_they_help():
    spindle = load_class("cnc_spindle")
    recipes = grid(spindle, Recipe())
    assert recipes[0].ignored == ("cumulative_cycles",)
    assert () in {r.ignored for r in recipes[:4]}


def test_an_ignored_input_never_changes_an_answer(training_rows, pump_class):
    recipe = Recipe(rounds=8, mode_rounds=5, ignored=("vibration_rms_1h",))
    model = fit(training_rows, pump_class, recipe=recipe)
    data = matrix(training_rows.head(50), pump_class)
    other = data.copy()
    other[:, pump_class.vector.index("vibration_rms_1h")] = np.float32(1e6)
    assert np.array_equal(model.probability(data), model.probability(other))
    assert np.array_equal(model.mode_probability(data), model.mode_probability(other))


def test_blanking_leaves_the_callers_matrix_alone(training_rows, pump_class):
    data = matrix(training_rows.head(50), pump_class)
    before = data.copy()
    Fitter(data, pump_class.vector, Recipe(ignored=("leak_count_6h",)))
    assert np.array_equal(data, before)


def test_one_group_of_failing_machines_compares_nothing(training_rows, pump_class):
    failing = training_rows.filter(pl.col("label") == 1)["machine_id"][0]
    rows = training_rows.with_columns(
        pl.when(pl.col("machine_id") == failing).then("label").otherwise(0).alias("label")
    )
    (only,) = search(rows, pump_class, start=QUICK)
    assert only.recipe == QUICK
    assert np.isnan(only.pr_auc)


def test_high_raises_far_fewer_false_alerts_than_elevated_and_still_finds_failures(
    model, training_rows, pump_class
):
    from aegisops.modelling import metrics
    from aegisops.modelling.measure import Exam

    test = training_rows.filter(pl.col("fold") == "test").sort("machine_id", "ts")
    line = Exam(test, pump_class, pump_class.horizon).timeline
    p = model.probability(matrix(test, pump_class))
    high, elevated = (
        metrics.false_alerts(line, p, model.thresholds[name]) for name in ("high", "elevated")
    )
    assert high <= 0.7 * elevated
    assert np.isfinite(metrics.lead_times(line, p, model.thresholds["high"])).mean() > 0.8
    assert outcomes(test).any()


@pytest.mark.parametrize("seed", range(5))
def test_false_alerts_equal_the_count_one_by_one(seed):
    from aegisops.modelling import metrics
    from aegisops.modelling.metrics import Timeline

    rng = np.random.default_rng(seed)
    machine = np.repeat(np.arange(4), 60)
    ts = np.tile(np.arange(60) * 10, 4)
    failed = np.sort(rng.integers(0, 600, 6))
    line = Timeline(machine, ts, rng.integers(0, 4, 6), failed, horizon=100, step=10)
    p = rng.random(len(ts))
    count = 0
    for i in metrics.alerts(line, p, 0.8):
        ahead = line.failure_ts[line.failure_machine == machine[i]] - ts[i]
        count += not ((ahead > 0) & (ahead <= 100)).any()
    assert metrics.false_alerts(line, p, 0.8) == count
    lowest = metrics.false_alert_threshold(line, p, 3)
    assert metrics.false_alerts(line, p, lowest) <= 3
