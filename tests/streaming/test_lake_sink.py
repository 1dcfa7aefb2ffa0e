from __future__ import annotations

import math
from datetime import UTC, datetime

import polars as pl
import pytest
from deltalake.exceptions import CommitFailedError
from quixstreams.sinks.base import SinkBackpressureError

from aegisops import names
from aegisops.errors import ServiceUnavailable
from aegisops.lake import Lake
from aegisops.machines import shipped_classes
from aegisops.names import Reason
from aegisops.quality import Limits
from aegisops.schemas.tables import DEAD_LETTERS, EVENTS, MACHINES, READINGS, WAVEFORMS
from streaming.breaker import LEAST_RECORDS
from streaming.fleet import Fleet
from streaming.identity import TopicRecreated
from streaming.lake_metrics import LakeMetrics
from streaming.lake_sink import LakeSink
from streaming.offsets import app_id, settled

NOW_MS = 1_790_000_000_000
NOW = NOW_MS * 1_000
SECOND = 1_000_000
LIMITS = Limits(max_future_us=300 * SECOND, max_past_us=3_650 * 86_400 * SECOND)
TOPICS = (names.READINGS_TOPIC, names.EVENTS_TOPIC, names.REFUSALS_TOPIC)


def register(lake, *machines):
    lake.append(
        MACHINES,
        pl.DataFrame(
            {
                "machine_id": machines,
                "machine_class": "cnc_spindle",
                "site": "",
                "area": "",
                "attributes": "{}",
                "registered_at": datetime(2026, 1, 1, tzinfo=UTC),
            }
        ),
    )


class Store:
    """A lake, and the sinks that come and go on it."""

    def __init__(self, root, encode, decoder):
        self.lake = Lake(root)
        self.encode = encode
        self.decoder = decoder
        register(self.lake, "m-1", "m-2")

    def sink(self, incarnation="c1", recheck_seconds=0.0, lake=None, **options):
        sink = LakeSink(
            lake or self.lake,
            fleet=Fleet(self.lake, shipped_classes(), recheck_seconds=recheck_seconds),
            decoder=self.decoder,
            limits=LIMITS,
            incarnations=dict.fromkeys(TOPICS, incarnation),
            metrics=LakeMetrics(),
            clock=lambda: NOW_MS / 1_000,
            **options,
        )
        sink.setup()
        return sink

    def rows(self, table):
        return self.lake.scan(table).collect()

    def values(self):
        return sorted(self.rows(READINGS)["value"].to_list())

    def duplicates(self):
        """Rows that share (topic, partition, offset, index) with another row of their table."""
        key = ["_topic", "_partition", "_offset", "_index"]
        return sum(self.rows(t).select(key).is_duplicated().sum() for t in (READINGS, WAVEFORMS))

    def reading(self, *blocks, machine="m-1", seq=0):
        record = {"machine_id": machine, "seq": seq, "sent_at": NOW, "blocks": list(blocks)}
        return self.encode(names.READINGS_TOPIC, record)


def block(channel, *values, start=NOW, period=None, quality=0):
    return {
        "channel": channel,
        "start_us": start,
        "period_us": period,
        "quality": quality,
        "values": list(values),
    }


def send(sink, offset, payload, partition=0, topic=names.READINGS_TOPIC):
    sink.add(payload, b"", NOW_MS, [], topic, partition, offset)


def fill(sink, store, offsets, partition=0):
    for offset in offsets:
        send(sink, offset, store.reading(block("power", offset % 100)), partition)


@pytest.fixture
def store(tmp_path, wire):
    return Store(tmp_path / "lake", *wire)


