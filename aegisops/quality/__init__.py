"""Judges decoded messages: which readings, events and feedback are good, and why others are not.

Pure and vectorised; both stream applications judge with it, so that the lake and the features
agree. Nothing is dropped here: every row comes back, a bad one with its `reason` (`names.Reason`)
and `why` (text for people). One bad reading rejects only itself, never its message.

Times are microseconds on the machine's clock. `arrived_us` is when the message reached Kafka (UTC):
with it, judging the same message again gives the same answer.
"""

from aegisops.quality.counters import REBASE_AFTER, Counters, Level, judge_counter
from aegisops.quality.exploding import Fleet
from aegisops.quality.judging import (
    Judged,
    judge_events,
    judge_feedback,
    judge_readings,
    judge_records,
)
from aegisops.quality.reasons import Limits

__all__ = [
    "REBASE_AFTER",
    "Counters",
    "Fleet",
    "Judged",
    "Level",
    "Limits",
    "judge_counter",
    "judge_events",
    "judge_feedback",
    "judge_readings",
    "judge_records",
]
