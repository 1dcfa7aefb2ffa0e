import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aegisops.embedded.processes import Child, Processes
from aegisops.errors import Permanent, ServiceUnavailable


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def python(name, code, **options):
    return Child(name, [sys.executable, "-c", code], **options)


WAIT = "import time; print('up', flush=True); time.sleep(60)"


def test_a_child_that_is_killed_comes_back_as_another_process(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start(python("worker", WAIT))
        processes.wait_ready("worker")
        first = processes.pids()["worker"]
        os.kill(first, signal.SIGKILL)
        until(lambda: processes.pids().get("worker", first) != first)
        assert processes.restarts() == {"worker": 1}


def test_a_child_is_told_how_often_it_was_started_again(tmp_path):
    code = "import os, time; print('start', os.environ['STARTS'], flush=True); time.sleep(60)"
    with Processes(tmp_path) as processes:
        processes.start(python("worker", code, restarts_as="STARTS"))
        until(lambda: "start 0" in processes.tail("worker"))
        os.kill(processes.pids()["worker"], signal.SIGKILL)
        until(lambda: "start 1" in processes.tail("worker"))


def test_a_child_that_may_not_restart_says_why_it_ended(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start(
            python("job", "raise SystemExit('no such lake')", restart=False, ready=lambda: False)
        )
        with pytest.raises(Permanent, match="no such lake"):
            processes.wait_ready("job", 10)


def test_a_child_that_is_never_ready_is_reported_with_its_log(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start(python("slow", WAIT, ready=lambda: False))
        until(lambda: "up" in processes.tail("slow"))
        with pytest.raises(ServiceUnavailable, match="up"):
            processes.wait_ready("slow", 0.2)


def test_stop_ends_children_that_ignore_the_polite_signal_and_their_children(tmp_path):
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)"
    )
    processes = Processes(tmp_path)
    processes.start(python("stubborn", code))
    until(lambda: processes.tail("stubborn").strip().isdigit())
    grandchild = int(processes.tail("stubborn"))
    processes.stop(grace=0.3)
    assert processes.pids() == {}
    until(lambda: not _lives(grandchild))


def test_children_stop_one_after_the_other_last_first_even_restarted_ones(tmp_path):
    order = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.1)\n"
        f"    with open({str(order)!r}, 'a') as f: f.write(sys.argv[1])\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    processes = Processes(tmp_path / "logs")
    for name in "abc":
        processes.start(Child(name, [sys.executable, "-c", code, name]))
        until(lambda name=name: "up" in processes.tail(name))
    first = processes.pids()["c"]
    os.kill(first, signal.SIGKILL)
    until(lambda: processes.pids().get("c", first) != first)
    until(lambda: processes.log_path("c").read_text().count("up") == 2)
    processes.stop()
    processes.stop()
    assert order.read_text() == "cba"


def test_a_second_run_keeps_the_log_of_the_one_before(tmp_path):
    for word in ("one", "two"):
        with Processes(tmp_path) as processes:
            processes.start(python("job", f"print({word!r})", restart=False))
            until(lambda word=word: processes.tail("job") == word)
    assert (tmp_path / "job.log.1").read_text() == "one\n"


def test_a_program_that_is_not_there_says_so(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start(Child("ghost", ["/no/such/program"], restart=False, ready=lambda: False))
        with pytest.raises(Permanent, match="/no/such/program cannot be run"):
            processes.wait_ready("ghost", 10)


def test_two_children_of_one_name_are_refused(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start(python("worker", WAIT))
        with pytest.raises(Permanent, match="worker is already running"):
            processes.start(python("worker", WAIT))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_no_child_outlives_a_killed_supervisor(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from aegisops.embedded.processes import Child, Processes\n"
        f"p = Processes(Path({str(tmp_path)!r}))\n"
        "p.start(Child('worker', [sys.executable, '-c', 'import time; time.sleep(60)']))\n"
        "print(p.pids()['worker'], flush=True); time.sleep(60)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    worker = int(supervisor.stdout.readline())
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    until(lambda: not _lives(worker))


def _lives(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
