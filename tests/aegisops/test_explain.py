import numpy as np
import pytest

from aegisops import anomaly
from aegisops.explain import deviation, explain, explain_unusual, feature_title, percent
from aegisops.machines import load_class
from aegisops.scoring import load_bundle, score


@pytest.fixture(scope="module")
def loaded(bundle_dir):
    return load_bundle(bundle_dir)


SICK = [[9.0, 3.0, 50.0, 0.0, 100.0, 0.0]]  # vibration as the bearing wears
WELL = [[3.0, 0.0, 50.0, 0.0, 100.0, 1.0]]


def told(loaded, vector):
    scores = score(loaded, vector)
    return explain(
        loaded,
        vector[0],
        scores.contributions[0],
        scores.mode_probability[0],
        float(scores.probability[0]),
    )


def test_the_sentence_names_risk_horizon_value_normal_range_and_mode(loaded):
    explanation = told(loaded, SICK)
    assert explanation.sentence.startswith("Failure risk within 12 h is ")
    assert "vibration" in explanation.sentence
    assert "(normal " in explanation.sentence
    assert explanation.sentence.endswith("mostly pointing to bearing wear.")
    assert explanation.failure_mode == "bearing"
    assert explanation.action == "Replace the bearing."
    assert explanation.mode_probability > 0.5


def test_reasons_are_the_largest_contributions_with_value_unit_and_normal_range(loaded):
    scores = score(loaded, SICK)
    explanation = told(loaded, SICK)
    sizes = [abs(reason.contribution) for reason in explanation.reasons]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 5
    assert sizes[0] == np.abs(scores.contributions[0]).max()
    rms = next(r for r in explanation.reasons if r.feature == "vibration_rms_1h")
    assert rms.unit == "mm/s"
    assert rms.text == "9 mm/s"
    assert rms.normal[0] < 3 < rms.normal[1] < 9


def test_a_healthy_machine_gets_no_mode_and_no_action(loaded):
    explanation = told(loaded, WELL)
    assert explanation.failure_mode is None
    assert explanation.action is None
    assert explanation.sentence.endswith("no input points to a failure.")


def test_a_category_is_told_by_its_name_and_a_missing_value_as_missing(loaded):
    vector = [[9.0, float("nan"), 50.0, 0.0, 100.0, 1.0]]
    ones = np.array([0.1, 2.0, 0.1, 0.1, 0.1, 1.0])
    explanation = explain(loaded, vector[0], ones, np.array([0.0, 1.0]), 0.9)
    texts = {r.feature: r for r in explanation.reasons}
    assert texts["make"].text == "south"
    assert texts["make"].normal is None
    assert texts["vibration_kurtosis_6h"].text == "missing"
    assert texts["vibration_kurtosis_6h"].value is None
    assert explanation.failure_mode == "seal"
    assert explanation.procedure == "P-2"


@pytest.fixture(scope="module")
def with_forest(forest_bundle_dir):
    return load_bundle(forest_bundle_dir)


def unusual(bundle, vector):
    scores = anomaly.score(bundle.forest, vector)
    probability = anomaly.calibrate(bundle.forest, scores)
    return explain_unusual(bundle, vector[0], float(scores[0]), float(probability[0]))


def test_an_unusual_machine_is_told_by_the_values_furthest_from_normal(with_forest):
    explanation = unusual(with_forest, SICK)
    assert explanation.sentence.startswith(
        "Operation looks unlike this machine class's healthy operation: vibration "
    )
    assert "(normal " in explanation.sentence
    assert explanation.sentence.endswith(" were followed by a failure within 12 h.")
    first, second = explanation.reasons[:2]
    assert {first.feature, second.feature} == {"vibration_rms_1h", "vibration_kurtosis_6h"}
    assert all(reason.contribution is None for reason in explanation.reasons)
    assert "time_since_maintenance" not in {reason.feature for reason in explanation.reasons}


def test_a_usual_machine_is_called_so_without_mode_or_action(with_forest):
    explanation = unusual(with_forest, WELL)
    assert explanation.sentence.startswith(
        "Operation looks like this machine class's healthy operation. On held-out data "
    )
    assert (explanation.failure_mode, explanation.action) == (None, None)


def test_no_mode_is_named_that_the_class_does_not_point_to(with_forest):
    # The pump's modes declare no channels, so what is unusual says nothing about the mode.
    assert unusual(with_forest, SICK).failure_mode is None


def test_a_missing_value_is_no_reason(with_forest):
    gap = [[9.0, float("nan"), 50.0, 0.0, 100.0, 0.0]]
    features = [reason.feature for reason in unusual(with_forest, gap).reasons]
    assert features[0] == "vibration_rms_1h"
    assert "vibration_kurtosis_6h" not in features


def test_a_deviation_of_one_is_the_edge_of_the_normal_range(with_forest):
    normal = with_forest.normals["temperature_mean_6h"]
    i = with_forest.vector.index("temperature_mean_6h")
    assert deviation(with_forest, i, normal["median"]) == 0
    assert deviation(with_forest, i, normal["high"]) == pytest.approx(1)
    assert deviation(with_forest, i, normal["low"]) == pytest.approx(1)
    count = with_forest.vector.index("leak_count_6h")
    assert np.isfinite(deviation(with_forest, count, 3.0))


@pytest.mark.parametrize(
    ("name", "feature", "title"),
    [
        ("cnc_spindle", "vibration_kurtosis_1h", "vibration kurtosis over 1 h"),
        ("cnc_spindle", "vibration_rms_5m", "vibration RMS over 5 min"),
        ("cnc_spindle", "time_since_maintenance", "time since maintenance"),
        ("azure_pdm", "error1_count_24h", "count of error1 over 24 h"),
        ("azure_pdm", "age", "age"),
    ],
)
def test_features_are_named_in_plain_words(name, feature, title):
    assert feature_title(load_class(name), feature) == title


def test_percentages_keep_their_meaning_at_the_ends():
    assert [percent(p) for p in (0.0001, 0.004, 0.78, 0.9999)] == [
        "below 0.1 %",
        "0.4 %",
        "78 %",
        "above 99 %",
    ]
