"""How far the stream applications are behind Kafka, for people: asked when somebody looks.

Never waits: the figures are those of the last look, and a look starts the next reading in a thread
of its own, which dies with the process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from aegisops.errors import AegisError
from aegisops.names import (
    EVENTS_TOPIC,
    FEATURE_WORKER_APP,
    LAKE_WRITER_APP,
    READINGS_TOPIC,
    TOPICS,
)
from aegisops.settings import KafkaSettings

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
_PAIRS = [(LAKE_WRITER_APP, topic) for topic in TOPICS] + [
    (FEATURE_WORKER_APP, topic) for topic in (READINGS_TOPIC, EVENTS_TOPIC)
]


class StreamLag:
    """Messages that each application has not taken yet, by topic."""

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self._kafka = kafka
        self._clock = clock
        self._asked = float("-inf")
        self._running: threading.Thread | None = None
        self.problem: str | None = None
        self._found: list[dict[str, Any]] = []

    def look(self) -> list[dict[str, Any]]:
        """The last figures, as in console_contract.Lag; empty at first."""
        is_busy = self._running is not None and self._running.is_alive()
        if not is_busy and self._clock() - self._asked >= EVERY_SECONDS:
            self._asked = self._clock()
            self._running = threading.Thread(target=self._read, name="lag", daemon=True)
            self._running.start()
        return self._found

    def _read(self) -> None:
        from aegisops import bus

        try:
            self._found = [
                {"app": app, "topic": topic, "messages": sum(behind.values())}
                for app, topic in _PAIRS
                for behind in [bus.lag(self._kafka, app, topic)]
            ]
            self.problem = None
        except AegisError as error:
            self.problem = str(error)
        except Exception:
            log.exception("the lag could not be read")
            self.problem = "the lag could not be read; the log says why"
