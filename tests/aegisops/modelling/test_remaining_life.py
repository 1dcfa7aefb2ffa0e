"""Intervals of the remaining life hold on machines nobody trained on, and know their limits."""

import numpy as np
import polars as pl
import pytest

from aegisops.modelling import remaining_life
from aegisops.modelling.labels import label_rows
from aegisops.modelling.remaining_life import Lives, kaplan_meier, lives, meaning
from aegisops.modelling.rows import labelled
from aegisops.modelling.split import folds

H = 3_600_000_000


def test_nine_of_ten_lives_of_unseen_machines_lie_inside_the_interval(
    life_model, training_rows, pump_class
):
    test = training_rows.filter(pl.col("fold") == "test")
    found = remaining_life.examine(life_model.life, test, pump_class, pump_class.horizon)
    assert 0.8 <= found["coverage"] <= 0.99
    assert found["median_error_h"] < 3  # of 18 h of symptoms


def test_nothing_is_said_of_machines_without_symptoms(life_model, training_rows, pump_class):
    from aegisops import remaining_life as scored
    from aegisops.modelling.rows import matrix

    test = training_rows.filter(pl.col("fold") == "test")
    far = (test["hours_to_failure"].fill_null(999) > 30).to_numpy()
    said = scored.estimate(
        life_model.life, scored.scores(life_model.life, matrix(test, pump_class))
    )
    assert np.isnan(said.median[far]).mean() > 0.97


def test_the_same_rows_in_any_order_give_the_same_model(life_model, training_rows, pump_class):
    again = remaining_life.fit(training_rows.sample(fraction=1, shuffle=True, seed=4), pump_class)
    assert again.life.booster.save_raw("ubj") == life_model.life.booster.save_raw("ubj")
    assert again.about == life_model.about


def test_test_rows_do_not_change_the_model(life_model, training_rows, pump_class):
    spoiled = training_rows.with_columns(
        pl.when(pl.col("fold") == "test")
        .then(pl.col("hours_followed") * 7)
        .otherwise("hours_followed")
        .alias("hours_followed")
    )
    again = remaining_life.fit(spoiled, pump_class)
    assert again.life.high.tolist() == life_model.life.high.tolist()


def test_without_a_trend_there_is_no_model(history, pump_class):
    """The same failures, but the sensors say nothing: every bin holds rows that go on for ever."""
    features, events = history
    random = np.random.default_rng(3)
    noise = random.normal(0, 1, (features.height, len(pump_class.vector)))
    features = features.with_columns(pl.Series("vector", noise.tolist()))
    rows = labelled(features, label_rows(features, events, pump_class))
    made = remaining_life.fit(folds(rows, pump_class, pump_class.horizon, seed=1), pump_class)
    assert made is None


def test_too_few_failures_give_no_model(training_rows, pump_class):
    few = training_rows.filter(pl.col("machine_id").is_in(["p00", "p01", "p02"]))
    assert remaining_life.fit(few, pump_class) is None


def test_lives_end_with_the_failure_or_with_what_hides_it():
    from tests.aegisops.modelling.test_labels import CLASS, events, features

    happened = events(("a", 40, "maintenance", "comp2"), ("a", 90, "failure", "comp1"))
    rows = label_rows(features(range(100)), happened, CLASS)
    known = lives(rows.filter(pl.col("label").is_not_null()), CLASS, CLASS.horizon)
    hours = rows.filter(pl.col("label").is_not_null())["ts"].to_numpy() // H
    before, after = hours == 10, hours == 60
    assert (known.hours[before], known.failed[before]) == (30.0, False)
    assert (known.hours[after], known.failed[after]) == (30.0, True)


def test_kaplan_meier_counts_censored_rows_while_they_were_watched():
    hours = np.array([1.0, 2.0, 3.0, 4.0])
    failed = np.array([True, False, True, True])
    known = Lives(hours, failed, np.array([1, -1, 2, 3]))
    # Survival: 3/4 after 1; then of two at risk one fails at 3: 3/8; at 4: 0.
    assert kaplan_meier(known, 0.25) == 1.0
    assert kaplan_meier(known, 0.5) == 3.0
    assert kaplan_meier(known, 0.7) == 4.0
    watched = Lives(hours, np.array([True, False, False, False]), np.array([1, -1, -1, -1]))
    assert kaplan_meier(watched, 0.5) == np.inf


@pytest.mark.parametrize(("failures", "coverage"), [(12, 9 / 11), (60, 0.9)])
def test_fewer_failures_promise_less(failures, coverage):
    random = np.random.default_rng(0)
    hours = np.tile(random.uniform(1, 9, failures), 5)
    known = Lives(hours, np.ones(len(hours), bool), np.tile(np.arange(failures), 5))
    life = meaning(None, random.normal(size=len(hours)), known)
    assert life.coverage == pytest.approx(coverage)
