"""The small parts of the stream applications."""

from __future__ import annotations

import json
import logging
import signal
import sys
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegisops.errors import ConfigurationError
from aegisops.lake import Lake
from aegisops.machines import load_class, shipped_classes
from aegisops.names import READINGS_TOPIC
from aegisops.schemas.tables import MACHINES, READINGS
from aegisops.settings import KafkaSettings
from streaming.application import run_main
from streaming.buffers import Buffers, Messages
from streaming.decoding import decode, schema_id
from streaming.fleet import Fleet
from streaming.identity import incarnations
from streaming.lake_metrics import LakeMetrics
from streaming.lake_writer import starts
from streaming.logs import JsonFormatter
from streaming.offsets import app_id
from streaming.partitioner import murmur2, partition_of
from streaming.values import event_values


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data, expected):
    # Values of org.apache.kafka.common.utils.UtilsTest, signed as in Java.
    assert murmur2(data) == expected % 2**32


def test_a_key_has_one_partition():
    assert {partition_of("m-1", 12) for _ in range(3)} == {partition_of("m-1", 12)}
    assert all(0 <= partition_of(f"m-{i}", 12) < 12 for i in range(200))


def test_swapped_buffers_belong_to_the_flush_and_new_messages_to_the_next():
    buffers = Buffers()
    buffers.extend(("t", 0), [1], [0], [b"a"])
    taken = buffers.swap()
    buffers.extend(("t", 0), [2, 3], [0, 0], [b"b", b"cc"])
    assert buffers.bytes == 3
    assert taken["t", 0].offsets == [1]
    assert buffers.swap()["t", 0].offsets == [2, 3]
    buffers.extend(("t", 0), [4], [0], [b"d"])
    buffers.clear()
    assert (buffers.swap(), buffers.bytes) == ({}, 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=8))
def test_offsets_that_come_again_replace_the_tail_they_repeat(deliveries):
    kept, expected, weight = Messages(), {}, 0
    for turn, (start, count) in enumerate(deliveries):
        offsets = list(range(start, start + count))
        values = [bytes(turn + 1) for _ in offsets]
        weight += kept.extend(offsets, offsets, values)
        expected = {o: v for o, v in expected.items() if o < start} | dict(
            zip(offsets, values, strict=True)
        )
    assert dict(zip(kept.offsets, kept.values, strict=True)) == expected
    assert kept.offsets == sorted(expected)
    assert weight == sum(map(len, expected.values()))
    for cut in range(-1, 27):
        tail = kept.after(cut)
        assert tail.offsets == [o for o in kept.offsets if o > cut]
        assert [kept.at(o) for o in tail.offsets] == tail.values


def test_arrival_is_kafkas_time_unless_that_is_in_the_future(wire):
    encode, decoder = wire
    record = {"machine_id": "m-1", "seq": 0, "sent_at": 0, "blocks": []}
    payload = encode(READINGS_TOPIC, record)
    messages = Messages([0, 1, 2], [5, 99_000, -1], [payload] * 3)
    batch = decode(READINGS_TOPIC, {4: messages}, decoder, now_us=1_000_000)
    assert batch.records["arrived_us"].to_list() == [5_000, 1_000_000, 1_000_000]
    assert batch.records.select("_partition", "_offset").rows() == [(4, 0), (4, 1), (4, 2)]


def test_a_schema_id_is_read_only_from_a_frame():
    assert schema_id(b"\x00\x00\x00\x01\x02rest") == 258
    assert schema_id(b"\x01\x00\x00\x01\x02") is None
    assert schema_id(b"\x00\x00") is None


def registration(machine_class="cnc_spindle", attributes="{}", day=1, machine_id="m-1"):
    return pl.DataFrame(
        {
            "machine_id": [machine_id],
            "machine_class": machine_class,
            "site": "s",
            "area": "a",
            "attributes": attributes,
            "registered_at": datetime(2026, 1, day, tzinfo=UTC),
        }
    )


