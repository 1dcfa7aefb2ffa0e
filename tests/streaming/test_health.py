"""What an orchestrator is told, asked over HTTP."""

from __future__ import annotations

import httpx
import pytest

from aegisops.embedded import ports
from streaming.health import SILENT_SECONDS, Health, serve
from streaming.metrics import StreamMetrics


@pytest.fixture
def served():
    clock = [0.0]
    metrics = StreamMetrics("lake_writer", clock=lambda: 100.0)
    health = Health(metrics, clock=lambda: clock[0])
    port = ports.free_port()
    server = serve(port, metrics.registry, health)
    yield clock, metrics, health, f"http://{ports.LOOPBACK}:{port}"
    server.shutdown()
    server.server_close()


def test_it_is_ready_with_partitions_and_stores_and_says_why_it_is_not(served):
    _, metrics, health, url = served
    waiting = httpx.get(f"{url}/readyz")
    assert (waiting.status_code, "Kafka" in waiting.json()["why"]) == (503, True)
    health.assigned()
    assert httpx.get(f"{url}/readyz").json() == {"ok": True, "why": ""}
    metrics.postponed(OSError("No space left on device"))
    away = httpx.get(f"{url}/readyz")
    assert (away.status_code, away.json()["why"]) == (503, "OSError: No space left on device")
    assert httpx.get(f"{url}/livez").status_code == 200  # a restart would not help
    metrics.flushed(3)
    assert httpx.get(f"{url}/readyz").status_code == 200


def test_a_loop_that_hangs_is_not_alive(served):
    clock, _, health, url = served
    health.assigned()
    clock[0] = SILENT_SECONDS + 1
    assert httpx.get(f"{url}/livez").status_code == 503
    assert httpx.get(f"{url}/readyz").status_code == 503
    health.beat()
    assert httpx.get(f"{url}/livez").json() == {"ok": True, "silent_seconds": 0.0}


def test_the_metrics_are_prometheus_text(served):
    _, metrics, _, url = served
    metrics.flushed(12)
    metrics.saw(40_000_000)
    metrics.saw(None)
    metrics.restarts.set(2)
    text = httpx.get(f"{url}/metrics").text
    assert "aegis_lake_writer_flush_messages_sum 12.0" in text
    assert "aegis_lake_writer_event_lag_seconds 60.0" in text
    assert "aegis_lake_writer_restarts 2.0" in text
    assert httpx.get(f"{url}/elsewhere").status_code == 404


def test_no_port_is_no_server_and_a_taken_one_stops_nothing(served, caplog):
    _, metrics, health, url = served
    assert serve(0, metrics.registry, health) is None
    assert serve(int(url.rpartition(":")[2]), metrics.registry, health) is None
    assert "METRICS_PORT" in caplog.text
