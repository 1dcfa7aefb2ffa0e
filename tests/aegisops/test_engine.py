"""The same jobs on threads and on Dask workers: same results, same order, same errors."""

import threading
import time

import pytest

from aegisops.embedded import ports
from aegisops.engine import DaskEngine, LocalEngine, of_settings
from aegisops.errors import ConfigurationError
from aegisops.settings import EngineSettings


def square(number):
    return number * number


def slow_for_small(number):
    time.sleep(0.02 / (number + 1))
    return number


def refuse_three(number):
    if number == 3:
        raise ValueError("three")
    return number


@pytest.fixture(scope="module")
def dask():
    engine = DaskEngine(workers=2)
    yield engine
    engine.close()


def test_results_come_in_the_order_of_the_jobs():
    assert list(LocalEngine(3).map(slow_for_small, range(9))) == list(range(9))


def test_few_results_wait_while_the_reader_is_slow():
    started = []
    lock = threading.Lock()

    def note(job):
        with lock:
            started.append(job)
        return job

    results = LocalEngine(2).map(note, range(50))
    assert next(results) == 0
    time.sleep(0.05)
    assert len(started) <= 4
    assert list(results) == list(range(1, 50))


def test_an_error_is_raised_in_its_place_and_ends_the_rest():
    results = LocalEngine(2).map(refuse_three, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_dask_workers_give_the_same_results_and_errors(dask):
    assert dask.workers == 2
    assert list(dask.map(square, range(20))) == [square(n) for n in range(20)]
    with pytest.raises(ValueError, match="three"):
        list(dask.map(refuse_three, range(5)))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_scheduler_that_is_not_there_is_a_clear_error():
    engine = DaskEngine(f"tcp://127.0.0.1:{ports.free_port()}", timeout=0.5)
    with pytest.raises(ConfigurationError, match="AEGIS_ENGINE__ADDRESS"):
        list(engine.map(square, [1]))


def test_the_settings_choose():
    assert isinstance(of_settings(EngineSettings()), LocalEngine)
    assert of_settings(EngineSettings(workers=3)).workers == 3
    assert isinstance(of_settings(EngineSettings(kind="dask")), DaskEngine)
