"""Hostile input through the Kafka door: nothing crashes, nothing is lost silently, memory bounded.

Every message is either rows in the lake or a dead letter at its own place; never both, never none.
"""

from __future__ import annotations

import math
import resource
from functools import partial

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegisops.errors import BadInput
from aegisops.machines import shipped_classes
from aegisops.names import READINGS_TOPIC, Reason
from aegisops.quality import Limits
from aegisops.schemas import avro
from aegisops.schemas.tables import DEAD_LETTERS, READINGS, WAVEFORMS
from streaming.buffers import Messages
from streaming.decoding import decode
from streaming.routes import ROUTES, rejected

SECOND = 1_000_000
NOW = 1_790_000_000_000_000
LIMITS = Limits(300 * SECOND, 3_650 * 86_400 * SECOND)
FLEET = {"m-1": shipped_classes()["cnc_spindle"]}


def schema(schema_id):
    if schema_id != 1:
        raise BadInput(Reason.UNKNOWN_SCHEMA, f"no schema {schema_id}")
    return avro.contract(READINGS_TOPIC).text


DECODER = partial(avro.decode_many, writer_schema=schema)
HUGE = (b"\xfe" + b"\xff" * 8 + b"\x01", b"\xff" * 9 + b"\x01", b"\xff" * 12)
"""Varints of 2^63 and so, and one that does not end."""
anything = st.floats(allow_nan=True, allow_infinity=True)
times = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(NOW - 10**9, NOW))
blocks = st.fixed_dictionaries(
    {
        "channel": st.one_of(
            st.sampled_from(["power", "temperature", "vibration", "cycles"]), st.text(max_size=5)
        ),
        "start_us": times,
        "period_us": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "quality": st.integers(-(2**31), 2**31 - 1),
        "values": st.lists(anything, max_size=4),
    }
)
records = st.fixed_dictionaries(
    {
        "machine_id": st.sampled_from(["m-1", "ghost", ""]),
        "seq": st.integers(0, 2**63 - 1),
        "sent_at": times,
        "blocks": st.lists(blocks, max_size=3),
    }
)


@st.composite
def payloads(draw):
    """A real message as it is, cut, lengthened, flipped, with an absurd length; or just bytes."""
    real = avro.encode(READINGS_TOPIC, draw(records), draw(st.sampled_from([1, 1, 1, 7])))
    kind = draw(st.sampled_from(["real", "cut", "more", "flip", "huge", "bytes"]))
    at = draw(st.integers(0, len(real)))
    if kind == "cut":
        return real[:at]
    if kind == "more":
        return real + draw(st.binary(min_size=1, max_size=9))
    if kind == "flip":
        wrong = bytearray(real)
        wrong[at % len(real)] ^= draw(st.integers(1, 255))
        return bytes(wrong)
    if kind == "huge":  # a varint of up to 2^63 where a length or a count may stand
        return real[:at] + draw(st.sampled_from(HUGE)) + real[at:]
    if kind == "bytes":
        return draw(st.binary(max_size=40))
    return real


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(payloads(), min_size=1, max_size=24))
def test_every_message_becomes_rows_or_letters_whatever_its_bytes(messages):
    parts = {3: Messages(list(range(len(messages))), [NOW // 1_000] * len(messages), messages)}
    batch = decode(READINGS_TOPIC, parts, DECODER, NOW)
    rows = ROUTES[READINGS_TOPIC].judge(batch.records, FLEET, LIMITS, {}).rows
    read, failed = set(batch.records["_offset"]), set(batch.failures["_offset"])
    assert read | failed == set(range(len(messages)))
    assert not read & failed
    # Every value of every block is a good row, a refused one, or in a refused capture or message.
    sent = batch.records.select(
        "_offset",
        n=pl.col("blocks").list.eval(pl.element().struct["values"].list.len().clip(1)).list.sum(),
    )
    captures = pl.col("kind").eq_missing(pl.lit("waveform")) & pl.col("values").is_not_null()
    found = rows.with_columns(
        n=pl.when(captures).then(pl.col("values").list.len().clip(1)).otherwise(1)
    )
    counted = dict(found.group_by("_offset").agg(pl.col("n").sum()).iter_rows())
    for offset, n in sent.iter_rows():
        assert counted.get(offset, 0) == n
    good = rows.filter(pl.col("reason").is_null())
    assert good["machine_id"].is_in(["m-1"]).all()
    values = good.filter(pl.col("quality") != 2)["value"].drop_nulls()
    assert all(math.isfinite(v) for v in values)
    letters = rejected(READINGS_TOPIC, rows)
    assert letters["why"].null_count() == 0
    assert good.height or letters.height or batch.failures.height or not sum(sent["n"])


def test_absurd_lengths_cost_no_memory():
    """A count of 2^62 items in a body of 60 bytes is refused before anything is allocated."""
    head = b"\x00" + (1).to_bytes(4, "big")
    huge = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    bodies = [
        head + huge,  # the machine id would be 2^63 bytes long
        head + b"\x06m-1" + b"\x00" + b"\x00" + huge,  # that many blocks
        head + b"\x06m-1\x00\x00\x02\x0apower\x00\x00\x00" + huge,  # that many values
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for count in (1, 40):  # singly and in company
        found, failures = DECODER(READINGS_TOPIC, bodies * count)
        assert found.is_empty()
        assert len(failures) == 3 * count
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB


@pytest.mark.slow
def test_a_flood_of_garbage_among_good_messages_loses_neither(world):
    """Ten times as much garbage as sense, in one flush."""
    sink = world.lake_sink()
    sink._breaker._max_share = 1.0  # the flood is what is tested, not the circuit
    good = 0
    block = {
        "channel": "power",
        "start_us": NOW,
        "period_us": None,
        "quality": 0,
        "values": [9.0],
    }
    for offset in range(11_000):
        if offset % 11:
            payload = b"\x00\x00\x00\x00\x01" + bytes([offset % 256]) * 30
        else:
            record = {"machine_id": "m-1", "seq": offset, "sent_at": 0, "blocks": [block]}
            payload = world.encode(READINGS_TOPIC, record)
            good += 1
        sink.extend((READINGS_TOPIC, 0), [offset], [NOW // 1_000], [payload])
    sink.flush()
    assert world.lake.scan(READINGS).collect().height == good
    assert world.lake.scan(WAVEFORMS).collect().is_empty()
    letters = world.lake.scan(DEAD_LETTERS).collect()
    assert letters.height == 11_000 - good
    assert letters["_offset"].n_unique() == letters.height
