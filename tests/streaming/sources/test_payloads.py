"""MQTT payloads of any content: a sample, an event or a named complaint; never anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops.errors import BadInput
from aegisops.names import Quality, Reason
from streaming.mapping import Payload, Target
from streaming.messages import MOST_VALUES
from streaming.samples import Happening, Sample
from streaming.sources import payloads, values

NAMES = Payload()
SCALAR = Target("m", "power", 2.0, 1.0)
WAVE = Target("m", "vibration", period_us=1_000)
FIELD = Target("m", "power", field=("a", "b"))
EVENT = Target("m", "", event_type="failure")
NOW = 1_790_000_000_000_000

KEYS = st.sampled_from(["value", "timestamp", "quality", "a", "b", "sample_period_us", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
RAW = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())
TARGETS = st.sampled_from([SCALAR, WAVE, FIELD, EVENT])
FORMATS = st.sampled_from(["iso", "unix_s", "unix_ms", "unix_us"])


@settings(max_examples=300, deadline=None)
@given(RAW, TARGETS, FORMATS)
def test_every_payload_is_an_item_or_a_complaint(raw, target, time_format):
    names = Payload(time_format=time_format)
    try:
        item = payloads.item(payloads.parse(raw), target, names, NOW)
    except BadInput as error:
        complaint = error
    else:
        assert isinstance(item, Sample | Happening)
        assert abs(item.ts) < values.MOST_TIME
        return
    assert complaint.reason in set(Reason)
    assert len(complaint.detail) < 500


@settings(max_examples=300, deadline=None)
@given(JSON | st.binary(max_size=5), TARGETS, st.integers(), st.sampled_from(Quality))
def test_every_opc_ua_value_is_an_item_or_a_complaint(value, target, ts, quality):
    try:
        item = values.item(target, value, ts, quality)
    except BadInput:
        return
    assert item.machine_id == "m"


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        (b"1.5", Sample("m", "power", NOW, Quality.GOOD, (4.0,))),
        (b"true", Sample("m", "power", NOW, Quality.GOOD, (3.0,))),
        (b'{"value": 1, "quality": 2}', Sample("m", "power", NOW, Quality.BAD, (3.0,))),
        (b'{"value": null}', Sample("m", "power", NOW, Quality.BAD, ())),
        (b'{"value": 1, "timestamp": 1.5}', Sample("m", "power", 1_500, Quality.GOOD, (3.0,))),
    ],
)
def test_what_a_payload_means(raw, meant):
    assert payloads.item(payloads.parse(raw), SCALAR, NAMES, NOW) == meant


def test_an_iso_time_needs_its_offset():
    names = Payload(time_format="iso")
    good = payloads.parse(b'{"value": 1, "timestamp": "2026-09-21T13:33:20+02:00"}')
    assert payloads.item(good, SCALAR, names, NOW).ts == 1_789_990_400_000_000
    bad = payloads.parse(b'{"value": 1, "timestamp": "2026-09-21T13:33:20"}')
    with pytest.raises(BadInput, match="no ISO time with an offset"):
        payloads.item(bad, SCALAR, names, NOW)


def test_too_much_in_one_piece_is_named():
    with pytest.raises(BadInput, match="too_large"):
        payloads.parse(b" " * (payloads.MOST_BYTES + 1))
    with pytest.raises(BadInput, match="too_large"):
        values.item(WAVE, [0.0] * (MOST_VALUES + 1), NOW, Quality.GOOD)
    with pytest.raises(BadInput, match="malformed"):
        payloads.parse(b"[" * 100_000)


def test_an_event_is_a_code():
    assert payloads.item(payloads.parse(b'"E7"'), EVENT, NAMES, NOW) == Happening(
        "m", NOW, "failure", "E7"
    )
