"""Ids of predictions: UUIDs of version 7 (RFC 9562), which carry the time of the question.

The audit log is partitioned by that day, so an id alone leads to one partition of years.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, date, datetime


def new(asked_at: int) -> str:
    """An id for a question asked at `asked_at` µs since 1970."""
    ms = max(0, asked_at // 1_000) & 0xFFFF_FFFF_FFFF
    random = int.from_bytes(os.urandom(10))
    value = ms << 80 | 7 << 76 | (random >> 68 & 0xFFF) << 64 | 2 << 62 | random & (1 << 62) - 1
    return str(uuid.UUID(int=value))


def day_of(prediction_id: str) -> date | None:
    """UTC day of the question; None for an id that does not carry it."""
    try:
        parsed = uuid.UUID(prediction_id)
    except ValueError:
        return None
    if parsed.version != 7:  # noqa: PLR2004 - time-ordered
        return None
    return datetime.fromtimestamp((parsed.int >> 80) // 1_000, UTC).date()
