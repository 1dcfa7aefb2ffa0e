"""A span of bronze becomes the messages it came as, sent at the pace that was asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from aegisops import bronze_replay
from aegisops.bronze_replay import Span, messages, send
from aegisops.errors import ConfigurationError, Retryable
from aegisops.lake import Lake
from aegisops.names import READINGS_TOPIC
from aegisops.schemas import avro
from aegisops.schemas.tables import READINGS, WAVEFORMS

SECOND = 1_000_000
BEGIN = datetime(2026, 1, 31, 23, 0, tzinfo=UTC)
SPAN = Span(BEGIN, BEGIN + timedelta(hours=2))
SOURCE = {"_topic": "t", "_partition": 0, "_index": 0, "_ingested_at": BEGIN}


@pytest.fixture
def lake(tmp_path):
    """Two machines, a reading a minute for two hours over midnight; one capture, one bad value."""
    lake = Lake(tmp_path)
    rows = [
        {
            "machine_id": machine,
            "channel": channel,
            "ts": BEGIN + timedelta(minutes=minute),
            "value": None if minute == 3 and channel == "power" else float(minute),
            "quality": 2 if minute == 3 and channel == "power" else 0,
            "seq": minute,
            "_offset": minute,
            **SOURCE,
        }
        for machine in ("m-1", "m-2")
        for minute in range(120)
        for channel in ("power", "temperature")
    ]
    lake.append(READINGS, pl.DataFrame(rows, schema_overrides={"value": pl.Float64}))
    capture = {
        "machine_id": "m-1",
        "channel": "vibration",
        "ts": BEGIN + timedelta(minutes=5, milliseconds=200),
        "period_us": 1_000,
        "values": [1.0, 2.0],
        "quality": 0,
        "seq": 5,
        "_offset": 5,
        **SOURCE,
    }
    lake.append(WAVEFORMS, pl.DataFrame([capture]))
    return lake


class Kafka:
    """Takes what is published; full now and then, as the real producer is."""

    def __init__(self, clock):
        self.clock = clock
        self.sent = []
        self.turns = 0

    def publish(self, topic, key, value):
        self.turns += 1
        if self.turns % 7 == 0:
            raise Retryable("the queue is full")
        self.sent.append((topic, key, value, self.clock[0]))

    def poll(self, seconds=0.0):
        pass

    def flush(self, seconds=30.0):
        pass

    def records(self):
        found, failures = avro.decode_many(
            READINGS_TOPIC,
            [value for *_, value, _ in self.sent],
            lambda _: avro.contract(READINGS_TOPIC).text,
        )
        assert failures == []
        return found.drop(avro.ROW)


def sent(lake, **options):
    clock = [1_000_000.0]
    kafka = Kafka(clock)

    def sleep(seconds):
        clock[0] += seconds

    span = options.pop("span", SPAN)
    count = send(
        messages(lake, span), kafka, topic="rehearsal", schema_id=7, span=span,
        clock=lambda: clock[0], sleep=sleep, **options,
    )  # fmt: skip
    assert count == len(kafka.sent)
    return kafka, clock[0] - 1_000_000.0


def test_every_reading_travels_once_as_it_was(lake):
    kafka, _ = sent(lake, speed=0)
    records = kafka.records()
    assert records.height == 240  # one a machine and minute; the capture is in its second
    none = pl.lit([None], pl.List(pl.Float64))
    blocks = (
        records.explode("blocks")
        .unnest("blocks")
        .with_columns(
            values=pl.when(pl.col("values").list.len() > 0).then("values").otherwise(none)
        )
        .explode("values")
    )
    values = blocks.filter(pl.col("channel") != "vibration")
    bronze = lake.scan(READINGS).select(
        "machine_id", "channel", pl.col("ts").cast(pl.Int64).alias("start_us"), "value",
        pl.col("quality").cast(pl.Int32),
    )  # fmt: skip
    key = ["machine_id", "channel", "start_us"]
    travelled = values.select(
        *key, pl.col("values").alias("value"), pl.col("quality").cast(pl.Int32)
    )
    assert travelled.sort(key).equals(bronze.collect().sort(key), null_equal=True)
    capture = blocks.filter(pl.col("channel") == "vibration")
    assert capture.select("period_us", "values").rows() == [(1_000, 1.0), (1_000, 2.0)]
    assert {topic for topic, *_ in kafka.sent} == {"rehearsal"}
    assert all(value[1:5] == (7).to_bytes(4, "big") for *_, value, _ in kafka.sent)


def test_it_takes_the_span_divided_by_the_speed_and_never_runs_ahead(lake):
    kafka, took = sent(lake, speed=60.0)
    assert took == pytest.approx(119.0, abs=0.1)  # the last reading is a minute before the end
    newest = [int(r["sent_at"]) for r in kafka.records().iter_rows(named=True)]
    assert newest == sorted(newest)
    begin = round(BEGIN.timestamp() * SECOND)
    for ts, (*_, at) in zip(newest, kafka.sent, strict=True):
        assert at >= 1_000_000.0 + (ts - begin) / 60.0 / SECOND - 1e-6


def test_moved_to_now_nothing_lies_in_the_future_when_it_is_sent(lake):
    kafka, _ = sent(lake, speed=60.0, to_now=True)
    starts = kafka.records()["blocks"].list.eval(pl.element().struct["start_us"]).list.max()
    for start, (*_, at) in zip(starts, kafka.sent, strict=True):
        assert start <= at * SECOND
    # The distances are kept.
    assert starts.max() - starts.min() == 119 * 60 * SECOND


def test_machines_and_times_can_be_chosen(lake):
    span = Span(BEGIN + timedelta(minutes=10), BEGIN + timedelta(minutes=20), ("m-2",))
    kafka, _ = sent(lake, speed=0, span=span)
    assert [key for _, key, *_ in kafka.sent] == ["m-2"] * 10
    assert kafka.records()["seq"].to_list() == list(range(10, 20))


def test_no_more_than_a_slice_is_read_at_a_time(lake, monkeypatch):
    asked = []
    whole = bronze_replay._slice
    monkeypatch.setattr(bronze_replay, "_slice", lambda *a: asked.append(a[2]) or whole(*a))
    found = messages(lake, SPAN)
    next(found)
    assert asked == [BEGIN]
    assert len(list(found)) == 239
    assert asked == [BEGIN, BEGIN + timedelta(hours=1)]


def test_a_span_must_have_a_length():
    with pytest.raises(ConfigurationError, match="not after"):
        Span(BEGIN, BEGIN)
