"""The live process against the real in-memory broker and schema registry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from aegisops.bus import watermarks
from aegisops.names import READINGS_TOPIC
from aegisops.settings import Settings

MACHINES = 3


@pytest.mark.integration
def test_the_live_process_catches_up_through_kafka_and_stops_cleanly(settings: Settings) -> None:
    end = datetime.now(UTC) - timedelta(hours=2)
    environment = os.environ | {
        "AEGIS_DATA_DIR": str(settings.data_dir),
        "AEGIS_KAFKA__BOOTSTRAP": settings.kafka.bootstrap,
        "AEGIS_REGISTRY__URL": settings.registry.url,
    }
    before = sent(settings)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "aegisops.simulator.live", "--speed", "0"),
            *("--history-end", end.isoformat(), "--history-days", "1", "--interval", "0.05"),
            *("--machines", str(MACHINES)),
        ],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    wanted = before + MACHINES * 119
    try:
        deadline = time.monotonic() + 60
        while sent(settings) < wanted and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        assert sent(settings) >= wanted
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, log
    assert "3 machines live" in log


def sent(settings: Settings) -> int:
    return sum(high - low for low, high in watermarks(settings.kafka, READINGS_TOPIC).values())
