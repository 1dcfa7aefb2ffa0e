"""Framing, encoding and whole-flush decoding, with whatever bytes the network brings."""

from __future__ import annotations

import copy
import io
import json
import struct
from typing import Any

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops import names
from aegisops.errors import BadInput, ConfigurationError, ServiceUnavailable
from aegisops.names import Reason
from aegisops.schemas import avro
from aegisops.schemas.avro_check import complaint
from aegisops.schemas.avro_scan import suspects

READINGS = names.READINGS_TOPIC
TEXT = avro.contract(READINGS).text
SCHEMA = avro.contract(READINGS).schema
LONG = st.integers(-(2**63), 2**63 - 1)
BLOCK = st.fixed_dictionaries(
    {
        "channel": st.text(max_size=6),
        "start_us": LONG,
        "period_us": st.none() | LONG,
        "quality": st.integers(-(2**31), 2**31 - 1),
        "values": st.lists(st.floats(allow_nan=False), max_size=5),
    }
)
MESSAGE = st.fixed_dictionaries(
    {
        "machine_id": st.text(max_size=8),
        "seq": LONG,
        "sent_at": LONG,
        "blocks": st.lists(BLOCK, max_size=4),
    }
)


def current(_: int) -> str:
    return TEXT


def message(i: int, **changes: Any) -> dict[str, Any]:
    blocks = [
        {
            "channel": "vibration",
            "start_us": i,
            "period_us": 250,
            "quality": 0,
            "values": [1.0] * (i % 3),
        },
        {
            "channel": "temperature",
            "start_us": i,
            "period_us": None,
            "quality": i % 3,
            "values": [i / 2],
        },
    ]
    return (
        {"machine_id": f"m-{i}", "seq": i, "sent_at": 1_700_000_000_000_000 + i}
        | {"blocks": blocks}
        | changes
    )


def payloads(count: int) -> list[bytes]:
    return [avro.encode(READINGS, message(i), 7) for i in range(count)]


def body(record: Any, schema: Any = SCHEMA) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def decoded(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return frame.drop(avro.ROW).to_dicts()


@pytest.mark.parametrize("topic", names.TOPICS)
def test_every_topic_has_a_contract_and_an_empty_flush_has_its_columns(topic: str):
    frame, failures = avro.decode_many(topic, [], current)
    assert frame.columns[-1] == avro.ROW
    assert frame.columns[:-1] == [f["name"] for f in avro.contract(topic).schema["fields"]]
    assert (frame.height, failures) == (0, [])
    assert avro.contract(topic).subject == f"{topic}-value"


def test_a_topic_without_contract_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"'x' has no Avro contract; there are: aegis\."):
        avro.contract("x")


@settings(max_examples=40, deadline=None)
@given(st.lists(MESSAGE, max_size=40))
def test_what_is_encoded_is_decoded_in_order(messages: list[dict[str, Any]]):
    frame, failures = avro.decode_many(
        READINGS, [avro.encode(READINGS, m, 7) for m in messages], current
    )
    assert failures == []
    assert frame[avro.ROW].to_list() == list(range(len(messages)))
    assert decoded(frame) == messages


def test_nan_and_infinity_travel():
    values = [float("inf"), float("-inf"), float("nan")]
    block = {"channel": "c", "start_us": 0, "period_us": None, "quality": 0, "values": values}
    payload = avro.encode(READINGS, message(1, blocks=[block]), 7)
    frame, _ = avro.decode_many(READINGS, [payload] * 20, current)
    got = frame["blocks"][19][0]["values"]
    assert got[:2] == values[:2]
    assert got[2] != got[2]


