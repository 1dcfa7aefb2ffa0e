from __future__ import annotations

from typing import Any

import pytest

from aegisops.dead_letters import Place, only
from aegisops.errors import ConfigurationError


def block(channel: str, *values: float, start: int = 100, period: int | None = None) -> Any:
    return {
        "channel": channel,
        "start_us": start,
        "period_us": period,
        "quality": 0,
        "values": list(values),
    }


def record(*blocks: Any) -> Any:
    return {"machine_id": "m", "seq": 3, "sent_at": 9, "blocks": list(blocks)}


def is_capture(channel: str) -> bool:
    return channel == "vibration"


def test_refused_values_travel_alone_each_at_its_own_time() -> None:
    whole = record(block("power", 1.0, 2.0, 3.0, period=10), block("load", 5.0))
    cut = only(whole, {1, 2}, is_capture)
    assert cut == record(block("power", 2.0, start=110), block("power", 3.0, start=120))


def test_a_block_refused_as_a_whole_stays_a_block() -> None:
    refused = block("power", 1.0, 2.0, period=10)
    assert only(record(block("load", 5.0), refused), {1, 2}, is_capture) == record(refused)


def test_a_capture_is_kept_whole_at_its_first_sample_and_counts_all_its_samples() -> None:
    capture = block("vibration", 1.0, 2.0, 3.0, period=10)
    whole = record(block("load", 5.0), capture, block("power", 7.0))
    assert only(whole, {1}, is_capture) == record(capture)
    assert only(whole, {4}, is_capture) == record(block("power", 7.0))


def test_a_block_without_values_counts_as_one_reading() -> None:
    whole = record(block("power"), block("load", 5.0))
    assert only(whole, {0}, is_capture) == record(block("power"))
    assert only(whole, {1}, is_capture) == record(block("load", 5.0))


def test_a_message_refused_as_a_whole_is_the_same_message() -> None:
    whole = record(block("power", float("nan")), block("load", 5.0))
    assert only(whole, {0, 1}, is_capture) is whole


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("aegis.readings.v1@c1/3/7", Place("aegis.readings.v1@c1", 3, 7)),
        ("aegis.readings.v1/3/7/2", Place("aegis.readings.v1", 3, 7, 2)),
        ("import/pumps/0/5", Place("import/pumps", 0, 5)),
    ],
)
def test_a_place_is_read_as_it_is_shown(text: str, place: Place) -> None:
    assert Place.parse(text) == place


@pytest.mark.parametrize("text", ["", "7", "t/7", "t/x/7", "/1/2/3"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="topic/partition/offset"):
        Place.parse(text)