def test_each_kind_of_record_reaches_its_table_with_its_place_of_origin(store):
    sink = store.sink()
    capture = block("vibration", 0.5, -0.5)
    send(sink, 7, store.reading(block("power", 1.0), capture, block("temperature", 20.0)), 3)
    event = {"machine_id": "m-1", "ts": NOW, "type": "maintenance", "code": "x", "detail": "d"}
    send(sink, 2, store.encode(names.EVENTS_TOPIC, event), topic=names.EVENTS_TOPIC)
    sink.flush()
    origin = ("_topic", "_partition", "_offset", "_index")
    readings = store.rows(READINGS).sort("_index")
    assert readings.select("channel", "value", "quality", *origin).rows() == [
        ("power", 1.0, 0, "aegis.readings.v1@c1", 3, 7, 0),
        ("temperature", 20.0, 0, "aegis.readings.v1@c1", 3, 7, 3),
    ]
    assert store.rows(WAVEFORMS).select("values", "period_us", *origin).rows() == [
        ([0.5, -0.5], 1_000, "aegis.readings.v1@c1", 3, 7, 1)
    ]
    happened = store.rows(EVENTS).row(0, named=True)
    assert (happened["type"], happened["code"], happened["detail"]) == ("maintenance", "x", "d")
    assert happened["ts"] == datetime.fromtimestamp(NOW_MS / 1_000, UTC)


def test_bad_readings_and_messages_become_dead_letters_and_nothing_else_is_lost(store):
    sink = store.sink()
    good = block("power", 1.0)
    payloads = [
        store.reading(good, block("colour", 1.0), block("temperature", math.nan)),
        b"garbage",
        store.reading(good, machine="ghost"),
        store.reading(good, block("power", 500.0), block("cycles", -3.0)),
        b"\x00\x00\x00\xff\xff" + store.reading(good)[5:],
        store.reading(good)[:-3],
        store.reading(good, block("power", 2.0, start=NOW + 3_600 * SECOND)),
        store.reading(good, block("power", 2.0, start=0)),
    ]
    for offset, payload in enumerate(payloads):
        send(sink, offset, payload)
    for offset, kind in enumerate(("maintenance", "party")):
        event = {"machine_id": "m-1", "ts": NOW, "type": kind, "code": "", "detail": ""}
        send(sink, offset, store.encode(names.EVENTS_TOPIC, event), topic=names.EVENTS_TOPIC)
    sink.flush()
    letters = store.rows(DEAD_LETTERS).sort("_topic", "_offset", "_index")
    assert letters.select("_offset", "_index", "reason").rows() == [
        (1, 0, Reason.UNKNOWN_VOCABULARY),
        (0, 1, Reason.UNKNOWN_CHANNEL),
        (0, 2, Reason.NOT_FINITE),
        (1, 0, Reason.MALFORMED),
        (2, 0, Reason.UNKNOWN_MACHINE),
        (3, 1, Reason.OUT_OF_RANGE),
        (3, 2, Reason.NEGATIVE_COUNTER),
        (4, 0, Reason.UNKNOWN_SCHEMA),
        (5, 0, Reason.MALFORMED),
        (6, 1, Reason.FUTURE_TIMESTAMP),
        (7, 1, Reason.ANCIENT_TIMESTAMP),
    ]
    assert letters["detail"].null_count() == 0
    raw = letters.filter(pl.col("_offset") == 3)["raw"].to_list()
    assert raw == [payloads[3]] * 2
    assert store.values() == [1.0] * 4
    assert store.rows(EVENTS).height == 1
    assert sink._metrics.dead_letters.labels("unknown_channel")._value.get() == 1


def test_a_flush_is_one_commit_for_all_partitions(store):
    sink = store.sink()
    for partition in range(4):
        fill(sink, store, range(10), partition)
    before = store.lake.version(READINGS)
    sink.flush()
    assert before == -1
    assert store.lake.version(READINGS) == 1  # 0 made the table
    assert store.rows(READINGS).height == 40


def test_a_crash_between_the_commit_and_the_kafka_offset_writes_nothing_twice(store):
    sink = store.sink()
    fill(sink, store, range(10))
    sink.flush()
    reborn = store.sink()
    fill(reborn, store, range(15))
    reborn.flush()
    assert store.values() == [float(x) for x in range(15)]
    assert store.duplicates() == 0
    assert reborn._metrics.skipped._value.get() == 10


class Crash(BaseException):
    """kill -9 as far as the lake can tell."""


class CrashingLake(Lake):
    """Dies right before the n-th commit."""

    def __init__(self, root, commits):
        super().__init__(root)
        self.left = commits

    def append(self, *args, **kwargs):
        if self.left == 0:
            raise Crash
        self.left -= 1
        return super().append(*args, **kwargs)


