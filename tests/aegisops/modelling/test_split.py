import polars as pl
import pytest

from aegisops.machines import Clock
from aegisops.modelling.rows import failure_times, matrix
from aegisops.modelling.split import TooFewFailures, calibration_split, folds, time_split


def test_no_training_interval_reaches_into_the_test_time(training_rows, pump_class):
    h = pump_class.horizon
    cut = 200 * 3_600_000_000
    split = time_split(training_rows.drop("fold"), cut, h)
    train = split.filter(pl.col("fold") == "train")
    test = split.filter(pl.col("fold") == "test")
    assert train["ts"].max() + h == cut
    assert test["ts"].min() == cut


def test_test_machines_and_times_are_in_no_other_fold(training_rows, pump_class):
    by = training_rows.partition_by("fold", as_dict=True)
    train, calibrate, test = (by[name,] for name in ("train", "calibrate", "test"))
    assert not set(test["machine_id"]) & (set(train["machine_id"]) | set(calibrate["machine_id"]))
    h = pump_class.horizon
    assert train["ts"].max() + h <= calibrate["ts"].min()
    assert calibrate["ts"].max() + h <= test["ts"].min()
    for fold in (train, calibrate, test):
        assert fold["label"].n_unique() == 2


def test_one_seed_gives_one_split_and_another_seed_another(training_rows, pump_class):
    rows = training_rows.drop("fold")
    again = [folds(rows, pump_class, pump_class.horizon, seed=s) for s in (5, 5, 6)]
    assert again[0].equals(again[1])
    assert not again[0].equals(again[2])


def test_without_failures_the_message_says_what_to_bring(training_rows, pump_class):
    healthy = training_rows.drop("fold").filter(pl.col("label") == 0)
    with pytest.raises(TooFewFailures, match="import failure events"):
        folds(healthy, pump_class, pump_class.horizon)


def test_the_calibration_split_keeps_all_machines_and_an_embargo(training_rows, pump_class):
    rows = training_rows.drop("fold")
    split = calibration_split(rows, pump_class, pump_class.horizon)
    early = split.filter(pl.col("fold") == "train")
    late = split.filter(pl.col("fold") == "calibrate")
    assert early["ts"].max() + pump_class.horizon <= late["ts"].min()
    assert early["label"].sum() > late["label"].sum() > 0


def test_a_vector_of_another_width_is_refused(training_rows, pump_class):
    from aegisops.errors import BadInput

    short = training_rows.with_columns(pl.col("vector").list.head(3))
    with pytest.raises(BadInput, match="rebuild gold/features"):
        matrix(short, pump_class)


def test_inputs_are_selected_by_name_not_by_position(training_rows, pump_class):
    whole = matrix(training_rows, pump_class)
    chosen = matrix(training_rows, pump_class, ("make", "vibration_rms_1h"))
    assert (chosen[:, 0] == whole[:, 5]).all()
    assert (chosen[:, 1] == whole[:, 0]).all()


def test_failure_times_are_those_of_the_events(training_rows, pump_class, history):
    _, events = history
    known = set(events.filter(pl.col("type") == "failure").select("machine_id", "ts").iter_rows())
    times = failure_times(training_rows, pump_class)
    positive = training_rows.with_columns(t=pl.Series(times)).filter(pl.col("label") == 1)
    assert set(positive.select("machine_id", "t").iter_rows()) <= known
    assert positive.height > 100


def test_on_a_cycle_clock_the_folds_differ_in_machines_only(training_rows, pump_class):
    by_cycles = pump_class.model_copy(update={"clock": Clock.CYCLES})
    rows = folds(training_rows.drop("fold"), by_cycles, by_cycles.horizon)
    assert rows.height == training_rows.height
    assert rows.group_by("machine_id").agg(pl.col("fold").n_unique())["fold"].max() == 1
    assert set(rows["fold"]) == {"train", "calibrate", "test"}
