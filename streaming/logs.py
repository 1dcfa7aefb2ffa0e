"""Structured logs: one JSON object per line on standard error."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import orjson

_LIBRARIES = ("asyncua", "asyncuagds", "httpx", "quixstreams")


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, application, logger, message and, if any, the exception."""

    def __init__(self, app: str) -> None:
        super().__init__()
        self._app = app

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "app": self._app,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def configure(app: str, level: int = logging.INFO) -> None:
    """Send every log of this process to standard error as JSON. For an app's main only."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(app))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(max(level, logging.WARNING))
