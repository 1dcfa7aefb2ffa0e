"""What arrives → samples and events of the mapping's targets. Pure; every protocol's last step."""

from __future__ import annotations

from collections.abc import Sequence

from aegisops.errors import BadInput
from aegisops.names import Quality, Reason
from streaming.mapping import Target
from streaming.messages import MOST_VALUES
from streaming.samples import Happening, Item, Sample

MOST_TIME = 2**62
"""µs; beyond it no timestamp is one, and int64 ends soon after."""
_MOST_CODE = 200


def item(
    target: Target, value: object, ts: int, quality: Quality, period_us: int | None = None
) -> Item:
    """The sample or event that a value at a mapped place means.

    `value`: a number, a bool, a sequence of them for a capture, None for "no value" (quality must
    then be bad), a text or number for an event. Raises `BadInput` for anything else.
    """
    if not -MOST_TIME < ts < MOST_TIME:
        raise BadInput(Reason.MALFORMED, f"{ts} µs is no time")
    if target.event_type:
        if not isinstance(value, str | int | float) or value == "":
            raise BadInput(Reason.MALFORMED, f"{type(value).__name__} is no event code")
        return Happening(target.machine_id, ts, target.event_type, str(value)[:_MOST_CODE])
    if value is None:
        if quality is not Quality.BAD:
            raise BadInput(Reason.MALFORMED, "no value, and its quality is not bad")
        return Sample(target.machine_id, target.channel, ts, quality, ())
    is_capture = target.period_us is not None
    many = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if many and not is_capture:
        raise BadInput(Reason.MALFORMED, f"an array, but {target.channel} is no waveform")
    numbers: Sequence[object] = value if many else (value,)  # type: ignore[assignment]
    if len(numbers) > MOST_VALUES:
        raise BadInput(Reason.TOO_LARGE, f"{len(numbers):,} values; {MOST_VALUES:,} at most")
    if not numbers and quality is not Quality.BAD:
        raise BadInput(Reason.MALFORMED, "an empty array")
    values = tuple(_number(n) * target.factor + target.offset for n in numbers)
    period = (period_us or target.period_us) if is_capture else None
    return Sample(target.machine_id, target.channel, ts, quality, values, period)


def _number(value: object) -> float:
    if isinstance(value, int | float):  # a bool is 0 or 1
        try:
            return float(value)
        except OverflowError as error:
            raise BadInput(Reason.MALFORMED, "an integer beyond every float") from error
    raise BadInput(Reason.MALFORMED, f"{type(value).__name__} is no number")
