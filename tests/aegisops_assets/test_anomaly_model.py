"""ml/anomaly_model fits the forest once; the signed bundle carries exactly that one."""

import numpy as np
import pytest

from aegisops import anomaly as scored
from aegisops.modelling import anomaly as fitting
from aegisops.scoring import ANOMALY_FOREST
from aegisops_assets import plots
from aegisops_assets.steps import anomaly, training

pytestmark = [
    pytest.mark.slow,
    # Third parties warn while they are imported and while MLflow makes its database.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def fits(monkeypatch):
    """How many forests were fitted."""
    made = []
    original = fitting.fit

    def counted(*arguments, **options):
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(fitting, "fit", counted)
    return made


def test_the_bundle_carries_the_forest_of_the_asset(finished):
    platform, result = finished
    kept = platform.settings.forests_dir / "press" / ANOMALY_FOREST
    bundle = platform.registry.by_alias("press", "candidate").tags["bundle_version"]
    assert kept.read_bytes() == (platform.bundle_dir("press", bundle) / ANOMALY_FOREST).read_bytes()
    said = result["assets"]["ml/anomaly_model"]
    assert said["press"]["rows"] == said["dagster/row_count"] > fitting.FEWEST_HEALTHY
    assert 0 < said["press"]["share_of_training_rows"] < 1
    # The forest has not seen the test rows; failing ones look unusual, healthy ones rarely do.
    assert (
        said["press"]["failing_test_rows_called_unusual"]
        > 2 * said["press"]["healthy_test_rows_called_unusual"]
    )


def test_training_takes_the_kept_forest_and_fits_another_only_for_other_rows(copied, fits):
    digest = training.train(copied)[0].digest
    assert fits == []
    (copied.settings.forests_dir / "press" / ANOMALY_FOREST).write_bytes(b"torn")
    assert training.train(copied)[0].digest == digest
    assert len(fits) == 1
    training.build_set(copied, seed=5)
    training.train(copied)
    assert len(fits) == 2
    anomaly.build(copied)
    assert len(fits) == 2


def test_a_class_without_enough_healthy_rows_says_so(copied, monkeypatch):
    monkeypatch.setattr(fitting, "FEWEST_HEALTHY", 10**6)
    (copied.settings.forests_dir / "press" / anomaly.ABOUT).unlink()
    (found,) = anomaly.build(copied)
    assert found.model is None
    assert "skipped" in found.figures
    (again,) = anomaly.build(copied)
    assert again.model is None


def test_the_plot_is_small_and_says_where_unusual_begins():
    rng = np.random.default_rng(1)
    shown = plots.scores(rng.normal(0.45, 0.02, 500), rng.normal(0.6, 0.05, 50), 0.5)
    assert shown.startswith("![anomaly scores](data:image/png;base64,")
    assert len(shown) < 100_000


def test_a_kept_forest_scores_as_it_did(finished):
    platform, _ = finished
    (found,) = anomaly.build(platform)
    again = scored.load(platform.settings.forests_dir / "press" / ANOMALY_FOREST, 7)
    rows = np.random.default_rng(2).normal(900, 50, (20, 7))
    assert np.array_equal(scored.score(again, rows), scored.score(found.model.forest, rows))
