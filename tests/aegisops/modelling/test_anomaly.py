import json

import numpy as np
import polars as pl
import pytest

from aegisops import anomaly
from aegisops.modelling import metrics
from aegisops.modelling.anomaly import export, fit, isolation_forest
from aegisops.modelling.rows import healthy, matrix, outcomes
from aegisops.scoring import bundle_digest
from tests.aegisops.conftest import write_pump_bundle


@pytest.mark.parametrize("rows", [2, 3, 100, 2_000])
def test_the_arrays_score_as_scikit_learn_does(rows):
    random = np.random.default_rng(rows)
    healthy_rows = random.normal(size=(rows, 5)).astype(np.float32)
    healthy_rows[:, 4] = random.integers(0, 2, rows)  # ties, as counts have them
    model = isolation_forest(healthy_rows, seed=1)
    forest = export(model, np.arange(5, dtype=np.int32), np.zeros(5, np.float32))
    asked = np.concatenate([healthy_rows, random.normal(0, 5, (1_500, 5)).astype(np.float32)])
    asked[-1, 0] = model.estimators_[0].tree_.threshold[0]  # as near to a split as float32 allows
    difference = anomaly.score(forest, asked) + model.score_samples(asked)
    assert np.abs(difference).max() < 1e-9


def test_machines_that_will_fail_look_unusual_without_any_label_seen(
    anomaly_model, training_rows, pump_class
):
    test = training_rows.filter(pl.col("fold") == "test")
    scores = anomaly.score(anomaly_model.forest, matrix(test, pump_class))
    y = outcomes(test)
    assert metrics.roc_auc(y, scores) > 0.9
    probability = anomaly.calibrate(anomaly_model.forest, scores)
    assert metrics.calibration_error(y, probability) < 0.05
    assert (probability[y == 1]).mean() > 5 * (probability[y == 0]).mean()


def test_about_one_healthy_row_in_twenty_is_beyond_the_usual_score(
    anomaly_model, training_rows, pump_class
):
    test = training_rows.filter(pl.col("fold") == "test")
    sound = test.filter(pl.Series(healthy(test, pump_class.horizon, pump_class)))
    scores = anomaly.score(anomaly_model.forest, matrix(sound, pump_class))
    assert 0.02 < (scores > anomaly_model.forest.usual).mean() < 0.1


def test_only_features_over_a_window_are_looked_at(anomaly_model, pump_class):
    assert anomaly_model.about["inputs"] == [
        "vibration_rms_1h",
        "vibration_kurtosis_6h",
        "temperature_mean_6h",
        "leak_count_6h",
    ]
    usual = np.array([[3.0, 0.0, 50.0, 0.0, 10.0, 0.0]])
    older = np.array([[3.0, 0.0, 50.0, 0.0, 1e6, 1.0]])
    forest = anomaly_model.forest
    assert anomaly.score(forest, usual) == anomaly.score(forest, older)


def test_another_row_order_and_other_test_labels_give_the_same_digest(
    model, training_rows, pump_class, forest_bundle_dir, tmp_path
):
    turned = pl.when(pl.col("fold") == "test").then(1 - pl.col("label")).otherwise("label")
    spoiled = training_rows.with_columns(turned.alias("label")).sample(
        fraction=1, shuffle=True, seed=3
    )
    write_pump_bundle(model, tmp_path / "bundle", anomaly_model=fit(spoiled, pump_class))
    assert bundle_digest(tmp_path / "bundle") == bundle_digest(forest_bundle_dir)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["anomaly"]["healthy_rows"] > 256


def test_a_class_with_too_few_healthy_rows_has_no_forest(training_rows, pump_class):
    few = training_rows.group_by("machine_id", maintain_order=True).head(10)
    assert fit(few, pump_class) is None
    nothing_unseen = training_rows.filter(pl.col("fold") != "calibrate", pl.col("label") == 0)
    assert fit(nothing_unseen, pump_class) is None


def test_with_few_late_failures_it_is_calibrated_across_machines(anomaly_model, training_rows):
    about = anomaly_model.about["calibration"]
    assert about["rows"] == "cross_fitted"
    late = training_rows.filter(pl.col("fold") == "calibrate", pl.col("label") == 1)
    assert about["failures"] > late["machine_id"].n_unique()


def test_with_few_failing_machines_it_is_calibrated_on_the_later_fold(training_rows, pump_class):
    failing = pl.col("machine_id").is_in(["p00", "p01", "p02"])
    rows = training_rows.filter(failing | (pl.col("label") == 0))
    assert fit(rows, pump_class).about["calibration"]["rows"] == "calibrate_fold"


def test_a_channel_that_never_reported_is_left_out(training_rows, pump_class):
    vectors = np.array(training_rows["vector"].to_list())
    vectors[:, 2] = np.nan
    silent = training_rows.with_columns(pl.Series("vector", vectors.tolist()))
    found = fit(silent, pump_class)
    assert "temperature_mean_6h" not in found.about["inputs"]