def test_the_newest_registration_wins_and_a_class_nobody_declared_is_left_out(tmp_path):
    lake = Lake(tmp_path)
    lake.append(MACHINES, registration("azure_pdm", '{"age": 3}', day=2))
    lake.append(MACHINES, registration(day=1))
    lake.append(MACHINES, registration("mystery", machine_id="m-2"))
    fleet = Fleet(lake, shipped_classes())
    assert {m: c.name for m, c in fleet.knowing(["m-1"]).items()} == {"m-1": "azure_pdm"}
    assert fleet.attributes == {"m-1": {"age": 3}}


def test_a_stranger_costs_one_look_per_interval_and_a_known_fleet_one_now_and_then(tmp_path):
    class Counting(Lake):
        looks = 0

        def version(self, table):
            self.looks += 1
            return super().version(table)

    now = [0.0]
    lake = Counting(tmp_path)
    fleet = Fleet(lake, shipped_classes(), lambda: now[0], recheck_seconds=2, refresh_seconds=30)
    for now[0] in (0.0, 0.5, 1.9):
        assert fleet.knowing(["m-1"]) == {}
    assert lake.looks == 1
    lake.append(MACHINES, registration())
    now[0] = 2.1
    assert set(fleet.knowing(["m-1"])) == {"m-1"}
    now[0] = 30.0
    fleet.knowing(["m-1"])
    assert lake.looks == 2
    now[0] = 33.0
    fleet.knowing(["m-1"])
    assert lake.looks == 3


def test_events_become_values_of_the_event_channels_they_match():
    events = pl.DataFrame(
        [
            ("m-1", 5, "maintenance", "comp2"),
            ("m-1", 6, "error", "error9"),
            ("m-1", 7, "error", "error1"),
        ],
        schema=["machine_id", "ts", "type", "code"],
        orient="row",
    )
    values = event_values(events, load_class("azure_pdm"))
    assert values.sort("ts").rows() == [
        ("m-1", "maintenance_comp2", 5, 1.0, 0),
        ("m-1", "error1", 7, 1.0, 0),
    ]
    assert event_values(events, load_class("cnc_spindle")).height == 1


def test_an_in_memory_broker_without_an_identity_is_refused():
    with pytest.raises(ConfigurationError, match="AEGIS_KAFKA__CLUSTER_ID"):
        incarnations(KafkaSettings(), ["t"])
    assert incarnations(KafkaSettings(cluster_id="x"), ["t"]) == {"t": "x"}


def test_positions_that_contradict_the_broker_raise_an_alarm(tmp_path, caplog):
    metrics = LakeMetrics()
    partitions = [(READINGS_TOPIC, 0), (READINGS_TOPIC, 1)]
    marks = {partitions[0]: (7, 20), partitions[1]: (0, 0)}
    known = {READINGS_TOPIC: "c"}
    begin = starts(Lake(tmp_path), known, metrics, partitions, marks.__getitem__)
    assert begin == dict.fromkeys(partitions, 0)
    assert metrics.alarms.labels("dropped_unread")._value.get() == 1
    assert metrics.alarms.labels("ahead_of_broker")._value.get() == 0
    assert "offsets 0 to 6 are gone" in caplog.text
    stored = {app_id(READINGS, READINGS_TOPIC, "c", 0): 25}
    Lake(tmp_path).append(READINGS, READINGS.schema.empty_table(), stored)
    starts(Lake(tmp_path), known, metrics, partitions, marks.__getitem__)
    assert metrics.alarms.labels("ahead_of_broker")._value.get() == 1


def test_a_log_line_is_one_json_object():
    try:
        int("broken\nline")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "a %s", ("b",), sys.exc_info())
    line = JsonFormatter("app").format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["app"], parsed["message"]) == ("error", "app", "a b")
    assert "ValueError" in parsed["exception"]


@pytest.mark.parametrize(("error", "code"), [(None, 0), (KeyboardInterrupt, 0), (OSError, 1)])
def test_an_application_ends_with_a_code_its_supervisor_understands(error, code, monkeypatch):
    def run(settings):
        if error:
            raise error

    before = signal.getsignal(signal.SIGTERM)
    handlers = logging.getLogger().handlers[:]
    try:
        assert run_main("app", run) == code
    finally:
        signal.signal(signal.SIGTERM, before)
        logging.getLogger().handlers[:] = handlers
