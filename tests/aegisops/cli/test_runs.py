"""One stack per folder, found again afterwards."""

import os
import subprocess
import sys

import pytest

from aegisops.cli import runs
from aegisops.settings import KafkaSettings, Settings


def test_a_second_start_says_who_runs_and_how_to_stop_it(tmp_path):
    with runs.hold(tmp_path):
        run = runs.Run(os.getpid(), "demo", str(tmp_path), {}, {"API": "http://127.0.0.1:1"})
        run.save(tmp_path)
        with (
            pytest.raises(runs.AlreadyRunning, match="aegisops down") as refused,
            runs.hold(tmp_path),
        ):
            pass
    assert str(os.getpid()) in str(refused.value)
    assert "http://127.0.0.1:1" in str(refused.value)


def test_a_killed_run_does_not_block_the_next_one(tmp_path):
    code = (
        "import sys, pathlib, time\nfrom aegisops.cli import runs\n"
        "with runs.hold(pathlib.Path(sys.argv[1])):\n  print('held', flush=True)\n  time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert runs.is_running(tmp_path)
        process.kill()
    assert not runs.is_running(tmp_path)
    with runs.hold(tmp_path):
        assert runs.is_running(tmp_path)


def test_a_folder_that_never_held_a_run_is_not_running(tmp_path):
    assert not runs.is_running(tmp_path)
    assert runs.load(tmp_path) is None


def test_a_torn_state_file_counts_as_no_run(tmp_path):
    (tmp_path / runs.STATE_FILE).write_text('{"pid": 1')
    assert runs.load(tmp_path) is None


def test_settings_travel_to_a_child_through_its_environment(tmp_path, monkeypatch):
    kafka = KafkaSettings(bootstrap="broker:9", cluster_id="c1", options={"a.b": "c"})
    original = Settings(data_dir=tmp_path, kafka=kafka)
    for name in [n for n in os.environ if n.startswith("AEGIS_")]:
        monkeypatch.delenv(name)
    for name, value in runs.as_environment(original).items():
        monkeypatch.setenv(name, value)
    assert Settings() == original


def test_later_commands_find_the_lake_of_the_last_run(tmp_path, monkeypatch):
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    lake = tmp_path / "demo"
    environment = runs.as_environment(Settings(data_dir=lake))
    runs.Run(1, "demo", str(lake), environment).save(tmp_path)
    assert runs.settings().data_dir == lake
