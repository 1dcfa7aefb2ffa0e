from __future__ import annotations

import numpy as np
import pytest

from serving import health
from serving.contract import Health
from serving.vectors import Vector
from tests.serving.conftest import SOUND, SPINDLE, WORN, Fleet, Running

LIMITS = {"elevated": 0.2, "high": 0.6}


def vector(**values: float) -> Vector:
    row = np.zeros(len(SPINDLE.vector))
    for name, value in values.items():
        row[SPINDLE.vector.index(name)] = value
    return Vector(row, SPINDLE.feature_set, 10**15, 1.0, "cache")


def test_the_model_limits_are_the_marks_of_the_scale() -> None:
    scores = [health.risk_score(p, LIMITS) for p in (0.0, 0.2, 0.6, 1.0)]
    assert scores == [100.0, 60.0, 30.0, 0.0]


def test_the_score_never_rises_with_the_risk() -> None:
    scores = [health.risk_score(p, LIMITS) for p in np.linspace(0, 1, 101)]
    assert scores == sorted(scores, reverse=True)


def test_the_worst_limit_rule_decides() -> None:
    rule = SPINDLE.thresholds[0]
    at_warning, why = health.limits_score(SPINDLE, vector(**{rule.feature: rule.warning}))
    at_alarm, _ = health.limits_score(SPINDLE, vector(**{rule.feature: rule.alarm}))
    assert (at_warning, at_alarm) == (60.0, 30.0)
    assert rule.feature in why


def test_without_a_value_there_is_no_limits_score() -> None:
    missing = vector(**{rule.feature: float("nan") for rule in SPINDLE.thresholds})
    assert health.limits_score(SPINDLE, missing)[0] is None


def test_the_last_maintenance_is_counted_back_from_the_features() -> None:
    found = health.last_maintenance(SPINDLE, vector(time_since_maintenance=2.0))
    assert found == 10**15 - 2 * 3_600_000_000


def test_a_channel_without_any_feature_is_said_to_be_silent() -> None:
    nan = float("nan")
    silent = vector(temperature_mean_1h=nan, temperature_rate_of_change_1h=nan)
    states = {row["channel"]: row["status"] for row in health.sensors(SPINDLE, silent)}
    assert states == {"vibration": "ok", "temperature": "no_data", "power": "ok", "cycles": "ok"}


@pytest.mark.anyio
@pytest.mark.integration
async def test_health_ranks_machines_and_is_honest_about_silence(
    api: Running, fleet: Fleet
) -> None:
    fleet.add("worn", WORN)
    fleet.add("sound", SOUND)
    fleet.add("silent")
    fleet.add("patchy", WORN, coverage=0.1)
    found = {
        m: Health.model_validate_json((await api.client.get(f"/api/v1/health/{m}")).content)
        for m in ("worn", "sound", "silent", "patchy")
    }
    assert found["worn"].score is not None
    assert found["sound"].score is not None
    assert found["worn"].score < 30
    assert found["sound"].score > 60
    assert found["silent"].score is None
    assert found["silent"].sensors[0].status == "no_data"
    assert found["patchy"].score is None
    assert found["patchy"].data_quality.status == "instrument_fault"
    assert api.outbox.depth == 0, "looking at a machine is no prediction and leaves no record"
