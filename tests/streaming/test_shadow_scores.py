"""Shadow scores from Kafka's messages to bronze/shadow_scores."""

from __future__ import annotations

import polars as pl
import pytest

from aegisops.errors import Conflict
from aegisops.lake import Lake
from aegisops.names import SHADOW_SCORES_TOPIC
from aegisops.quality import Limits
from aegisops.schemas.tables import DEAD_LETTERS, SHADOW_SCORES
from streaming.fleet import Fleet
from streaming.lake_metrics import LakeMetrics
from streaming.lake_sink import LakeSink

NOW_MS = 1_790_000_000_000
SECOND = 1_000_000


@pytest.fixture
def score(wire):
    encode, _ = wire

    def make(i, at=NOW_MS * 1_000):
        return encode(
            SHADOW_SCORES_TOPIC,
            {
                "prediction_id": f"p{i}",
                "machine_id": "m-1",
                "scored_at": at,
                "model_version": "2",
                "digest": "ab",
                "probability": 0.25,
            },
        )

    return make


def sink(lake, wire):
    made = LakeSink(
        lake,
        fleet=Fleet(lake, {}),
        decoder=wire[1],
        limits=Limits(max_future_us=300 * SECOND, max_past_us=86_400 * SECOND),
        incarnations={SHADOW_SCORES_TOPIC: "c1"},
        metrics=LakeMetrics(),
        clock=lambda: NOW_MS / 1_000,
    )
    made.setup()
    return made


def send(to, offset, payload):
    to.add(payload, b"m-1", NOW_MS, [], SHADOW_SCORES_TOPIC, 0, offset)


def test_each_score_is_written_once_whatever_is_sent_again(tmp_path, wire, score):
    lake = Lake(tmp_path)
    first = sink(lake, wire)
    for i in range(4):
        send(first, i, score(i))
    first.flush()
    again = sink(lake, wire)  # after a crash Kafka starts further back
    for i in range(2, 6):
        send(again, i, score(i))
    again.flush()
    rows = lake.scan(SHADOW_SCORES).sort("_offset").collect()
    assert rows["prediction_id"].to_list() == [f"p{i}" for i in range(6)]
    assert rows["_offset"].to_list() == list(range(6))
    assert rows.select("model_version", "digest", "probability").unique().rows() == [
        ("2", "ab", 0.25)
    ]
    assert rows["date"].to_list() == rows["scored_at"].dt.date().to_list()


def test_a_flush_that_lost_its_race_is_written_once(tmp_path, wire, score):
    class Late(Lake):
        fails = 1

        def append(self, table, rows, *more):
            if table is SHADOW_SCORES and self.fails:
                self.fails -= 1
                raise Conflict("another writer committed first")
            return super().append(table, rows, *more)

    lake = Late(tmp_path)
    writer = sink(lake, wire)
    send(writer, 0, score(0))
    writer.flush()
    assert lake.fails == 0
    assert lake.scan(SHADOW_SCORES).collect().height == 1


def test_a_score_with_an_absurd_clock_is_a_dead_letter_and_the_rest_is_kept(tmp_path, wire, score):
    lake = Lake(tmp_path)
    writer = sink(lake, wire)
    send(writer, 0, score(0, at=NOW_MS * 1_000 + 3_600 * SECOND))
    send(writer, 1, score(1))
    send(writer, 2, b"garbage")
    writer.flush()
    assert lake.scan(SHADOW_SCORES).collect()["prediction_id"].to_list() == ["p1"]
    letters = lake.scan(DEAD_LETTERS).sort("_offset").select("_offset", "reason", "ts").collect()
    assert letters.rows() == [
        (0, "future_timestamp", NOW_MS * 1_000 + 3_600 * SECOND),
        (2, "malformed", None),
    ]
    assert letters.schema["ts"] == pl.Int64
