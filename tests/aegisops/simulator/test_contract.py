"""Live records through the wire contract and the judge: the same rows as history, none rejected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.quality import Limits, judge_events, judge_readings
from aegisops.schemas import avro
from aegisops.simulator import FleetPlan, fleet_of, history
from aegisops.simulator.live_fleet import LiveFleet, Message

START = round(datetime(2025, 6, 2, tzinfo=UTC).timestamp() * 1e6)
PAST, WHOLE = FleetPlan(7, 6, START, 8.0), FleetPlan(7, 6, START, 10.0)
LIMITS = Limits.of(timedelta(minutes=5), timedelta(days=3650))
CLASSES = {m.machine_id: PAST.machine_class for m in fleet_of(PAST)}


def decoded(messages: list[Message], topic: str) -> pl.DataFrame:
    payloads = [avro.encode(topic, m.record, 1) for m in messages if m.topic == topic]
    frame, failures = avro.decode_many(topic, payloads, lambda _: avro.contract(topic).text)
    assert not failures
    time = "sent_at" if topic == READINGS_TOPIC else "ts"
    return frame.with_columns(pl.col(time).alias("arrived_us"))


def test_live_records_fit_the_contracts_and_nothing_is_rejected() -> None:
    messages = LiveFleet(PAST).due(WHOLE.end - 1)
    judged = judge_readings(decoded(messages, READINGS_TOPIC), CLASSES, LIMITS, {})
    assert judged.rejected.is_empty()
    chunks = list(history(WHOLE))
    late = pl.col("ts").cast(pl.Int64) >= PAST.end
    columns = ["machine_id", "channel", "ts", "quality"]
    for mine, theirs, value in (
        (judged.scalars, pl.concat(c.readings for c in chunks), "value"),
        (judged.waveforms, pl.concat(c.waveforms for c in chunks), "values"),
    ):
        expected = theirs.filter(late).with_columns(pl.col("ts").cast(pl.Int64))
        types = {"quality": pl.Int8}
        order = ["machine_id", "channel", "ts"]
        found = mine.select(*columns, value).cast(types).sort(order)
        assert found.equals(expected.select(*columns, value).sort(order))
    events = judge_events(decoded(messages, EVENTS_TOPIC), CLASSES, LIMITS)
    assert events.height > 0
    assert events["reason"].null_count() == events.height
