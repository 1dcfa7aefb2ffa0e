"""MQTT payloads that are not Sparkplug: a number, a JSON array, or a JSON object. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from aegisops.errors import BadInput
from aegisops.names import Quality, Reason
from streaming.mapping import Payload, Target
from streaming.samples import Item
from streaming.sources import values

MOST_BYTES = 4 * 1024 * 1024
"""A JSON text becomes about ten times as much memory."""
_PER_SECOND = {"unix_s": 1_000_000, "unix_ms": 1_000, "unix_us": 1}
_QUALITY_WORDS = {
    "good": Quality.GOOD, "uncertain": Quality.UNCERTAIN, "bad": Quality.BAD, "stale": Quality.BAD,
}  # fmt: skip


def parse(raw: bytes) -> object:
    """The JSON in a payload. Raises `BadInput`."""
    if len(raw) > MOST_BYTES:
        raise BadInput(Reason.TOO_LARGE, f"{len(raw):,} bytes; at most {MOST_BYTES:,}")
    try:
        parsed: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadInput(Reason.MALFORMED, f"not JSON: {error}") from error
    return parsed


def has_own_time(parsed: object, names: Payload) -> bool:
    """Whether the payload says when its values were taken."""
    return isinstance(parsed, Mapping) and names.time in parsed


def item(parsed: object, target: Target, names: Payload, now: int) -> Item:
    """The sample or event of a target in a parsed payload. Raises `BadInput`.

    Without a time of its own a value is of `now` (µs): the moment it was received.
    """
    value: object = parsed
    inner: Mapping[str, object] = parsed if isinstance(parsed, Mapping) else {}
    if target.field:
        for key in target.field:
            if not isinstance(value, Mapping) or key not in value:
                raise BadInput(Reason.MALFORMED, f"no field {'.'.join(target.field)!r}")
            value = value[key]
    if isinstance(value, Mapping):
        inner = {**inner, **value}
        if names.value not in value:
            raise BadInput(Reason.MALFORMED, f"no field {names.value!r}")
        value = value[names.value]
    quality = _quality(inner.get(names.quality, "good"))
    if value is None and names.quality not in inner:
        quality = Quality.BAD  # JSON has no NaN; null is how devices say it
    ts = _time(inner[names.time], names) if names.time in inner else now
    return values.item(target, value, ts, quality, _period(inner.get(names.sample_period)))


def _quality(word: object) -> Quality:
    if isinstance(word, str) and word.lower() in _QUALITY_WORDS:
        return _QUALITY_WORDS[word.lower()]
    if isinstance(word, int) and not isinstance(word, bool) and word in set(Quality):
        return Quality(word)
    raise BadInput(Reason.MALFORMED, f"{str(word)[:40]!r} is no quality: good, uncertain, bad, 0–2")


def _time(value: object, names: Payload) -> int:
    if names.time_format == "iso":
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise BadInput(Reason.MALFORMED, f"{str(value)[:40]!r} is no ISO time with an offset")
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(Reason.MALFORMED, f"{str(value)[:40]!r} is no time in {names.time_format}")
    return round(value * _PER_SECOND[names.time_format])


def _period(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < values.MOST_TIME:
        raise BadInput(Reason.MALFORMED, f"{str(value)[:40]!r} is no sample period in µs")
    return value
