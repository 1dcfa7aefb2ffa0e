import json

import numpy as np
import polars as pl
import pytest

from aegisops.errors import Permanent
from aegisops.machines import Costs
from aegisops.modelling import bundle, calibration, metrics
from aegisops.modelling.fitting import Recipe
from aegisops.modelling.rows import matrix, outcomes
from aegisops.modelling.training import fit
from aegisops.scoring import bundle_digest

QUICK = Recipe(rounds=15, parallel_trees=4, mode_rounds=15)


def test_the_model_finds_failures_of_machines_it_never_saw(model, training_rows, pump_class):
    test = training_rows.filter(pl.col("fold") == "test")
    y, p = outcomes(test), model.probability(matrix(test, pump_class))
    assert metrics.average_precision(y, p) > 0.6
    assert metrics.roc_auc(y, p) > 0.95
    assert metrics.calibration_error(y, p) < 0.03


def test_the_mode_booster_tells_the_modes_apart(model, training_rows, pump_class):
    rows = training_rows.filter((pl.col("fold") == "test") & (pl.col("label") == 1))
    data = model.mode_probability(matrix(rows, pump_class))
    told = np.array(model.modes)[data.argmax(axis=1)]
    truth = rows["failure_modes"].list.first().to_numpy()
    assert model.modes == ("bearing", "seal")  # a mode without an example is not learned
    assert (told == truth).mean() > 0.9


def test_test_rows_do_not_change_the_model(model, training_rows, pump_class):
    spoiled = training_rows.with_columns(
        pl.when(pl.col("fold") == "test")
        .then(1 - pl.col("label"))
        .otherwise("label")
        .alias("label")
    )
    again = fit(spoiled, pump_class, recipe=QUICK)
    assert again.failure.save_raw("ubj") == model.failure.save_raw("ubj")
    assert again.thresholds == model.thresholds


def test_training_twice_gives_the_same_digest(
    model, training_rows, pump_class, bundle_dir, tmp_path
):
    shuffled = training_rows.sample(fraction=1, shuffle=True, seed=9)
    again = fit(shuffled, pump_class, recipe=QUICK)
    digest = bundle.write(
        again,
        tmp_path / "bundle",
        version="1",
        trained_at="2026-01-01T00:00:00Z",
        data_versions={"gold/features": 3},
        metrics={"pr_auc": 0.9, "undefined": float("nan")},
    )
    assert digest == bundle_digest(bundle_dir)


def test_another_seed_gives_another_model(model, training_rows, pump_class):
    other = fit(training_rows, pump_class, recipe=Recipe(**{**_fields(QUICK), "seed": 1}))
    assert other.failure.save_raw("ubj") != model.failure.save_raw("ubj")


def _fields(recipe):
    return {name: getattr(recipe, name) for name in Recipe.__dataclass_fields__}


def test_a_written_bundle_is_plain_json_and_says_how_it_was_made(bundle_dir, pump_class):
    manifest = json.loads((bundle_dir / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["name"] == "failure-pump"
    assert manifest["data_versions"] == {"gold/features": 3}
    assert manifest["metrics"]["undefined"] is None
    assert manifest["recipe"]["rounds"] == 15
    # The order of the channels is the order of the vector, so it must not be another one here.
    assert list(manifest["machine_class"]["channels"]) == list(pump_class.channels)
    assert not [p for p in bundle_dir.parent.iterdir() if p.name.startswith(".")]


def test_a_version_is_written_once(model, bundle_dir):
    content = {"version": "1", "trained_at": "2026-01-01T00:00:00Z"}
    with pytest.raises(Permanent, match="never rewritten"):
        bundle.write(model, bundle_dir, **content)
    before = bundle_digest(bundle_dir)
    same = bundle.write(
        model,
        bundle_dir,
        **content,
        data_versions={"gold/features": 3},
        metrics={"pr_auc": 0.9, "undefined": float("nan")},
    )
    assert same == before


def test_a_model_of_some_inputs_cannot_become_a_bundle(training_rows, pump_class, tmp_path):
    part = fit(training_rows, pump_class, inputs=pump_class.vector[:3], recipe=QUICK)
    with pytest.raises(Permanent, match="whole vector"):
        bundle.write(part, tmp_path / "bundle", version="1", trained_at="2026-01-01T00:00:00Z")


def test_progress_is_told_from_start_to_end(training_rows, pump_class):
    told = []
    fit(training_rows, pump_class, recipe=QUICK, progress=lambda what, share: told.append(share))
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_the_alarm_threshold_follows_the_costs():
    assert calibration.cost_threshold(Costs()) == pytest.approx(5 / 85)
    dear = Costs(missed_failure=100, false_alarm=80, planned_stop=20)
    assert calibration.cost_threshold(dear) == pytest.approx(0.5)
    assert calibration.cost_threshold(Costs(missed_failure=10, planned_stop=20)) == 0.5


@pytest.mark.parametrize("failures", [10, 1_000])
def test_calibration_mends_overconfident_margins(failures):
    random = np.random.default_rng(0)
    truth = random.normal(-2, 2, 20_000)
    y = (random.random(len(truth)) < 1 / (1 + np.exp(-truth))).astype(float)
    boasting = 3 * truth
    curve = calibration.fit(boasting, y, failures)
    assert curve.method == ("platt" if failures < 100 else "isotonic")
    assert metrics.calibration_error(y, 1 / (1 + np.exp(-boasting))) > 0.05
    assert metrics.calibration_error(y, curve(boasting)) < 0.01
    assert (np.diff(curve.x) > 0).all()
    assert (np.diff(curve.y) >= 0).all()


def test_calibration_of_perfectly_separated_rows_stays_short_of_certainty():
    margin = np.concatenate([np.full(50, -4.0), np.full(5, 4.0)])
    y = (margin > 0).astype(float)
    p = calibration.fit(margin, y, 5)(margin)
    assert 0 < p[0] < 0.1
    assert 0.6 < p[-1] < 1
