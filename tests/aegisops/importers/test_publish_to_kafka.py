"""Publication to a real (in-memory) broker, with a consumer that moves only while awaited."""

import uuid

import polars as pl
import pytest
from confluent_kafka import Consumer

from aegisops.bus import Publisher, client_options, lag
from aegisops.importers import ConsumerGroups, load, publish
from aegisops.lake import Lake
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC
from aegisops.schemas import avro
from tests.aegisops.importers import import_files
from tests.aegisops.importers.import_files import folder

pytestmark = pytest.mark.integration
NOW = 1_767_400_000_000_000


class Reader:
    """A consumer group of one that reads and commits a few messages at a time."""

    def __init__(self, settings):
        self.group = f"reader-{uuid.uuid4().hex}"
        self.payloads = {READINGS_TOPIC: [], EVENTS_TOPIC: []}
        self.looks = 0
        self._consumer = Consumer(
            {
                **client_options(settings.kafka),
                "group.id": self.group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self._consumer.subscribe(list(self.payloads))

    def take(self, _seconds):
        self.looks += 1
        messages = self._consumer.consume(200, timeout=0.2)
        for message in messages:
            assert message.error() is None
            self.payloads[message.topic()].append(message.value())
        if messages:
            self._consumer.commit(asynchronous=False)

    def decoded(self, topic):
        rows, failures = avro.decode_many(
            topic, self.payloads[topic], lambda _: avro.contract(topic).text
        )
        assert not failures
        return rows.filter(pl.col("machine_id").str.starts_with("pump-of-import-"))

    def close(self):
        self._consumer.close()


@pytest.fixture
def reader(settings):
    reader = Reader(settings)
    yield reader
    reader.close()


def test_every_reading_arrives_once_though_the_broker_may_hold_little(settings, reader, tmp_path):
    lines = [
        f"{1_767_300_000 + 60 * minute},{machine},{20 + minute % 7},{3 + minute / 1000}"
        for minute in range(600)
        for machine in "AB"
    ]
    mapping = import_files.MAPPING.replace(
        'column = "pump"', 'column = "pump"\nformat = "pump-of-import-{}"'
    ).replace('timezone = "UTC"', 'format = "unix_s"')
    files = folder(
        tmp_path / "in",
        mapping=mapping,
        readings="when,pump,temp_f,p\n" + "\n".join(lines) + "\n",
        failures="when,pump,mode\n1767300090,A,seal\n",
    )
    imported = load(files)
    with Publisher(settings) as publisher:
        published = publish(
            publisher,
            Lake(settings.lake_root),
            imported,
            now_us=NOW,
            stream=settings.stream,
            consumers=ConsumerGroups(settings.kafka, (reader.group,)),
            most_bytes=8_000,
            sleep=reader.take,
        )
    assert published.readings == 2_400
    assert reader.looks > 2, "it waited for the reader between the chunks"
    assert sum(lag(settings.kafka, reader.group, READINGS_TOPIC).values()) == 0
    blocks = reader.decoded(READINGS_TOPIC).explode("blocks").unnest("blocks")
    at = pl.int_ranges(pl.col("values").list.len())
    found = (
        blocks.with_columns(i=at)
        .explode("values", "i")
        .select(
            "machine_id",
            "channel",
            ts=pl.col("start_us") + pl.col("i") * pl.col("period_us").fill_null(0),
            value="values",
        )
    )
    wanted = imported.readings.select(
        pl.col("machine_id", "channel").cast(pl.String), "ts", "value"
    )
    order = ["machine_id", "channel", "ts"]
    assert found.sort(order).equals(wanted.sort(order))
    (event,) = reader.decoded(EVENTS_TOPIC).to_dicts()
    assert (event["ts"], event["type"], event["code"]) == (1_767_300_090_000_000, "failure", "seal")
