import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from aegisops.modelling import metrics
from aegisops.modelling.metrics import Timeline

H = 3_600_000_000


def scored(n=2_000, seed=0):
    random = np.random.default_rng(seed)
    y = (random.random(n) < 0.1).astype(np.int8)
    p = np.round(np.clip(random.normal(0.2 + 0.3 * y, 0.2), 0, 1), 2)  # many ties
    return y, p


def test_ranking_figures_are_scikit_learns_ties_included():
    y, p = scored()
    assert metrics.average_precision(y, p) == pytest.approx(average_precision_score(y, p))
    assert metrics.roc_auc(y, p) == pytest.approx(roc_auc_score(y, p))


def test_weights_mean_repeated_rows():
    y, p = scored(300)
    w = np.random.default_rng(1).integers(0, 4, len(y)).astype(float)
    again = np.repeat(np.arange(len(y)), w.astype(int))
    for metric in (metrics.average_precision, metrics.roc_auc, metrics.brier):
        assert metric(y, p, w) == pytest.approx(metric(y[again], p[again]))
    assert metrics.precision_recall_f1(y, p, 0.4, w) == pytest.approx(
        metrics.precision_recall_f1(y[again], p[again], 0.4)
    )


def test_figures_without_a_failure_are_undefined_not_zero():
    y, p = np.zeros(5, np.int8), np.linspace(0, 1, 5)
    assert np.isnan(metrics.average_precision(y, p))
    assert np.isnan(metrics.roc_auc(y, p))


def test_the_best_f1_threshold_is_the_best_of_all_thresholds():
    y, p = scored(400, 2)
    best = metrics.precision_recall_f1(y, p, metrics.best_f1_threshold(y, p))[2]
    every = [metrics.precision_recall_f1(y, p, t)[2] for t in np.unique(p)]
    assert best == pytest.approx(max(every))


def test_calibration_error_is_zero_for_true_probabilities_and_large_for_boasting():
    random = np.random.default_rng(0)
    p = random.random(200_000)
    y = (random.random(len(p)) < p).astype(np.int8)
    assert metrics.calibration_error(y, p) < 0.005
    assert metrics.calibration_error(y, np.where(p > 0.5, 1.0, 0.0)) > 0.2


def timeline():
    """Machines 0 and 1, hourly for 100 h; machine 0 fails at 50 h, machine 1 at 90 h."""
    return Timeline(
        machine=np.repeat([0, 1], 100),
        ts=np.tile(np.arange(100), 2) * H,
        failure_machine=np.array([0, 1]),
        failure_ts=np.array([50, 90]) * H,
        horizon=24 * H,
        step=H,
    )


def test_lead_time_counts_from_the_first_alarm_within_the_horizon():
    line, p = timeline(), np.zeros(200)
    p[10] = 0.9  # machine 0 at 10 h: too early to count
    p[[40, 45]] = 0.9
    lead = metrics.lead_times(line, p, 0.5)
    assert lead[0] == 10 * H
    assert np.isnan(lead[1])


def test_an_alert_silences_its_machine_for_one_horizon():
    line, p = timeline(), np.zeros(200)
    p[10:40] = 0.9
    p[110] = 0.9
    assert metrics.alerts(line, p, 0.5).tolist() == [10, 34, 110]
    assert metrics.false_alerts(line, p, 0.5) == 2  # 34 h sees the failure at 50 h


@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.2, 0.5, 0.9]))
def test_alerts_and_lead_times_are_those_of_a_plain_walk_over_the_rows(seed, threshold):
    random = np.random.default_rng(seed)
    machine = np.sort(random.integers(0, 4, 80))
    ts = random.integers(-5, 30, 80) * H
    order = np.lexsort((ts, machine))
    p, failures = random.random(80), np.unique(random.integers([0, -5], [4, 40], (5, 2)), axis=0)
    line = Timeline(machine, ts[order], failures[:, 0], failures[:, 1] * H, horizon=6 * H, step=H)
    raised, silent = [], {}
    for i, (m, t) in enumerate(zip(machine, line.ts, strict=True)):
        if p[i] >= threshold and t >= silent.get(m, t):
            raised.append(i)
            silent[m] = t + line.horizon
    assert metrics.alerts(line, p, threshold).tolist() == raised
    lead = []
    for m, t in zip(line.failure_machine, line.failure_ts, strict=True):
        near = (machine == m) & (line.ts < t) & (line.ts >= t - line.horizon) & (p >= threshold)
        lead.append(t - line.ts[near].min() if near.any() else np.nan)
    np.testing.assert_array_equal(metrics.lead_times(line, p, threshold), lead)


def test_the_budget_threshold_spends_the_budget_and_no_more():
    line = timeline()
    p = np.random.default_rng(0).random(200)
    threshold = metrics.budget_threshold(line, p, 2.0)
    allowed = 2.0 * line.machine_weeks
    assert 0 < len(metrics.alerts(line, p, threshold)) <= allowed
    nothing = metrics.budget_threshold(line, p, 0.0)
    assert len(metrics.alerts(line, p, nothing)) == 0


def test_intervals_resample_machines_so_one_bad_machine_widens_them():
    machine = np.repeat(np.arange(10), 50)
    weights = metrics.machine_weights(machine, 300, seed=0)
    assert weights.sum(axis=1).tolist() == [10.0] * 300
    even, uneven = np.ones(10), np.array([10.0] + [0.0] * 9)
    narrow = metrics.interval(weights @ even / 10)
    wide = metrics.interval(weights @ uneven / 10)
    assert narrow == {"low": 1.0, "high": 1.0}
    assert wide["low"] == 0.0
    assert wide["high"] > 2
    assert metrics.interval(np.array([np.nan])) == {"low": None, "high": None}
    again = metrics.machine_weights(machine, 300, seed=0)
    assert (again == weights).all()
