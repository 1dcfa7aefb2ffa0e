import numpy as np

from aegisops.machines import load_class
from aegisops.names import RiskLevel
from aegisops.thresholds import judge, severity

AZURE = load_class("azure_pdm")


def vector(machine_class, **values):
    return [values.get(name, float("nan")) for name in machine_class.vector]


def test_kept_limits_are_normal_and_missing_values_unknown(pump_class):
    assert judge(pump_class, vector(pump_class, vibration_rms_1h=3)).risk is RiskLevel.NORMAL
    assert judge(pump_class, vector(pump_class)).risk is RiskLevel.UNKNOWN


def test_a_vector_in_another_order_is_judged_by_the_names_of_its_values(pump_class):
    turned = pump_class.vector[::-1]
    values = vector(pump_class, vibration_rms_1h=6.5, temperature_mean_6h=80)
    assert judge(pump_class, values[::-1], turned) == judge(pump_class, values)


def test_the_worst_violation_leads(pump_class):
    answer = judge(pump_class, vector(pump_class, vibration_rms_1h=6.5, temperature_mean_6h=80))
    assert answer.risk is RiskLevel.HIGH
    assert [v.failure_mode for v in answer.violations] == ["seal", "bearing"]
    assert answer.failure_mode == "seal"
    assert answer.sentence == (
        "Limit rule: temperature_mean_6h is 80 °C, above its alarm limit of 75 °C."
    )


def test_a_limit_below_which_it_is_bad():
    warned = judge(AZURE, vector(AZURE, rotate_mean_24h=420))
    assert warned.risk is RiskLevel.ELEVATED
    assert "below its warning limit of 425 rpm" in warned.sentence
    assert judge(AZURE, vector(AZURE, rotate_mean_24h=430)).risk is RiskLevel.NORMAL


def test_severity_is_zero_at_the_warning_one_at_the_alarm_limit_in_either_direction():
    rows = [vector(AZURE, rotate_mean_24h=v) for v in (425, 400, 450)]
    rows.append(vector(AZURE, volt_mean_24h=185, rotate_mean_24h=450))
    assert np.allclose(severity(AZURE, rows), [0, 1, -1, 1])