def corrupt(draw: Any, payload: bytes) -> bytes:
    """Cut, extend, overwrite or replace what follows the schema id."""
    bytes_ = bytearray(payload[5:])
    how = draw(st.sampled_from(["cut", "extend", "flip", "insert", "replace", "swap length"]))
    if how == "cut":
        bytes_ = bytes_[: draw(st.integers(0, len(bytes_) - 1))]
    elif how == "extend":
        bytes_ += draw(st.binary(min_size=1, max_size=40))
    elif how == "flip":
        for _ in range(draw(st.integers(1, 3))):
            bytes_[draw(st.integers(0, len(bytes_) - 1))] ^= draw(st.integers(1, 255))
    elif how == "insert":
        at = draw(st.integers(0, len(bytes_)))
        bytes_[at:at] = draw(st.binary(min_size=1, max_size=12))
    elif how == "replace":
        bytes_ = bytearray(draw(st.binary(max_size=120)))
    else:
        bytes_[0] = draw(st.integers(0, 255))
    return payload[:5] + bytes(bytes_)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_corrupt_message_never_changes_the_rows_of_the_others(data: st.DataObject):
    good = payloads(data.draw(st.sampled_from([1, 5, 24, 60])))
    bad = data.draw(st.sets(st.integers(0, len(good) - 1), min_size=1, max_size=8))
    sent = [corrupt(data.draw, p) if i in bad else p for i, p in enumerate(good)]
    frame, failures = avro.decode_many(READINGS, sent, current)
    failed = {failure.row for failure in failures}
    assert failed <= bad
    assert {f.reason for f in failures} <= {Reason.MALFORMED}
    assert sorted([*frame[avro.ROW].to_list(), *failed]) == list(range(len(sent)))
    others = frame.filter(~pl.col(avro.ROW).is_in(list(bad)))
    assert decoded(others) == [message(i) for i in range(len(good)) if i not in bad]
    # What became of a corrupt one depends on its own bytes, not on the company it came in.
    for i in bad:
        alone, why = avro.decode_many(READINGS, [sent[i]], current)
        assert bool(why) == (i in failed)
        if not why:
            assert alone.drop(avro.ROW).equals(frame.filter(pl.col(avro.ROW) == i).drop(avro.ROW))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_scan_trusts_nothing_that_the_check_refuses(data: st.DataObject):
    bodies = [p[5:] for p in payloads(60)]
    for i in data.draw(st.sets(st.integers(0, 59), min_size=1, max_size=5)):
        bodies[i] = corrupt(data.draw, b"\0" * 5 + bodies[i])[5:]
    wrong = [complaint(SCHEMA, b) is not None for b in bodies]
    doubted = suspects(SCHEMA, bodies)
    assert all(doubt for doubt, bad in zip(doubted, wrong, strict=True) if bad)
    assert not all(doubted), "plain messages pass the scan"


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_passes_the_check_reads_alike_in_an_independent_reader(data: st.DataObject):
    bytes_ = corrupt(data.draw, payloads(3)[2])
    frame, failures = avro.decode_many(READINGS, [bytes_], current)
    if not failures:
        other = fastavro.schemaless_reader(io.BytesIO(bytes_[5:]), SCHEMA, SCHEMA)
        assert body(decoded(frame)[0]) == body(other)


def one_block(union: bytes, quality: bytes = b"\0") -> bytes:
    """A body with chosen bytes where the branch of `period_us` and `quality` are."""
    return b"\x02m\0\0\x02\x02c\0" + union + quality + b"\0\0"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (b"", "machine_id: needs 1 bytes at 0, 0 are left"),
        (one_block(b"\0") + b"\0", "1 bytes after the end of the record"),
        (one_block(b"\0")[:-1], r"blocks: needs 1 bytes"),
        (one_block(b"\x08"), r"blocks\[0\].period_us: branch 4 of a union of 2"),
        (one_block(b"\x01"), r"blocks\[0\].period_us: branch -1"),
        (one_block(b"\0", b"\xfe\xff\xff\xff\x7f"), r"blocks\[0\].quality: 17179869183 is no int"),
        (one_block(b"\0", b"\xff" * 11), "more than 64 bits"),
        (one_block(b"\0", b"\xff" * 9 + b"\x02"), "more than 64 bits"),
        (b"\x02\xff\0\0\0", "machine_id: not UTF-8"),
        (b"\x01m\0\0\0", "machine_id: needs -1 bytes"),
        (b"\x02m\0\0" + b"\xfe" * 8 + b"\x01", "blocks"),
    ],
)
@pytest.mark.parametrize("company", [0, 40])
def test_the_complaint_says_where_and_what(wrong: bytes, why: str, company: int):
    sent = [*payloads(company), avro.frame(7, wrong), *payloads(company)]
    frame, failures = avro.decode_many(READINGS, sent, current)
    assert [(f.row, f.reason) for f in failures] == [(company, Reason.MALFORMED)]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(failures[0].detail)
    assert decoded(frame) == [message(i) for i in range(company)] * 2


@pytest.mark.parametrize("company", [0, 40])
def test_arrays_in_several_blocks_and_with_sizes_are_legal_avro(company: int):
    item = b"\x02c\0\0\0\0"
    sized = b"\x02m\0\0" + b"\x01\x0c" + item + b"\x02" + item + b"\0"
    sent = [*payloads(company), avro.frame(7, sized)]
    frame, failures = avro.decode_many(READINGS, sent, current)
    assert failures == []
    assert len(decoded(frame)[-1]["blocks"]) == 2


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (None, "empty message"),
        (b"", "empty message"),
        (b"\0\0\0", "3 bytes"),
        (b'{"machine_id": "m"}', "starts with 7b 22 6d 61 63, 19 bytes"),
    ],
)
def test_what_is_no_frame_fails_alone(payload: bytes | None, why: str):
    frame, failures = avro.decode_many(READINGS, [*payloads(2), payload, *payloads(1)], current)
    assert [(f.row, f.reason) for f in failures] == [(2, Reason.MALFORMED)]
    assert why in failures[0].detail
    assert frame[avro.ROW].to_list() == [0, 1, 3]


