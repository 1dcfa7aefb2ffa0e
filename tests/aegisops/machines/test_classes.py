from pathlib import Path

import pytest

from aegisops.errors import ConfigurationError
from aegisops.machines import load_class, load_classes, parse_duration, shipped_classes

MINIMAL = """
name = "pump"
title = "Pump"
horizon = "24h"
step = "10m"
stale_after = "1h"
[channels.flow]
unit = "l/min"
period = "1m"
limits = [0, 500]
[windows]
1h = "1m"
[statistics]
flow = ["mean_1h"]
[failure_modes.seal]
title = "Seal leak"
action = "Replace the seal."
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pump.toml"
    path.write_text(text)
    return path


def test_the_spindle_has_the_seed_features_in_order():
    assert load_class("cnc_spindle").vector == (
        "vibration_rms_5m",
        "vibration_rms_1h",
        "vibration_kurtosis_1h",
        "temperature_mean_1h",
        "temperature_rate_of_change_1h",
        "power_deviation_1h",
        "time_since_maintenance",
        "cumulative_cycles",
    )


def test_the_azure_machine_counts_errors_and_knows_age_and_model():
    vector = load_class("azure_pdm").vector
    assert {"error1_count_24h", "age", "model", "volt_mean_3h", "volt_mean_24h"} <= set(vector)


def test_a_class_of_ones_own_folder_joins_the_shipped_ones(tmp_path):
    write(tmp_path, MINIMAL)
    assert set(load_classes(tmp_path)) == {*shipped_classes(), "pump"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('flow = ["mean_1h"]', 'flow = ["median_1h"]', "unknown statistic"),
        ('flow = ["mean_1h"]', 'flow = ["mean_7h"]', r"\[windows\]"),
        ('flow = ["mean_1h"]', 'stream = ["mean_1h"]', "no channel or event 'stream'"),
        ('flow = ["mean_1h"]', 'flow = ["increase_1h"]', "does not fit"),
        ('flow = ["mean_1h"]', 'flow = ["deviation_1h"]', "no baseline"),
        ('1h = "1m"', '1h = "7m"', "must divide"),
        ('horizon = "24h"', 'horizon = "a day"', "horizon"),
        ("limits = [0, 500]", "", "channels.flow.limits"),
        ('name = "pump"', 'name = "pump"\ncolour = "red"', "colour"),
        ("[windows]", "[windows", "not valid TOML"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file(tmp_path, old, new, said):
    path = write(tmp_path, MINIMAL.replace(old, new))
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_class(path)
    assert "pump.toml" in str(raised.value)


def test_an_unknown_class_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="azure_pdm, cnc_spindle"):
        load_class("lathe")


def test_durations_read_as_written_and_cycles_count_as_seconds():
    assert parse_duration("10s") == 10_000_000
    assert parse_duration("1.5h") == 5_400_000_000
    assert parse_duration("30c") == 30_000_000


def test_an_unheard_of_attribute_value_is_missing_not_zero():
    azure = load_class("azure_pdm")
    age, model = azure.encode_attributes({"age": 7, "model": "model9"})
    assert age == 7
    assert model != model  # noqa: PLR0124 - NaN


ALARM = """
[[alarms]]
id = "flow_low"
title = "Flow low"
source = "limit"
priority = 2
feature = "flow_mean_1h"
direction = "below"
setpoint = 10
cause = "Seal leak."
consequence = "Dry run."
response = "Stop the pump."
time_to_respond = "10m"
owner = "operations"
revision = 1
"""


def test_every_shipped_class_has_a_master_alarm_database():
    for declared in shipped_classes().values():
        assert {entry.kind for entry in declared.alarms} == {"alarm", "advisory"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('cause = "Seal leak."\n', "", "cause"),
        ('response = "Stop the pump."\n', "", "response"),
        ('response = "Stop the pump."', 'response = ""', "response"),
        ("setpoint = 10\n", "", "setpoint"),
        ('feature = "flow_mean_1h"', 'feature = "flow_mean_9h"', "not a feature"),
        ('source = "limit"', 'source = "system"', "feature"),
        ('owner = "operations"', 'owner = "operations"\nsuppressed_in = ["idle"]', "suppressed_in"),
        ("priority = 2", "priority = 5", "priority"),
        (
            (
                'source = "limit"\npriority = 2\nfeature = "flow_mean_1h"\ndirection = "below"\n'
                "setpoint = 10"
            ),
            'source = "risk"\npriority = 2\nlevel = "high"',
            "advisory",
        ),
    ],
)
def test_an_alarm_entry_that_is_not_complete_is_refused_by_field(tmp_path, old, new, said):
    assert old in ALARM
    with pytest.raises(ConfigurationError, match=said):
        load_class(write(tmp_path, MINIMAL + ALARM.replace(old, new)))
    assert len(load_class(write(tmp_path, MINIMAL + ALARM)).alarms) == 1