@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_a_crash_between_two_tables_commits_loses_and_repeats_nothing(store, commits):
    def feed(sink, messages):
        for offset in range(messages):
            blocks = block("power", offset), block("vibration", 1.0, 2.0), block("power", 999.0)
            send(sink, offset, store.reading(*blocks))

    sink = store.sink(lake=CrashingLake(store.lake.root, commits))
    feed(sink, 5)
    if commits < 3:
        with pytest.raises(Crash):
            sink.flush()
    else:
        sink.flush()
    for _ in range(2):
        reborn = store.sink()
        feed(reborn, 8)
        reborn.flush()
    assert store.values() == [float(x) for x in range(8)]
    assert store.rows(WAVEFORMS).height == 8
    assert store.rows(DEAD_LETTERS)["_index"].to_list() == [3] * 8
    assert store.duplicates() == 0


def test_a_replay_keeps_the_judgement_that_was_recorded_before_the_crash(store):
    def feed(sink):
        send(sink, 0, store.reading(block("power", 1.0), machine="new"))
        send(sink, 1, store.reading(block("power", 2.0), block("vibration", 1.0, 2.0)))

    sink = store.sink(lake=CrashingLake(store.lake.root, 1))
    feed(sink)
    with pytest.raises(Crash):
        sink.flush()
    register(store.lake, "new")  # the crash left a dead letter; now the machine is known
    reborn = store.sink()
    feed(reborn)
    send(reborn, 2, store.reading(block("power", 3.0), machine="new"))
    reborn.flush()
    assert store.rows(DEAD_LETTERS).select("_offset", "reason").rows() == [
        (0, Reason.UNKNOWN_MACHINE)
    ]
    assert store.values() == [2.0, 3.0]


def test_a_replay_does_not_reject_what_was_written_as_good_before_the_crash(store):
    def feed(sink):
        send(sink, 0, store.reading(block("cycles", 9_000.0), block("vibration", 1.0)))

    sink = store.sink(lake=CrashingLake(store.lake.root, 1))  # waveforms only
    feed(sink)
    with pytest.raises(Crash):
        sink.flush()
    reborn = store.sink()
    send(reborn, 0, store.reading(block("cycles", 10.0)), partition=1)
    reborn.flush()  # another level by now: 9,000 would be a jump
    feed(reborn)
    reborn.flush()
    assert store.rows(DEAD_LETTERS).is_empty()
    assert store.values() == [10.0, 9_000.0]


def test_offsets_that_go_backwards_replace_the_buffered_tail(store):
    sink = store.sink()
    fill(sink, store, range(10))
    fill(sink, store, range(4, 12))
    sink.flush()
    fill(sink, store, range(6, 14))
    sink.flush()
    assert store.values() == [float(x) for x in range(14)]
    assert store.duplicates() == 0


def test_a_second_writer_of_the_same_partition_adds_only_what_is_new(store):
    first, second = store.sink(), store.sink()
    fill(first, store, range(5))
    first.flush()
    fill(second, store, range(8))
    second.flush()
    fill(first, store, range(5, 10))  # the first one does not know of the second
    first.flush()
    assert store.values() == [float(x) for x in range(10)]


def test_a_writer_that_commits_between_anothers_check_and_commit_is_noticed(store):
    class Overtaken(Lake):
        overtaken = False

        def append(self, table, rows, transactions=None, handle=None):
            if table is READINGS and not self.overtaken:
                self.overtaken = True
                rival = store.sink()
                fill(rival, store, range(6))
                rival.flush()
            return super().append(table, rows, transactions, handle)

    sink = store.sink(lake=Overtaken(store.lake.root))
    fill(sink, store, range(4))
    sink.flush()
    assert store.values() == [float(x) for x in range(6)]
    assert sink._metrics.conflicts._value.get() == 1


