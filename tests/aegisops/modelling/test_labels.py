import polars as pl
import pytest

from aegisops.machines import MachineClass, load_class
from aegisops.machines.model import US_PER_HOUR
from aegisops.modelling.labels import label_rows

H = US_PER_HOUR
CLASS = load_class("azure_pdm")  # horizon 24 h, modes comp1 … comp4


def features(hours, machine="a"):
    hours = list(hours)
    return pl.DataFrame({"machine_id": [machine] * len(hours), "ts": [h * H for h in hours]})


def events(*rows):
    return pl.DataFrame(
        [(machine, h * H, kind, code) for machine, h, kind, code in rows],
        schema={"machine_id": pl.String, "ts": pl.Int64, "type": pl.String, "code": pl.String},
        orient="row",
    )


def feedback(*rows):
    return pl.DataFrame(
        [(machine, h * H, outcome, mode) for machine, h, outcome, mode in rows],
        schema={
            "machine_id": pl.String,
            "ts": pl.Int64,
            "outcome": pl.String,
            "failure_mode": pl.String,
        },
        orient="row",
    )


def by_hour(labels, column="label", machine="a"):
    rows = labels.filter(pl.col("machine_id") == machine)
    return {ts // H: value for ts, value in rows.select("ts", column).iter_rows()}


def test_a_failure_labels_exactly_the_rows_up_to_one_horizon_before_it():
    labels = label_rows(features(range(100)), events(("a", 50, "failure", "comp1")), CLASS)
    label = by_hour(labels)
    assert [h for h, value in label.items() if value == 1] == list(range(26, 50))
    assert label[25] == 0
    assert label[50] == 0  # the failure itself lies before (50, 74]
    assert by_hour(labels, "hours_to_failure")[40] == 10
    assert by_hour(labels, "hours_to_failure")[60] is None
    assert by_hour(labels, "provenance")[26] == "failure"
    assert labels["horizon_us"].unique().to_list() == [24 * H]


def test_two_modes_that_fail_in_one_horizon_are_both_named_and_rows_stay_single():
    happened = events(
        ("a", 50, "failure", "comp2"), ("a", 50, "failure", "comp1"), ("a", 55, "failure", "comp4")
    )
    labels = label_rows(features(range(100)), happened, CLASS)
    assert labels.height == 100
    modes = by_hour(labels, "failure_modes")
    assert modes[49] == ["comp1", "comp2", "comp4"]
    assert modes[27] == ["comp1", "comp2"]
    assert modes[52] == ["comp4"]
    assert modes[60] == []


def test_another_machines_failure_changes_nothing():
    rows = pl.concat([features(range(100)), features(range(100), "b")])
    labels = label_rows(rows, events(("b", 50, "failure", "comp1")), CLASS)
    assert set(by_hour(labels).values()) == {0, None}
    assert by_hour(labels, machine="b")[40] == 1


def test_rows_whose_horizon_passes_the_end_of_data_are_open_unless_they_fail():
    labels = label_rows(features(range(100)), events(("a", 98, "failure", "comp1")), CLASS)
    label, why = by_hour(labels), by_hour(labels, "provenance")
    assert label[75] == 1
    assert label[98] is None
    assert why[98] == "end_of_data"
    assert label[73] == 0
    survived = by_hour(label_rows(features(range(100)), events(), CLASS))
    assert [h for h, value in survived.items() if value is None] == list(range(76, 100))


def test_a_machine_that_went_silent_early_is_open_from_its_own_end():
    rows = pl.concat([features(range(100)), features(range(50), "b")])
    label = by_hour(label_rows(rows, events(), CLASS), machine="b")
    assert label[25] == 0
    assert label[26] is None


def test_nothing_after_observed_until_is_known():
    happened = events(("a", 80, "failure", "comp1"))
    labels = label_rows(features(range(100)), happened, CLASS, observed_until=70 * H)
    assert by_hour(labels)[60] is None
    assert by_hour(labels, "provenance")[60] == "end_of_data"
    assert by_hour(labels)[46] == 0


def test_preventive_maintenance_hides_what_would_have_happened():
    labels = label_rows(features(range(100)), events(("a", 50, "maintenance", "comp1")), CLASS)
    label = by_hour(labels)
    assert [h for h in range(70) if label[h] is None] == list(range(26, 50))
    assert by_hour(labels, "provenance")[30] == "maintenance"


def test_maintenance_does_not_hide_a_failure_that_came_first():
    happened = events(("a", 50, "failure", "comp1"), ("a", 60, "maintenance", "comp2"))
    assert by_hour(label_rows(features(range(100)), happened, CLASS))[45] == 1


def test_a_failure_after_preventive_work_says_nothing_of_the_time_before_the_work():
    happened = events(("a", 45, "maintenance", "comp2"), ("a", 50, "failure", "comp1"))
    label = by_hour(label_rows(features(range(100)), happened, CLASS))
    assert label[44] is None
    assert label[45] == 1


def test_maintenance_does_not_censor_where_the_class_says_so():
    declared = CLASS.model_dump() | {"censor_on_maintenance": False}
    labels = label_rows(
        features(range(100)),
        events(("a", 50, "maintenance", "comp1")),
        MachineClass.model_validate(declared),
    )
    assert by_hour(labels)[40] == 0


def test_rows_between_a_failure_and_its_repair_describe_a_broken_machine():
    happened = events(("a", 50, "failure", "comp1"), ("a", 56, "maintenance", "comp1"))
    labels = label_rows(features(range(100)), happened, CLASS)
    label, why = by_hour(labels), by_hour(labels, "provenance")
    assert [h for h in range(70) if label[h] is None] == list(range(50, 56))
    assert why[50] == "down"
    assert label[56] == 0
    assert label[49] == 1


def test_a_repair_in_the_hour_of_the_failure_excludes_no_row():
    happened = events(("a", 50, "failure", "comp1"), ("a", 50, "maintenance", "comp1"))
    label = by_hour(label_rows(features(range(100)), happened, CLASS))
    assert label[49] == 1
    assert label[50] == 0


def test_scheduled_work_on_another_component_after_a_failure_is_not_its_repair():
    happened = events(("a", 50, "failure", "comp1"), ("a", 60, "maintenance", "comp3"))
    labels = label_rows(features(range(100)), happened, CLASS)
    assert by_hour(labels, "provenance")[55] == "maintenance"


@pytest.mark.parametrize("outcome", ["prevented", "planned_work"])
def test_feedback_that_people_intervened_leaves_rows_open(outcome):
    said = feedback(("a", 50, outcome, None))
    labels = label_rows(features(range(100)), events(), CLASS, feedback=said)
    label = by_hour(labels)
    assert [h for h in range(70) if label[h] is None] == list(range(26, 51))
    assert by_hour(labels, "provenance")[40] == outcome


def test_a_false_alarm_turns_rows_hidden_by_the_inspection_into_negatives():
    said = feedback(("a", 50, "false_alarm", None))
    happened = events(("a", 50, "maintenance", "comp1"))
    labels = label_rows(features(range(100)), happened, CLASS, feedback=said)
    assert by_hour(labels)[40] == 0
    assert by_hour(labels, "provenance")[40] == "false_alarm"


def test_a_false_alarm_does_not_erase_a_recorded_failure():
    said = feedback(("a", 48, "false_alarm", None))
    happened = events(("a", 50, "failure", "comp1"))
    labels = label_rows(features(range(100)), happened, CLASS, feedback=said)
    assert by_hour(labels)[40] == 1


def test_a_confirmed_alert_counts_as_a_failure_of_the_found_mode():
    said = feedback(("a", 50, "confirmed", "comp3"))
    labels = label_rows(features(range(100)), events(), CLASS, feedback=said)
    assert by_hour(labels)[40] == 1
    assert by_hour(labels, "failure_modes")[40] == ["comp3"]
    assert by_hour(labels, "provenance")[40] == "confirmed"


def test_rows_that_may_hold_a_faulty_sensors_values_are_removed():
    said = feedback(("a", 50, "sensor_fault", None))
    happened = events(("a", 60, "failure", "comp1"))
    labels = label_rows(features(range(100)), happened, CLASS, feedback=said)
    label = by_hour(labels)
    assert [h for h in range(76) if label[h] is None] == list(range(26, 75))
    assert by_hour(labels, "provenance")[50] == "sensor_fault"
    assert by_hour(labels, "failure_modes")[50] == []


def test_unsorted_input_gives_the_same_labels():
    happened = events(
        ("a", 70, "failure", "comp1"), ("b", 30, "failure", "comp2"), ("a", 20, "failure", "comp1")
    )
    rows = pl.concat([features(range(100)), features(range(100), "b")])
    straight = label_rows(rows, happened, CLASS)
    shuffled = label_rows(rows.sample(fraction=1, shuffle=True, seed=3), happened[::-1], CLASS)
    assert straight.equals(shuffled)
    assert straight["label"].sum() == 20 + 24 + 24


def test_the_published_protocol_knows_only_failed_or_not():
    happened = events(("a", 50, "maintenance", "comp1"), ("a", 98, "failure", "comp1"))
    labels = label_rows(features(range(100)), happened, CLASS, censor=False)
    assert labels["label"].null_count() == 0
    assert labels["label"].sum() == 24


def test_datetimes_of_the_lake_and_integers_of_the_kernels_mean_the_same():
    happened = events(("a", 50, "failure", "comp1"))
    rows = features(range(100))
    as_stored = [
        f.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))) for f in (rows, happened)
    ]
    assert label_rows(*as_stored, CLASS).equals(label_rows(rows, happened, CLASS))
