import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from aegisops.errors import BadInput, UntrustedBundle
from aegisops.modelling.rows import matrix
from aegisops.scoring import bundle_digest, load_bundle, probabilities, score


@pytest.fixture(scope="module")
def loaded(bundle_dir):
    return load_bundle(bundle_dir)


@pytest.fixture(scope="module")
def vectors(training_rows, pump_class):
    return matrix(training_rows.filter(pl.col("fold") == "test"), pump_class)


def test_a_loaded_bundle_scores_as_the_model_did_in_training(loaded, model, vectors):
    scores = score(loaded, vectors)
    assert (scores.probability == model.probability(vectors)).all()
    assert (scores.mode_probability == model.mode_probability(vectors)).all()
    assert (probabilities(loaded, vectors) == scores.probability).all()


def test_contributions_and_bias_sum_to_the_margin_that_is_served(loaded, vectors):
    scores = score(loaded, vectors)
    total = scores.contributions.sum(axis=1) + scores.bias
    assert np.abs(total - scores.margin).max() < 1e-4
    assert scores.contributions.shape == vectors.shape


def test_one_row_alone_scores_bit_for_bit_as_in_a_batch(loaded, vectors):
    whole = score(loaded, vectors[:50])
    for i in range(50):
        one = score(loaded, vectors[i : i + 1].astype(np.float64))
        assert one.probability[0] == whole.probability[i]
        assert (one.contributions[0] == whole.contributions[i]).all()


def test_missing_values_are_scored_not_refused(loaded, vectors):
    row = vectors[:1].copy()
    row[0, 0] = np.nan
    scores = score(loaded, row)
    assert 0 < scores.probability[0] < 1
    assert np.isfinite(scores.contributions).all()


def test_a_vector_of_another_width_is_refused(loaded, vectors):
    with pytest.raises(BadInput, match="6 inputs"):
        score(loaded, vectors[:, :5])


def test_the_class_travels_inside_the_bundle(loaded, pump_class):
    assert loaded.machine_class == pump_class
    assert loaded.machine_class.vector == pump_class.vector
    assert loaded.vector == pump_class.vector
    assert loaded.feature_set == "pump@1"
    assert loaded.name == "failure-pump"


def test_risk_levels_follow_the_bundles_thresholds(loaded):
    low, high = loaded.thresholds["elevated"], loaded.thresholds["high"]
    assert 0 < low <= high <= 0.9
    assert loaded.risk(low - 1e-6) == "normal"
    assert loaded.risk(high) == "high"


def test_no_bundle_another_format_and_swapped_columns_are_refused(bundle_dir, tmp_path):
    with pytest.raises(UntrustedBundle, match="export the model again"):
        load_bundle(tmp_path)
    for name in ("format", "vector"):
        copy = tmp_path / name
        shutil.copytree(bundle_dir, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest |= {"format": 2} if name == "format" else {"vector": manifest["vector"][::-1]}
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UntrustedBundle):
            load_bundle(copy)


def test_the_digest_sees_every_byte_and_every_name(bundle_dir, tmp_path):
    digest = bundle_digest(bundle_dir)
    copy = tmp_path / "bundle"
    shutil.copytree(bundle_dir, copy)
    assert bundle_digest(copy) == digest
    (copy / "manifest.json").rename(copy / "manifest2.json")
    assert bundle_digest(copy) != digest


def test_scoring_does_not_import_what_serving_must_not_have():
    code = (
        "import sys, aegisops.scoring, aegisops.explain, aegisops.thresholds, aegisops.signing\n"
        "bad = {'mlflow', 'shap', 'evidently', 'dagster', 'polars', 'model_signing'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
