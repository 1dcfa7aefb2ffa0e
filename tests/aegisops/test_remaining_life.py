"""What a score means for the remaining life, and when nothing is said."""

import json

import numpy as np
import polars as pl
import pytest

from aegisops import remaining_life, scoring
from aegisops.errors import UntrustedBundle
from aegisops.modelling.rows import matrix
from aegisops.remaining_life import Life

DECLARED = {
    "score": [0.0, 1.0, 3.0],
    "low": [1.0, 2.0, 6.0],
    "median": [2.0, 4.0, 12.0],
    "high": [3.0, 8.0, 30.0],
    "trend_below": 3.5,
    "coverage": 0.9,
}


def test_between_the_knots_hours_are_interpolated_and_beyond_the_trend_nothing_is_said():
    life = remaining_life.load(None, DECLARED)
    said = remaining_life.estimate(life, np.array([-5.0, 2.0, 3.5, 3.6]))
    assert said.median.tolist()[:3] == [2.0, 8.0, 12.0]
    assert said.low.tolist()[:3] == [1.0, 4.0, 6.0]
    assert said.high.tolist()[:3] == [3.0, 19.0, 30.0]
    assert np.isnan([said.median[3], said.low[3], said.high[3]]).all()


def test_a_vector_without_a_score_gets_no_answer():
    life = remaining_life.load(None, DECLARED)
    assert np.isnan(remaining_life.estimate(life, np.array([np.nan])).median).all()


def test_the_manifest_keeps_what_is_needed():
    life = remaining_life.load(None, DECLARED)
    assert json.loads(json.dumps(remaining_life.about(life))) == DECLARED
    assert isinstance(life, Life)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"score": [0.0, 0.0, 3.0]},
        {"low": [1.0, 2.0]},
        {"low": [9.0, 9.0, 9.0]},
        {"high": "many"},
        {"median": None},
    ],
)
def test_knots_that_do_not_fit_together_are_refused(spoilt):
    with pytest.raises(UntrustedBundle, match="train"):
        remaining_life.load(None, DECLARED | spoilt)


def test_a_bundle_answers_as_its_life_model_does(
    life_bundle_dir, life_model, training_rows, pump_class
):
    bundle = scoring.load_bundle(life_bundle_dir)
    data = matrix(training_rows.filter(pl.col("fold") == "test"), pump_class)
    said = scoring.score(bundle, data).remaining_life
    direct = remaining_life.estimate(bundle.life, remaining_life.scores(bundle.life, data))
    assert np.array_equal(said.median, direct.median, equal_nan=True)
    wanted = remaining_life.estimate(life_model.life, remaining_life.scores(life_model.life, data))
    assert np.allclose(said.high, wanted.high, equal_nan=True)
    assert 0 < np.isfinite(said.median).mean() < 0.5


def test_a_bundle_from_before_says_nothing_of_the_remaining_life(bundle_dir, pump_class):
    bundle = scoring.load_bundle(bundle_dir)
    assert bundle.life is None
    assert scoring.score(bundle, np.zeros((1, len(pump_class.vector)))).remaining_life is None


def test_a_booster_of_other_inputs_is_refused(life_bundle_dir, bundle_dir, tmp_path):
    import shutil

    folder = shutil.copytree(life_bundle_dir, tmp_path / "bundle")
    (folder / remaining_life.LIFE_BOOSTER).write_bytes(b"{}")
    with pytest.raises(UntrustedBundle):
        scoring.load_bundle(folder)
