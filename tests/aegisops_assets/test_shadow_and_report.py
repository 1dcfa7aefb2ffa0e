"""Candidates pass through the shadow, and every validation leaves a report."""

from datetime import UTC, datetime, timedelta

import pytest

from aegisops import shadow_comparison
from aegisops.modelling.fitting import Recipe
from aegisops.names import Alias
from aegisops_assets.steps import promotion, report, shadow, training, validation

pytestmark = [
    pytest.mark.slow,
    # Third parties warn while they are imported and while MLflow makes its database.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def second(copied):
    """A platform with a second, validated candidate beside the model in production."""
    training.train(copied, recipe=Recipe(rounds=30, seed=1))
    assert validation.validate(copied)[0].passed
    return copied


def test_the_first_model_needs_no_shadow(finished):
    platform, result = finished
    assert result["assets"]["ml/shadow"]["press"]["action"] == "none"
    assert platform.releases().pointer("press", Alias.PRODUCTION) is not None


def test_a_second_candidate_waits_in_the_shadow_and_is_promoted_with_evidence(second, monkeypatch):
    known = second.releases()
    before = known.pointer("press", Alias.PRODUCTION)
    (placed,) = shadow.place(second, decided_by="run 1")
    assert placed.action == "shadowed"
    (waiting,) = promotion.promote(second, decided_by="run 1")
    assert waiting.is_waiting
    assert "0 of 200 served vectors" in waiting.reason
    assert known.pointer("press", Alias.PRODUCTION) == before
    (kept,) = shadow.place(second, decided_by="run 2")
    assert kept.action == "kept"
    monkeypatch.setattr(shadow_comparison, "ENOUGH_PAIRS", 0)
    (made,) = promotion.promote(second, decided_by="run 3")
    assert made.promoted, made.reason
    assert known.pointer("press", Alias.PRODUCTION).version == made.model_version
    assert known.pointer("press", Alias.SHADOW) is None
    row = next(d for d in known.decisions("press")[::-1] if d["decision"] == "promoted")
    assert '"shadow"' in row["evidence"]


def test_an_altered_shadow_is_refused(second):
    known = second.releases()
    before = known.pointer("press", Alias.PRODUCTION)
    (placed,) = shadow.place(second, decided_by="run")
    booster = second.bundle_dir("press", placed.version) / "failure.ubj"
    booster.write_bytes(booster.read_bytes() + b" ")
    (made,) = promotion.promote(second, decided_by="run")
    assert not made.promoted
    assert not made.is_waiting
    assert known.pointer("press", Alias.PRODUCTION) == before
    assert known.pointer("press", Alias.SHADOW) is None


def test_a_shadow_keeps_its_place_for_a_week(second):
    (first,) = shadow.place(second, decided_by="run")
    training.train(second, recipe=Recipe(rounds=31, seed=1))
    validation.validate(second)
    (kept,) = shadow.place(second, decided_by="run")
    assert (kept.action, kept.version) == ("kept", first.version)
    later = datetime.now(UTC) + timedelta(days=8)
    (placed,) = shadow.place(second, decided_by="run", now=later)
    assert placed.action == "shadowed"
    assert placed.version != first.version


def test_the_validation_report_is_one_file_beside_the_bundle_and_in_mlflow(finished):
    platform, _ = finished
    pointer = platform.releases().pointer("press", Alias.PRODUCTION)
    path = platform.bundle_dir("press", pointer.version).with_name(report.FILE)
    text = path.read_text()
    assert text.count("<svg") >= 4
    for heading in ("Curves", "Failure modes", "Remaining life", "Without the maintenance"):
        assert heading in text
    assert "http" not in text.replace("http://www.w3.org", "")
    kept = list((platform.settings.data_dir / "mlflow").rglob(report.FILE))
    assert kept
    assert kept[0].read_text() == text
