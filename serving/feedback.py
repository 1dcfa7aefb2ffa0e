"""Reports of what became of alerts: once per idempotency key, durable before they are confirmed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from aegisops.errors import Permanent
from aegisops.names import FEEDBACK_TOPIC
from serving.outbox import Message, Outbox


class KeyReused(Permanent):
    """The idempotency key belongs to a report with other content."""


class FeedbackBook:
    """Takes reports into the outbox and remembers their keys."""

    def __init__(self, outbox: Outbox, encode: Callable[[Mapping[str, Any]], bytes]) -> None:
        """`encode`: wire form of a feedback.avsc record."""
        self._outbox = outbox
        self._encode = encode

    def report(self, record: Mapping[str, Any]) -> bool:
        """Keep a feedback.avsc record; True when the same report was kept before.

        Raises `KeyReused` when its `feedback_id` was used for another report, `OutboxFull` when it
        cannot be kept.
        """
        # The time is left out: a repeated request without one carries a later clock.
        content = {k: v for k, v in sorted(record.items()) if k != "ts"}
        mark = hashlib.sha256(repr(content).encode()).hexdigest()
        name = f"feedback:{record['feedback_id']}"
        known = self._outbox.load_state(name)
        if known is not None:
            if known != mark:
                raise KeyReused(f"{record['feedback_id']!r} was used for another report")
            return True
        message = Message(FEEDBACK_TOPIC, record["machine_id"], self._encode(record))
        self._outbox.append([message], (name, mark))
        return False
