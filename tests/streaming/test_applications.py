"""The real applications as processes, killed in the middle of work, on each kind of broker."""

from __future__ import annotations

import httpx
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_killed_applications_lose_nothing_repeat_nothing_and_serve_what_the_lake_says(stack):
    metrics = stack.start("lake_writer")
    stack.start("feature_worker")
    stack.send_good(range(40))
    stack.wait("the first messages in the lake", lambda: stack.written() > 0)
    stack.send_good(range(40, 80))
    stack.kill("lake_writer")
    stack.send_bad()
    stack.wait("the first messages in Redis", lambda: len(stack.store.features_of(["m-0"])) > 0)
    stack.kill("feature_worker")
    stack.send_good(range(80, 120))
    stack.wait("messages after the first kill", stack.is_written)
    stack.send_good(range(120, 160))
    stack.kill("lake_writer")
    stack.wait("features after the kill", lambda: len(stack.store.features_of(["m-7"])) > 0)
    stack.send_good(range(160, 180))
    stack.wait("all that was sent in Redis", stack.is_applied)
    stack.client.flushdb()
    stack.send_good(range(180, 200))
    stack.wait("all that was sent in the lake", stack.is_written)
    stack.wait("all that was sent in Redis again", stack.is_applied)

    stack.assert_each_once()
    stack.assert_served_as_the_lake_says()

    assert stack.processes.restarts()["lake_writer"] == 2
    assert stack.processes.restarts()["feature_worker"] >= 2  # one kill, one emptied Redis
    text = httpx.get(metrics).text
    assert "aegis_lake_writer_rows_total" in text
    assert "aegis_lake_writer_position_alarms_total{" not in text
    stack.processes.stop()
    assert "Traceback" not in stack.processes.tail("lake_writer")