def test_writers_of_different_partitions_do_not_disturb_each_other(store):
    one, two = store.sink(), store.sink()
    for begin in range(0, 30, 10):
        fill(one, store, range(begin, begin + 10), 0)
        fill(two, store, range(begin, begin + 10), 1)
        one.flush()
        two.flush()
    assert store.rows(READINGS).height == 60
    assert store.duplicates() == 0
    assert sink_conflicts(one, two) == 0


def sink_conflicts(*sinks):
    return sum(sink._metrics.conflicts._value.get() for sink in sinks)


def test_a_recreated_topic_starts_again_at_offset_zero_and_loses_nothing(store):
    for incarnation in ("c1/t1", "c1/t2"):
        sink = store.sink(incarnation)
        fill(sink, store, range(5))
        sink.flush()
    assert store.rows(READINGS).height == 10
    assert store.duplicates() == 0


def test_a_registry_outage_is_backpressure_and_never_a_dead_letter(store):
    decoder, store.decoder = store.decoder, None

    def away(topic, payloads):
        raise ServiceUnavailable("the schema registry does not answer")

    store.decoder = away
    sink = store.sink()
    fill(sink, store, range(3))
    with pytest.raises(SinkBackpressureError):
        sink.flush()
    sink._decoder = decoder
    fill(sink, store, range(3))  # Kafka sends them again
    sink.flush()
    assert store.rows(DEAD_LETTERS).is_empty()
    assert store.values() == [0.0, 1.0, 2.0]


def test_a_mostly_bad_flush_opens_the_circuit_and_nothing_is_lost_when_it_closes(store, caplog):
    sink = store.sink(max_bad_share=0.5)
    is_open = sink._metrics.circuit_open.labels(names.READINGS_TOPIC)._value.get
    for offset in range(LEAST_RECORDS):
        machine = "m-3" if offset % 3 else "m-1"  # m-3 is not registered yet
        send(sink, offset, store.reading(block("power", offset % 100), machine=machine))
    with pytest.raises(SinkBackpressureError):
        sink.flush()
    assert is_open() == 1
    assert "unknown_machine 133" in caplog.text
    assert "AEGIS_STREAM__MAX_BAD_SHARE=1" in caplog.text
    assert "TooManyBad" in sink._metrics.trouble
    assert store.rows(READINGS).height == store.rows(DEAD_LETTERS).height == 0

    register(store.lake, "m-3")  # put right: the same messages come again, and all are good
    for offset in range(LEAST_RECORDS):
        machine = "m-3" if offset % 3 else "m-1"
        send(sink, offset, store.reading(block("power", offset % 100), machine=machine))
    sink.flush()
    assert (is_open(), sink._metrics.trouble) == (0, "")
    assert store.values() == sorted(float(x % 100) for x in range(LEAST_RECORDS))
    assert store.rows(DEAD_LETTERS).is_empty()


def test_what_a_wide_open_circuit_lets_through_becomes_dead_letters(store):
    for share, letters in ((1.0, LEAST_RECORDS), (0.5, LEAST_RECORDS)):
        sink = store.sink(max_bad_share=share)
        for offset in range(LEAST_RECORDS):
            send(sink, offset, b"garbage")
        sink.flush()  # the second time everything is settled already
        assert store.rows(DEAD_LETTERS).height == letters


def test_a_few_bad_messages_alone_never_open_the_circuit(store):
    sink = store.sink(max_bad_share=0.0)
    for offset in range(LEAST_RECORDS - 1):
        send(sink, offset, b"garbage")
    sink.flush()
    assert store.rows(DEAD_LETTERS).height == LEAST_RECORDS - 1


def test_a_flush_interrupted_after_its_letters_is_finished_whatever_the_circuit_says(store):
    class Dying(Lake):
        def append(self, table, rows, transactions=None, handle=None):
            if table is READINGS:
                raise OSError("killed here")
            return super().append(table, rows, transactions, handle)

    sink = store.sink(max_bad_share=1.0, lake=Dying(store.lake.root))
    for offset in range(LEAST_RECORDS):
        send(sink, offset, b"garbage")
    with pytest.raises(SinkBackpressureError):
        sink.flush()
    assert store.rows(DEAD_LETTERS).height == LEAST_RECORDS
    sink = store.sink(max_bad_share=0.5)
    for offset in range(LEAST_RECORDS):
        send(sink, offset, b"garbage")
    sink.flush()
    assert store.rows(DEAD_LETTERS).height == LEAST_RECORDS


