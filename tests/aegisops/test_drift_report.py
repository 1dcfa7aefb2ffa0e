"""Evidently draws what `modelling/drift.py` decides, on data that turns its own defaults."""

import json

import numpy as np
import polars as pl
import pytest

from aegisops import drift_report
from aegisops.modelling import drift

pytestmark = [
    pytest.mark.slow,
    # Evidently's imports warn.
    pytest.mark.filterwarnings("default"),
]


def rows(x, **more):
    return pl.DataFrame({"x": x, **more})


def normal(n, seed, shift=0.0):
    return np.random.default_rng(seed).normal(size=n) + shift


@pytest.mark.parametrize("n", [300, 3000])
def test_evidently_gives_our_index_and_our_verdict_whatever_the_size(n):
    reference, current = normal(n, 0), normal(n, 1, shift=1.0)
    for spike in ([], [1e6]):
        now = np.append(current, spike)
        made = drift_report.compare(rows(reference), rows(now), {"x": 0.2})
        assert made.values["x"] == pytest.approx(drift.psi(reference, now))
        assert made.values["x"] > 0.5
        assert made.drifted == {"x": True}


def test_the_reference_gives_the_bins():
    reference, current = normal(500, 0), normal(500, 1, shift=2.0) * 3
    made = drift_report.compare(rows(reference), rows(current), {"x": 0.2})
    assert made.values["x"] == pytest.approx(drift.psi(reference, current))
    assert made.values["x"] != pytest.approx(drift.psi(current, reference), rel=0.01)


def test_the_threshold_is_the_calibrated_one():
    reference, current = normal(500, 0), normal(500, 1, shift=0.7)
    verdicts = [
        drift_report.compare(rows(reference), rows(current), {"x": t}).drifted["x"]
        for t in (0.1, 5.0)
    ]
    assert verdicts == [True, False]


def test_empty_columns_are_left_out():
    side = rows(normal(100, 0), y=pl.Series([None] * 100, dtype=pl.Float64))
    assert list(drift_report.compare(side, side, {"x": 0.2, "y": 0.2}).values) == ["x"]
    assert drift_report.compare(side, side, {"y": 0.2}) is None


def test_the_page_and_the_json_carry_the_tests(tmp_path):
    made = drift_report.compare(rows(normal(100, 0)), rows(normal(100, 1, 2.0)), {"x": 0.2})
    made.save_html(tmp_path / "page.html")
    assert "PSI over reference deciles" in (tmp_path / "page.html").read_text()
    tests = json.loads(made.as_json())["tests"]
    assert [t["status"] for t in tests] == ["FAIL"]
