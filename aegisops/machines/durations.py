"""Lengths of time as people write them, in the one unit of a machine's clock.

Every position on a machine's clock is one int64. On the `time` clock it is microseconds since
1970-01-01 UTC. On the `cycles` clock one cycle counts as one second after 1970-01-01, so that
tables, tiles and windows are the same code for both; durations are then written `30c`.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

US_PER_SECOND = 1_000_000
US_PER_HOUR = 3_600 * US_PER_SECOND
_UNITS = {"us": 1, "ms": 1_000, "s": US_PER_SECOND, "m": 60 * US_PER_SECOND, "h": US_PER_HOUR}
_UNITS |= {"d": 24 * US_PER_HOUR, "c": US_PER_SECOND}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(us|ms|s|m|h|d|c)$")


def parse_duration(text: str | int) -> int:
    """Microseconds of `10s`, `5m`, `24h`, `7d` or, on a cycle clock, `30c` (1 cycle = 1 s)."""
    if isinstance(text, int):
        return text
    match = _DURATION.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a duration; write 10s, 5m, 24h, 7d or 30c (cycles)")
    return round(float(match[1]) * _UNITS[match[2]])


Duration = Annotated[int, BeforeValidator(parse_duration)]
"""Microseconds on the class's clock, declared as text such as `24h`."""