def test_a_topic_made_again_under_the_writer_ends_it_before_anything_is_written(store):
    def recreated():
        raise TopicRecreated("another id")

    sink = store.sink(check_topics=recreated)
    fill(sink, store, range(3))
    with pytest.raises(TopicRecreated):
        sink.flush()
    assert store.rows(READINGS).is_empty()


def test_a_store_that_is_away_is_backpressure(store):
    class Away(Lake):
        is_away = True

        def append(self, *args, **kwargs):
            if self.is_away:
                raise OSError("connection refused")
            return super().append(*args, **kwargs)

    lake = Away(store.lake.root)
    sink = store.sink(lake=lake)
    fill(sink, store, range(3))
    with pytest.raises(SinkBackpressureError):
        sink.flush()
    lake.is_away = False
    fill(sink, store, range(3))
    sink.flush()
    assert store.values() == [0.0, 1.0, 2.0]


def test_a_flush_of_only_bad_messages_settles_them(store):
    sink = store.sink()
    send(sink, 0, b"garbage")
    sink.flush()
    assert settled(store.lake, dict.fromkeys(TOPICS, "c1"), [(t, 0) for t in TOPICS]) == {
        (names.READINGS_TOPIC, 0): 0,
        (names.EVENTS_TOPIC, 0): -1,
        (names.REFUSALS_TOPIC, 0): -1,
    }
    reborn = store.sink()
    send(reborn, 0, b"garbage")
    reborn.flush()
    assert store.rows(DEAD_LETTERS).height == 1


def test_a_machine_registered_after_the_start_is_known_at_its_first_message(store):
    sink = store.sink()
    register(store.lake, "m-3")
    send(sink, 0, store.reading(block("power", 1.0), machine="m-3"))
    sink.flush()
    assert store.values() == [1.0]


def test_a_stale_handle_is_refused_by_delta_itself(store):
    # What the sink's check rests on; if delta-rs changes this, exactly once is gone.
    from deltalake import CommitProperties, Transaction, write_deltalake

    stale = store.lake.ensure(READINGS)
    name = app_id(READINGS, names.READINGS_TOPIC, "c1", 0)
    store.lake.append(READINGS, READINGS.schema.empty_table(), {name: 5})
    with pytest.raises(CommitFailedError):
        write_deltalake(
            stale,
            READINGS.schema.empty_table(),
            mode="append",
            commit_properties=CommitProperties(app_transactions=[Transaction(name, 5)]),
        )


def refusal(machine_id="", channel=""):
    return {
        "gateway": "hall-a",
        "source": "broker",
        "place": "plant/x",
        "reason": "unmapped",
        "detail": "no entry",
        "received_at": NOW,
        "machine_id": machine_id,
        "channel": channel,
        "payload": b"\x00\xff",
    }


def test_what_a_gateway_refused_is_a_dead_letter_once(store):
    topic = names.REFUSALS_TOPIC
    sink = store.sink()
    send(sink, 0, store.encode(topic, refusal()), topic=topic)
    send(sink, 1, store.encode(topic, refusal("m-1", "power")), topic=topic)
    send(sink, 2, b"nonsense", topic=topic)
    sink.flush()
    for _ in range(2):  # a restart, and the same messages again
        sink = store.sink()
        send(sink, 1, store.encode(topic, refusal("m-1", "power")), topic=topic)
        send(sink, 2, b"nonsense", topic=topic)
        sink.flush()
    letters = store.rows(DEAD_LETTERS).sort("_offset")
    assert letters["reason"].to_list() == ["unmapped", "unmapped", "malformed"]
    assert letters["machine_id"].to_list() == [None, "m-1", None]
    assert letters["channel"].to_list() == [None, "power", None]
    assert letters["detail"][0] == "hall-a/broker/plant/x: no entry"
    assert settled(store.lake, sink._ledger._incarnations, [(topic, 0)]) == {(topic, 0): 2}
