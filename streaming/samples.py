"""What a source hands to the gateway: samples, events, refusals, and how to acknowledge them.

Pure data. How a source gets them is in `sources/`, what becomes of them in `forwarder.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from aegisops.names import Quality, Reason

MOST_KEPT = 64 * 1024
"""Bytes of a refused payload that are kept."""


class Sample(NamedTuple):
    """One value or capture of one channel, in the unit of the machine class."""

    machine_id: str
    channel: str
    ts: int
    """Source time in µs since 1970 (of the first value)."""
    quality: Quality
    values: tuple[float, ...]
    """Empty when the source said "bad" and nothing else."""
    period_us: int | None = None
    """Time between the values of a capture."""


class Happening(NamedTuple):
    """An event of a machine."""

    machine_id: str
    ts: int
    type: str
    code: str
    detail: str = ""


class Refusal(NamedTuple):
    """Something that will not become a reading; it becomes a dead letter."""

    source: str
    place: str
    reason: Reason
    detail: str
    payload: bytes
    received_at: int
    machine_id: str = ""
    channel: str = ""


Item = Sample | Happening | Refusal


class Mark(NamedTuple):
    """How far a source has come at a place, so that it knows a repeated value after a restart."""

    place: str
    ts: int
    status: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """Items that a source handed over together, and the call that acknowledges them to it."""

    source: str
    items: tuple[Item, ...]
    marks: tuple[Mark, ...] = ()
    """Committed with the items, and given back to the source at its next start."""
    done: Callable[[], None] = lambda: None
    """Called from another thread once every item is on disk."""


Offer = Callable[[Delivery], None]
"""Takes a delivery; blocks while the gateway is full."""
