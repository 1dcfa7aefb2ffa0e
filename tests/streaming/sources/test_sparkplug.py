"""Sparkplug B: the rules of births, deaths, aliases and sequence numbers, and every odd input."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegisops.names import Quality, Reason
from streaming.mapping import Place, Target
from streaming.samples import Refusal, Sample
from streaming.sources.sparkplug import EdgeNode, Heard, SparkplugHost, rebirth_request
from streaming.sources.sparkplug_payload import DataType, payload_class

NODE = EdgeNode("plant", "edge")
TARGETS = {
    Place("metric", "plant/edge/m-1", "Temp"): [Target("m-1", "temperature")],
    Place("metric", "plant/edge/m-1", "Vib"): [Target("m-1", "vibration", period_us=1_000)],
    Place("metric", "plant/edge", "Power"): [Target("hall", "power", 1e-3, 0.0)],
}
ADDRESS = {"N": "spBv1.0/plant/{}/edge", "D": "spBv1.0/plant/{}/edge/m-1"}


def topic(kind):
    return ADDRESS[kind[0]].format(kind)


def payload(*metrics, seq=0, timestamp=1_000):
    made = payload_class()(timestamp=timestamp, seq=seq)
    for metric in metrics:
        made.metrics.add(**metric)
    return made.SerializeToString()


def temp(value, **more):
    return {"datatype": int(DataType.DOUBLE), "double_value": value, **more}


@pytest.fixture
def host():
    return SparkplugHost("broker", TARGETS)


@pytest.fixture
def born(host):
    host.receive(topic("NBIRTH"), payload({"name": "bdSeq", "long_value": 3}, seq=7), 0.0)
    birth = payload(
        temp(20.0, name="Temp", alias=1),
        {"name": "Vib", "alias": 2, "datatype": int(DataType.FLOAT_ARRAY), "is_null": True},
        seq=8,
    )
    heard = host.receive(topic("DBIRTH"), birth, 0.0)
    assert heard.rebirth is None
    assert heard.items[0] == Sample("m-1", "temperature", 1_000_000, Quality.GOOD, (20.0,))
    return host


def test_it_subscribes_to_the_mapped_nodes_only(host):
    assert host.topics == [
        "spBv1.0/plant/DBIRTH/edge/+",
        "spBv1.0/plant/DDATA/edge/+",
        "spBv1.0/plant/DDEATH/edge/+",
        "spBv1.0/plant/NBIRTH/edge",
        "spBv1.0/plant/NDATA/edge",
        "spBv1.0/plant/NDEATH/edge",
    ]


def test_an_alias_stands_for_the_name_and_type_of_the_birth(born):
    wave = struct.pack("<3f", 1.0, -1.0, 0.5)
    data = payload({"alias": 1, "double_value": 21.5}, {"alias": 2, "bytes_value": wave}, seq=9)
    heard = born.receive(topic("DDATA"), data, 0.0)
    assert heard == Heard(
        (
            Sample("m-1", "temperature", 1_000_000, Quality.GOOD, (21.5,)),
            Sample("m-1", "vibration", 1_000_000, Quality.GOOD, (1.0, -1.0, 0.5), 1_000),
        )
    )


def test_data_before_any_birth_asks_for_one_and_aliases_are_refused(host):
    heard = host.receive(topic("DDATA"), payload({"alias": 1, "double_value": 1.0}), 0.0)
    assert heard.rebirth == NODE
    assert heard.items[0].reason is Reason.UNMAPPED
    named = host.receive(topic("DDATA"), payload(temp(1.0, name="Temp")), 1.0)
    assert named.rebirth is None  # asked 1 s ago
    assert named.items[0].values == (1.0,)
    assert host.receive(topic("DDATA"), payload(), 11.0).rebirth == NODE


def test_a_lost_message_shows_by_its_number_and_asks_for_a_rebirth(born):
    heard = born.receive(topic("DDATA"), payload(temp(1.0, alias=1), seq=11), 100.0)
    assert heard.rebirth == NODE
    assert [type(i) for i in heard.items] == [Refusal, Sample]
    assert heard.items[0].reason is Reason.GAP
    assert "11 after 8" in heard.items[0].detail
    assert born.receive(topic("DDATA"), payload(temp(2.0, alias=1), seq=12), 100.0).rebirth is None


def test_sequence_numbers_go_round_after_255(host):
    host.receive(topic("NBIRTH"), payload(seq=254), 0.0)
    for seq in (255, 0, 1):
        heard = host.receive(topic("NDATA"), payload({"name": "Power", "int_value": 5}, seq=seq), 0)
        assert [type(i) for i in heard.items] == [Sample]


def test_a_node_death_makes_everything_of_it_stale(born):
    other = born.receive(topic("NDEATH"), payload({"name": "bdSeq", "long_value": 2}), 5.0)
    assert other == Heard(())  # the will of an older session
    heard = born.receive(topic("NDEATH"), payload({"name": "bdSeq", "long_value": 3}), 5.0)
    assert {(s.machine_id, s.channel) for s in heard.items} == {
        ("m-1", "temperature"), ("m-1", "vibration"), ("hall", "power"),
    }  # fmt: skip
    assert all(s.quality is Quality.BAD and not s.values and s.ts == 5e6 for s in heard.items)


def test_a_device_death_makes_only_the_device_stale(born):
    heard = born.receive(topic("DDEATH"), payload(seq=9), 5.0)
    assert {s.machine_id for s in heard.items} == {"m-1"}


def test_historical_values_keep_their_own_time(born):
    late = temp(3.0, alias=1, timestamp=500, is_historical=True)
    heard = born.receive(topic("DDATA"), payload(late, seq=9, timestamp=9_000), 9.0)
    assert heard.items[0].ts == 500_000


@pytest.mark.parametrize(
    ("datatype", "sent", "meant"),
    [
        (DataType.INT8, {"int_value": 0xFF}, -1),
        (DataType.INT16, {"int_value": 0x8000}, -32_768),
        (DataType.INT32, {"int_value": 0xFFFF_FFFE}, -2),
        (DataType.INT64, {"long_value": 2**64 - 5}, -5),
        (DataType.UINT32, {"int_value": 2**32 - 1}, 2**32 - 1),
        (DataType.FLOAT, {"float_value": 0.5}, 0.5),
        (DataType.BOOLEAN, {"boolean_value": True}, 1),
    ],
)
def test_integers_are_signed_as_their_type_says(host, datatype, sent, meant):
    host.receive(topic("NBIRTH"), payload(), 0.0)
    metric = {"name": "Power", "datatype": int(datatype), **sent}
    heard = host.receive(topic("NDATA"), payload(metric, seq=1), 0.0)
    assert heard.items[0].values == (meant * 1e-3,)


@pytest.mark.parametrize(("code", "quality"), [(192, Quality.GOOD), (0, 2), (500, 2)])
def test_the_quality_property_counts(born, code, quality):
    made = payload_class()(seq=9, timestamp=1)
    metric = made.metrics.add(**temp(1.0, alias=1))
    metric.properties.keys.append("Quality")
    metric.properties.values.add(type=3, int_value=code)
    heard = born.receive(topic("DDATA"), made.SerializeToString(), 0.0)
    assert heard.items[0].quality == quality


def test_unmapped_metrics_are_counted_not_refused(born):
    heard = born.receive(topic("DDATA"), payload({"name": "Colour", "int_value": 1}, seq=9), 0.0)
    assert heard == Heard((), None, 1)


def test_what_is_no_sparkplug_is_refused_with_its_bytes(born):
    heard = born.receive(topic("DDATA"), b"\xff\xfe nonsense", 0.0)
    assert heard.items[0].payload == b"\xff\xfe nonsense"
    assert heard.items[0].reason is Reason.MALFORMED


def test_a_rebirth_request_is_a_command_to_the_node():
    where, raw = rebirth_request(NODE, 2.0)
    assert where == "spBv1.0/plant/NCMD/edge"
    made = payload_class().FromString(raw)
    assert (made.metrics[0].name, made.metrics[0].boolean_value) == ("Node Control/Rebirth", True)


METRIC = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["Temp", "Vib", "Power", "bdSeq", "", "x"]),
        "alias": st.integers(0, 3),
        "timestamp": st.integers(0, 2**64 - 1),
        "datatype": st.integers(0, 40),
        "is_null": st.booleans(),
        "is_historical": st.booleans(),
    },
)
VALUE = st.one_of(
    st.just({}),
    st.builds(lambda v: {"int_value": v}, st.integers(0, 2**32 - 1)),
    st.builds(lambda v: {"long_value": v}, st.integers(0, 2**64 - 1)),
    st.builds(lambda v: {"double_value": v}, st.floats()),
    st.builds(lambda v: {"boolean_value": v}, st.booleans()),
    st.builds(lambda v: {"string_value": v}, st.text(max_size=5)),
    st.builds(lambda v: {"bytes_value": v}, st.binary(max_size=24)),
)
BODY = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda metrics, seq, ts: payload(*[m | v for m, v in metrics], seq=seq, timestamp=ts),
        st.lists(st.tuples(METRIC, VALUE), max_size=4),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
    ),
)
TOPIC = st.one_of(
    st.sampled_from([topic(k) for k in ("NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA")]),
    st.text(max_size=10),
    st.lists(st.sampled_from(["spBv1.0", "plant", "NDATA", "edge", "", "NCMD"]), max_size=6).map(
        "/".join
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TOPIC, BODY), max_size=8))
def test_no_message_crashes_and_none_vanishes(messages):
    host = SparkplugHost("broker", TARGETS)
    for now, (where, raw) in enumerate(messages):
        heard = host.receive(where, raw, float(now))
        is_empty = not (heard.items or heard.ignored or heard.rebirth)
        if is_empty and not where.endswith("/x"):
            # Only a message without metrics, or an old will, may mean nothing.
            parsed = payload_class().FromString(raw)
            assert not parsed.metrics or "DEATH" in where
        for item in heard.items:
            if isinstance(item, Sample):
                assert abs(item.ts) < 2**62
