import json
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
import polars as pl
import pytest

from aegisops import anomaly
from aegisops.errors import BadInput, UntrustedBundle
from aegisops.modelling.rows import matrix
from aegisops.scoring import load_bundle


@pytest.fixture(scope="module")
def forest(forest_bundle_dir):
    return load_bundle(forest_bundle_dir).forest


@pytest.fixture(scope="module")
def vectors(training_rows, pump_class):
    return matrix(training_rows.filter(pl.col("fold") == "test"), pump_class)


def test_a_loaded_forest_scores_bit_for_bit_as_the_fitted_one(forest, anomaly_model, vectors):
    before = anomaly.score(anomaly_model.forest, vectors)
    assert (anomaly.score(forest, vectors) == before).all()
    assert ((before > 0) & (before < 1)).all()


def test_one_row_alone_scores_bit_for_bit_as_in_a_batch(forest, vectors):
    many = np.concatenate([vectors, vectors])  # more than are walked together
    whole = anomaly.score(forest, many)
    assert len(many) > 1_024
    for i in (0, 17, len(vectors) - 1):
        assert anomaly.score(forest, vectors[i : i + 1])[0] == whole[i] == whole[i + len(vectors)]


def test_the_probability_rises_with_the_score_and_stays_short_of_certainty(forest):
    probability = anomaly.calibrate(forest, np.linspace(0, 1, 500))
    assert (np.diff(probability) >= 0).all()
    assert 0 < probability[0] < probability[-1] < 1


def test_a_missing_value_counts_as_the_healthy_median(forest, vectors):
    gap = vectors[:1].copy()
    gap[0, 2] = np.nan
    filled = gap.copy()
    filled[0, 2] = forest.medians[2]
    assert anomaly.score(forest, gap) == anomaly.score(forest, filled)
    gap[0, 2] = np.inf
    assert anomaly.score(forest, gap) == anomaly.score(forest, filled)


def test_with_most_inputs_missing_there_is_no_score(forest, vectors):
    rows = vectors[:2].copy()
    rows[0, :3] = np.nan
    scores = anomaly.score(forest, rows)
    assert np.isnan(scores[0])
    assert np.isnan(anomaly.calibrate(forest, scores)[0])
    assert np.isfinite(scores[1])


def test_no_vectors_have_no_scores_and_short_ones_are_refused(forest, vectors):
    assert anomaly.score(forest, vectors[:0]).shape == (0,)
    with pytest.raises(BadInput):
        anomaly.score(forest, vectors[:, :2])


def test_a_bundle_from_before_the_forest_still_loads(bundle_dir):
    assert load_bundle(bundle_dir).forest is None


def _rewrite(path, **changes):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files} | changes
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"no zip"),
        lambda path: path.write_bytes(path.read_bytes()[:5_000]),
        lambda path: _rewrite(path, medians=np.zeros(1, np.float32)),
        lambda path: _rewrite(path, roots=np.array([10**6], np.int32)),
        lambda path: _rewrite(path, inputs=np.array([0, 1, 2, 6], np.int32)),
        lambda path: _rewrite(path, inputs=np.array([0, 1, 2, -1], np.int32)),
        lambda path: _rewrite(path, average_path=np.array(0.0)),
        lambda path: _rewrite(path, knots_score=np.array([object()])),
    ],
)
def test_a_spoiled_forest_is_refused_with_the_whole_bundle(forest_bundle_dir, tmp_path, spoil):
    copy = tmp_path / "bundle"
    shutil.copytree(forest_bundle_dir, copy)
    spoil(copy / "anomaly.npz")
    with pytest.raises(UntrustedBundle, match="train"):
        load_bundle(copy)


def test_the_file_holds_plain_arrays_and_the_manifest_says_what_it_is(forest_bundle_dir):
    with np.load(forest_bundle_dir / "anomaly.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {f.name for f in fields(anomaly.Forest)}
        assert not any(stored[name].dtype.hasobject for name in stored.files)
    about = json.loads((forest_bundle_dir / "manifest.json").read_text())["anomaly"]
    assert about["missing"] == "healthy median"


def test_scoring_a_forest_needs_no_scikit_learn(forest_bundle_dir):
    code = (
        "import sys, numpy\n"
        "sys.modules['sklearn'] = None\n"
        "from pathlib import Path\n"
        "from aegisops import anomaly\n"
        f"forest = anomaly.load(Path({str(forest_bundle_dir)!r}) / 'anomaly.npz', 6)\n"
        "print(anomaly.score(forest, numpy.zeros((1, 6)))[0] > 0, 'polars' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