def lookup(texts: dict[int, str]) -> avro.WriterSchema:
    def find(schema_id: int) -> str:
        if schema_id not in texts:
            raise BadInput(Reason.UNKNOWN_SCHEMA, "the registry has no such id")
        return texts[schema_id]

    return find


def test_an_unknown_schema_id_fails_its_messages_only():
    sent = payloads(3)
    sent[1] = avro.frame(999, sent[1][5:])
    frame, failures = avro.decode_many(READINGS, sent, lookup({7: TEXT}))
    assert failures == [
        (1, Reason.UNKNOWN_SCHEMA, "schema 999: the registry has no such id"),
    ]
    assert frame[avro.ROW].to_list() == [0, 2]


def test_a_registry_that_is_away_is_no_dead_letter():
    def away(_: int) -> str:
        raise ServiceUnavailable("registry away")

    with pytest.raises(ServiceUnavailable):
        avro.decode_many(READINGS, payloads(1), away)


def older() -> Any:
    """The contract before quality and period existed, with int times and a field dropped since."""
    schema = copy.deepcopy(json.loads(TEXT))
    schema["fields"] = [f for f in schema["fields"] if f["name"] != "sent_at"]
    schema["fields"].insert(0, {"name": "sent_at", "type": "int"})
    schema["fields"].append({"name": "gone", "type": ["null", "string"], "default": None})
    block = schema["fields"][3]["type"]["items"]
    block["fields"] = [f for f in block["fields"] if f["name"] not in ("quality", "period_us")]
    return schema


@pytest.mark.parametrize("count", [3, 50])
def test_messages_of_an_older_schema_get_the_defaults_of_the_current_one(count: int):
    old = older()
    parsed = avro.parse(json.dumps(old))
    sent: list[bytes] = []
    for i in range(count):
        m = message(i, sent_at=i, gone="x")
        for block in m["blocks"]:
            del block["quality"], block["period_us"]
        sent.append(avro.frame(3, body(m, parsed)))
    mixed = [p for pair in zip(sent, payloads(count), strict=True) for p in pair]
    mixed[1] = mixed[1][:-1]
    frame, failures = avro.decode_many(READINGS, mixed, lookup({3: json.dumps(old), 7: TEXT}))
    assert [f.row for f in failures] == [1]
    expected = []
    for i in range(count):
        m = message(i, sent_at=i)
        for block in m["blocks"]:
            block |= {"quality": 0, "period_us": None}
        expected += [m, message(i)] if i else [m]
    assert decoded(frame) == expected


def test_a_schema_that_cannot_be_read_as_the_contract_says_which_field():
    event = avro.contract(names.EVENTS_TOPIC)
    sent = avro.encode(names.EVENTS_TOPIC, {"machine_id": "m", "ts": 1, "type": "failure"}, 4)
    _, failures = avro.decode_many(READINGS, [sent], lookup({4: event.text}))
    assert failures[0].reason is Reason.MALFORMED
    assert "schema 4: field seq is absent and has no default" in failures[0].detail


def test_schemas_polars_cannot_read_are_still_decoded():
    schema = json.loads(TEXT)
    schema["fields"].append({"name": "tags", "type": {"type": "map", "values": "string"}})
    parsed = avro.parse(json.dumps(schema))
    sent = [avro.frame(9, body(message(i, tags={"a": "b"}), parsed)) for i in range(20)]
    sent[5] = sent[5][:-2]
    frame, failures = avro.decode_many(READINGS, sent, lookup({9: json.dumps(schema)}))
    assert [f.row for f in failures] == [5]
    assert decoded(frame) == [message(i) for i in range(20) if i != 5]


@pytest.mark.parametrize("text", ["{", '{"type": "wrong"}', '"string"'])
def test_a_broken_schema_fails_its_messages(text: str):
    _, failures = avro.decode_many(READINGS, payloads(1), lookup({7: text}))
    assert [f.reason for f in failures] == [Reason.MALFORMED]


@pytest.mark.parametrize(
    "changes", [{"seq": "one"}, {"seq": 2**63}, {"machine_id": None}, {"blocks": [{}]}]
)
def test_a_record_that_breaks_the_contract_is_refused_at_the_sender(changes: dict[str, Any]):
    with pytest.raises(BadInput, match=READINGS):
        avro.encode(READINGS, message(1, **changes), 7)


def test_a_frame_is_the_confluent_wire_format():
    payload = avro.encode(names.EVENTS_TOPIC, {"machine_id": "m", "ts": 1, "type": "error"}, 258)
    assert payload[:5] == struct.pack(">bI", 0, 258)
    assert avro.unframe(payload) == (258, payload[5:])
    with pytest.raises(BadInput):
        avro.unframe(b"\x01\0\0\0\1")
