"""Refused, put right, sent again: over the real broker, registry, lake sink and Delta tables."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime
from functools import partial

import polars as pl
import pytest
from confluent_kafka import TopicPartition
from typer.testing import CliRunner

from aegisops import bus, dead_letter_replay, dead_letters, names
from aegisops.bus import Producer
from aegisops.cli import app
from aegisops.errors import Conflict
from aegisops.lake import Lake
from aegisops.machines import shipped_classes
from aegisops.names import READINGS_TOPIC
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.schemas.tables import DEAD_LETTERS, MACHINES, READINGS, REPLAYS, WAVEFORMS
from streaming.fleet import Fleet
from streaming.lake_metrics import LakeMetrics
from streaming.lake_sink import LakeSink
from tests.streaming.conftest import LIMITS

pytestmark = pytest.mark.integration

NOW = round(time.time()) * 1_000_000


def block(channel, *values, period=None):
    return {
        "channel": channel,
        "start_us": NOW,
        "period_us": period,
        "quality": 0,
        "values": list(values),
    }


def with_channel(name):
    """The spindle after someone has declared one channel more."""
    spindle = shipped_classes()["cnc_spindle"]
    power = spindle.channels["power"]
    channels = {**spindle.channels, name: power}
    return {"cnc_spindle": spindle.model_copy(update={"channels": channels})}


class Plant:
    """Senders, broker, lake writer and command line of one small plant."""

    def __init__(self, settings):
        self.settings = settings
        self.lake = Lake(settings.lake_root)
        self.producer = Producer(settings.kafka)
        self.registry = SchemaRegistry(settings)
        self.id = self.registry.register(
            names.subject(READINGS_TOPIC), avro.contract(READINGS_TOPIC).text
        )
        self.next = {p: high for p, (_, high) in self.ends().items()}
        self.classes = shipped_classes()
        self.headers = []

    def ends(self):
        return bus.watermarks(self.settings.kafka, READINGS_TOPIC)

    def register(self, machine):
        row = {
            "machine_id": machine,
            "machine_class": "cnc_spindle",
            "site": "",
            "area": "",
            "attributes": "{}",
            "registered_at": datetime.now(UTC),
        }
        self.lake.append(MACHINES, pl.DataFrame([row]))

    def read(self, machine, *blocks):
        record = {"machine_id": machine, "seq": 0, "sent_at": NOW, "blocks": list(blocks)}
        self.send(avro.encode(READINGS_TOPIC, record, self.id), machine)

    def send(self, payload, key="m-1"):
        self.producer.publish(READINGS_TOPIC, key, payload)
        self.producer.flush()

    def write_lake(self):
        """A lake writer that takes what is new in Kafka and ends."""
        sink = LakeSink(
            self.lake,
            fleet=Fleet(self.lake, self.classes, recheck_seconds=0.0),
            decoder=partial(avro.decode_many, writer_schema=self.registry.schema),
            limits=LIMITS,
            incarnations={READINGS_TOPIC: self.settings.kafka.cluster_id},
            metrics=LakeMetrics(),
        )
        sink.setup()
        ends = {p: high for p, (_, high) in self.ends().items() if high > self.next[p]}
        client = bus.consumer(self.settings.kafka, "plant")
        client.assign([TopicPartition(READINGS_TOPIC, p, self.next[p]) for p in ends])
        while any(self.next[p] < end for p, end in ends.items()):
            message = client.poll(10)
            assert message is not None
            assert message.error() is None
            sink.add(
                message.value(), message.key(), message.timestamp()[1], [], READINGS_TOPIC,
                message.partition(), message.offset(),
            )  # fmt: skip
            self.headers.append(dict(message.headers() or []))
            self.next[message.partition()] = message.offset() + 1
        client.close()
        sink.flush()

    def values(self, channel=None):
        rows = self.lake.scan(READINGS).collect()
        return sorted(rows.filter(pl.col("channel") == (channel or pl.col("channel")))["value"])

    def letters(self, **filters):
        return dead_letters.select(self.lake, **filters).collect()

    def replay(self, *arguments, code=0):
        return json.loads(self.run("replay", *arguments, "--json", code=code).stdout)

    def run(self, *arguments, code=0):
        result = CliRunner().invoke(app, ["dlq", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    def plan(self, **filters):
        turn = dead_letter_replay.turn(self.lake)
        return dead_letter_replay.plan(
            self.letters(**filters),
            turn,
            writer_schema=self.registry.schema,
            schema_id=lambda _: self.id,
            is_capture=dead_letter_replay.captures(self.lake, self.classes),
        )


@pytest.fixture
def plant(settings, monkeypatch):
    monkeypatch.setenv("AEGIS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("AEGIS_KAFKA__BOOTSTRAP", settings.kafka.bootstrap)
    monkeypatch.setenv("AEGIS_KAFKA__CLUSTER_ID", settings.kafka.cluster_id)
    monkeypatch.setenv("AEGIS_REGISTRY__URL", settings.registry.url)
    monkeypatch.setenv("COLUMNS", "250")
    plant = Plant(settings)
    plant.register("m-1")
    yield plant
    plant.registry.close()


def test_an_unknown_machine_registered_later_gets_its_readings_once_however_often_one_asks(plant):
    plant.read("ghost", block("power", 1.0), block("power", 2.0))
    plant.write_lake()
    assert plant.values() == []
    plant.register("ghost")
    assert plant.replay("--reason", "unknown_machine")["acknowledged"] == 1
    plant.write_lake()
    assert plant.values() == [1.0, 2.0]
    for _ in range(2):
        again = plant.replay("--reason", "unknown_machine")
        assert (again["acknowledged"], again["sent_before"]) == (0, 1)
        plant.write_lake()
    assert plant.values() == [1.0, 2.0]
    assert plant.letters().height == 1


def test_only_the_refused_readings_of_a_message_travel_again_and_say_where_they_come_from(plant):
    plant.read(
        "m-1",
        block("power", 1.0),
        block("vibration", 0.5, -0.5, 0.25, period=1_000),
        block("colour", 7.0, 8.0, period=1_000_000),
        block("temperature", math.nan),
    )
    plant.write_lake()
    place = plant.letters(reason="unknown_channel").sort("_index").row(0, named=True)
    plant.classes = with_channel("colour")
    assert plant.replay("--reason", "unknown_channel")["acknowledged"] == 2
    plant.write_lake()
    assert plant.values("power") == [1.0]
    assert plant.values("colour") == [7.0, 8.0]
    assert plant.lake.scan(WAVEFORMS).collect().height == 1
    assert sorted(plant.letters()["reason"]) == ["not_finite", "unknown_channel", "unknown_channel"]
    position = f"{place['_topic']}/{place['_partition']}/{place['_offset']}:4,5"
    assert plant.headers[-1][names.REPLAY_OF_HEADER].decode() == position


def test_a_refused_capture_travels_whole_and_a_value_beside_it_stays(plant):
    plant.read("m-1", block("power", 1.0), block("vibration", 0.5, math.inf, period=1_000))
    plant.write_lake()
    (message,) = plant.plan().messages
    record = dead_letters.decode(READINGS_TOPIC, message.value, plant.id, plant.registry.schema)
    (sent,) = record["blocks"]
    assert (sent["channel"], sent["values"]) == ("vibration", [0.5, math.inf])


def test_what_is_refused_again_has_a_letter_at_its_new_place_and_may_be_replayed_from_there(plant):
    plant.read("m-1", block("power", 1.0), block("colour", 7.0))
    plant.write_lake()
    plant.replay("--reason", "unknown_channel")
    plant.write_lake()
    states = plant.letters().sort("replayed")["replayed"].to_list()
    assert states == [None, "sent"]
    plant.classes = with_channel("colour")
    assert plant.replay("--reason", "unknown_channel")["acknowledged"] == 1
    plant.write_lake()
    assert (plant.values("power"), plant.values("colour")) == ([1.0], [7.0])


def test_what_still_cannot_be_read_is_not_sent(plant):
    plant.send(b"garbage")
    plant.read("m-1", block("colour", 7.0))
    plant.write_lake()
    result = plant.replay("--reason", "malformed", code=1)
    assert (result["messages"], len(result["unreadable"])) == (0, 1)
    assert plant.lake.scan(REPLAYS).collect().is_empty()


def test_messages_of_a_schema_registered_later_are_read_then(plant):
    text = avro.contract(READINGS_TOPIC).text
    newest = plant.registry.register("other-value", text.replace("A small batch", "One batch"))
    record = {"machine_id": "m-1", "seq": 0, "sent_at": NOW, "blocks": [block("power", 1.0)]}
    plant.send(avro.encode(READINGS_TOPIC, record, newest + 1))
    plant.write_lake()
    assert plant.replay("--reason", "unknown_schema", code=1)["messages"] == 0
    plant.registry.close()
    plant.registry = SchemaRegistry(plant.settings)
    later = text.replace("A small batch", "Some")
    assert plant.registry.register(names.subject(READINGS_TOPIC), later) == newest + 1
    assert plant.replay("--reason", "unknown_schema")["acknowledged"] == 1
    plant.write_lake()
    assert plant.values() == [1.0]


def test_a_counters_jump_sent_again_later_counts_as_late_and_is_taken(plant):
    for cycles, start in ((1.0, NOW - 20_000_000), (9e8, NOW - 10_000_000), (2.0, NOW)):
        plant.read("m-1", {**block("cycles", cycles), "start_us": start})
        plant.write_lake()
    assert plant.values() == [1.0, 2.0]
    assert plant.replay("--reason", "counter_jump")["acknowledged"] == 1
    plant.write_lake()
    assert plant.values() == [1.0, 2.0, 9e8]


def test_a_dry_run_sends_and_records_nothing(plant):
    plant.read("ghost", block("power", 1.0))
    plant.write_lake()
    before = plant.ends()
    result = plant.replay("--machine", "ghost", "--dry-run")
    assert (result["letters"], result["acknowledged"]) == (1, 0)
    assert plant.ends() == before
    assert plant.lake.scan(REPLAYS).collect().is_empty()


def test_a_replay_must_say_what_was_put_right(plant):
    assert "--reason" in plant.run("replay", code=2).output


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """A real producer whose process dies at one step."""

    def __init__(self, producer, step, at):
        self.producer = producer
        self.step = step
        self.left = at

    def publish(self, *arguments):
        if self.step == "publish":
            self.left -= 1
            if self.left < 0:
                self.producer.flush()  # what was queued before is on its way
                raise Killed
        self.producer.publish(*arguments)

    def poll(self, seconds=0.0):
        self.producer.poll(seconds)

    def flush(self, seconds=30.0):
        self.producer.flush(seconds)
        if self.step == "flush":
            raise Killed


@pytest.mark.parametrize(
    ("step", "at", "arrived"), [("publish", 0, 0), ("publish", 2, 2), ("flush", 0, 3)]
)
def test_a_killed_replay_is_never_repeated_by_itself_and_what_it_left_is_named(
    plant, step, at, arrived
):
    for value in (1.0, 2.0, 3.0):
        plant.read("ghost", block("power", value))
    plant.write_lake()
    plant.register("ghost")
    with pytest.raises(Killed):
        dead_letter_replay.send(
            plant.lake,
            plant.plan(),
            Mortal(plant.producer, step, at),
            clock=lambda: datetime.now(UTC),
        )
    result = plant.replay("--machine", "ghost", code=1)
    assert (result["acknowledged"], result["unconfirmed"]) == (0, 3)
    assert "--again" in plant.run("replay", "--machine", "ghost", code=1).output
    plant.write_lake()
    assert len(plant.values()) == arrived
    assert len(set(plant.values())) == arrived
    assert plant.replay("--machine", "ghost", "--again")["acknowledged"] == 3


def test_chunks_sent_before_a_kill_are_confirmed_and_those_after_it_still_to_do(plant, monkeypatch):
    monkeypatch.setattr(dead_letter_replay, "CHUNK", 1)
    for value in (1.0, 2.0, 3.0):
        plant.read("ghost", block("power", value))
    plant.write_lake()
    plant.register("ghost")
    with pytest.raises(Killed):
        dead_letter_replay.send(
            plant.lake,
            plant.plan(),
            Mortal(plant.producer, "publish", 1),
            clock=lambda: datetime.now(UTC),
        )
    result = plant.replay("--machine", "ghost", code=1)
    assert [result[k] for k in ("sent_before", "unconfirmed", "acknowledged")] == [1, 1, 1]
    plant.write_lake()
    assert plant.values() == [1.0, 3.0]


def test_of_two_replays_planned_on_the_same_state_one_sends_nothing(plant):
    plant.read("ghost", block("power", 1.0))
    plant.write_lake()
    plant.register("ghost")
    first, second = plant.plan(), plant.plan()
    clock = partial(datetime.now, UTC)
    assert dead_letter_replay.send(plant.lake, first, plant.producer, clock=clock) == 1
    with pytest.raises(Conflict):
        dead_letter_replay.send(plant.lake, second, plant.producer, clock=clock)
    plant.write_lake()
    assert plant.values() == [1.0]


def test_a_second_replay_that_commits_in_the_same_moment_is_refused_by_the_table(plant):
    plant.read("ghost", block("power", 1.0))
    plant.write_lake()
    planned = plant.plan()
    rows = planned.messages[0].letters.with_columns(
        replay_id=pl.lit("x"), state=pl.lit("intended"), recorded_at=pl.lit(datetime.now(UTC))
    )
    stale = plant.lake.ensure(REPLAYS)
    plant.lake.append(REPLAYS, rows, {names.OPS_REPLAYS: 1})
    with pytest.raises(Conflict):
        plant.lake.append(REPLAYS, rows, {names.OPS_REPLAYS: 1}, stale)


def test_letters_are_listed_by_reason_machine_and_time_with_what_became_of_them(plant):
    plant.read("ghost", block("power", 1.0))
    plant.read("m-1", block("colour", 7.0))
    plant.write_lake()
    plant.replay("--machine", "ghost")
    listed = json.loads(plant.run("list", "--json").stdout)
    assert listed["counts"] == {"unknown_machine": 1, "unknown_channel": 1}
    assert {r["machine_id"]: r["replayed"] for r in listed["newest"]} == {
        "ghost": "sent",
        "m-1": None,
    }
    assert json.loads(plant.run("list", "--machine", "m-1", "--json").stdout)["counts"] == {
        "unknown_channel": 1
    }
    later = datetime.fromtimestamp(time.time() + 60, UTC).isoformat()
    assert json.loads(plant.run("list", "--since", later, "--json").stdout)["counts"] == {}


def test_one_letter_is_shown_decoded_where_it_decodes_and_in_hex_where_not(plant):
    plant.read("m-1", block("power", 1.0), block("colour", 7.0))
    plant.send(b"garbage")
    plant.write_lake()
    places = {
        reason: f"{topic}/{partition}/{offset}"
        for reason, topic, partition, offset in plant.letters()
        .select("reason", "_topic", "_partition", "_offset")
        .iter_rows()
    }
    shown = json.loads(plant.run("show", places["unknown_channel"], "--json").stdout)
    assert [b["channel"] for b in shown["message"]["blocks"]] == ["power", "colour"]
    assert '"colour"' in plant.run("show", places["unknown_channel"]).stdout
    short = places["malformed"].replace(f"@{plant.settings.kafka.cluster_id}", "")
    assert b"garbage".hex(" ") in plant.run("show", short).stdout
    assert "no dead letter" in plant.run("show", f"{READINGS_TOPIC}/0/999999", code=2).output


def test_letters_of_an_import_cannot_be_sent_to_a_topic(plant):
    letter = {
        "reason": "duplicate", "detail": "twice", "machine_id": "m-1", "channel": "power", "ts": 1,
        "schema_id": None, "raw": b"row", "_topic": "import/x", "_partition": 0, "_offset": 5,
        "_index": 0, "_ingested_at": datetime.now(UTC),
    }  # fmt: skip
    plant.lake.append(DEAD_LETTERS, pl.DataFrame([letter]))
    result = plant.replay("import/x/0/5", code=1)
    assert "no Kafka topic" in result["unreadable"][0]["why"]
