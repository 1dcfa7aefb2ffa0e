"""What people report changes what the next training learns: API → Kafka → Delta → gold/labels."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from aegisops import bus
from aegisops.embedded.broker import InMemoryBroker
from aegisops.lake import Lake
from aegisops.machines import load_class
from aegisops.names import FEEDBACK_TOPIC, PARTITIONS
from aegisops.quality import Limits
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.schemas.tables import FEATURES, FEEDBACK, LABELS, MACHINES
from aegisops.settings import KafkaSettings, RegistrySettings, Settings
from aegisops_assets.steps import labels
from aegisops_assets.steps.platform import Platform
from streaming.fleet import Fleet as KnownFleet
from streaming.lake_metrics import LakeMetrics
from streaming.lake_sink import LakeSink
from tests.serving.conftest import Fleet, running

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

SPINDLE = load_class("cnc_spindle")
HOURS = 72
END = datetime.now(UTC).replace(microsecond=0)
BEGIN = END - timedelta(hours=HOURS)
MACHINES_ = ("prevented", "false-alarm", "sensor-fault", "confirmed", "untold")


@pytest.fixture
def settings(settings: Settings, schema_registry: str) -> Iterator[Settings]:
    with InMemoryBroker() as broker:
        broker.create_topic(FEEDBACK_TOPIC, PARTITIONS)
        yield settings.model_copy(
            update={
                "kafka": KafkaSettings(bootstrap=broker.bootstrap, cluster_id=broker.incarnation),
                "registry": RegistrySettings(url=schema_registry),
            }
        )


def fill(lake: Lake) -> None:
    lake.append(
        MACHINES,
        pl.DataFrame(
            {
                "machine_id": MACHINES_,
                "machine_class": "cnc_spindle",
                "site": "S",
                "area": "A",
                "attributes": "{}",
                "registered_at": BEGIN,
            }
        ),
    )
    times = [BEGIN + timedelta(minutes=10 * i) for i in range(HOURS * 6 + 1)]
    rows = pl.DataFrame({"ts": times}).join(pl.DataFrame({"machine_id": MACHINES_}), how="cross")
    lake.append(
        FEATURES,
        rows.with_columns(
            machine_class=pl.lit("cnc_spindle"),
            feature_set=pl.lit(SPINDLE.feature_set),
            vector=pl.lit([0.0] * len(SPINDLE.vector)),
            coverage=1.0,
        ),
    )


def to_delta(settings: Settings, lake: Lake) -> None:
    """What the lake writer does with what Kafka has."""
    with SchemaRegistry(settings) as registry:
        sink = LakeSink(
            lake,
            fleet=KnownFleet(lake, {"cnc_spindle": SPINDLE}),
            decoder=partial(avro.decode_many, writer_schema=registry.schema),
            limits=Limits(max_future_us=300_000_000, max_past_us=30 * 86_400_000_000),
            incarnations={FEEDBACK_TOPIC: settings.kafka.cluster_id},
            metrics=LakeMetrics(),
        )
        sink.setup()
        for offset, payload in enumerate(bus.tail(settings.kafka, FEEDBACK_TOPIC, 0)):
            sink.add(payload, b"", 0, [], FEEDBACK_TOPIC, 0, offset)
        sink.flush()


def labelled(settings: Settings, lake: Lake, machine_id: str) -> pl.DataFrame:
    """hour (since BEGIN), label and provenance of a machine's rows, labelled anew."""
    labels.build(Platform.of(settings))
    rows = lake.scan(LABELS).filter(pl.col("machine_id") == machine_id).sort("ts").collect()
    hour = (rows["ts"].dt.timestamp("us") - round(BEGIN.timestamp() * 1e6)) / 3.6e9
    return rows.select(hour.alias("hour"), "label", "provenance")


def of(rows: pl.DataFrame, provenance: str) -> list[tuple[float, float, int | None]]:
    """First hour, last hour and label of the rows with a provenance."""
    found = rows.filter(pl.col("provenance") == provenance)
    if found.is_empty():
        return []
    (label,) = found["label"].unique().to_list()
    return [(found["hour"].min(), found["hour"].max(), label)]


async def test_reports_change_the_labels_of_the_next_training(
    settings: Settings, fleet: Fleet, tmp_path: Path
):
    lake = Lake(settings.lake_root)
    fill(lake)
    for machine_id in MACHINES_:
        fleet.add(machine_id)
    before = {m: labelled(settings, lake, m) for m in MACHINES_}
    for rows in before.values():
        assert of(rows, "survived") == [(0.0, 48.0, 0)]
        assert of(rows, "end_of_data")[0][2] is None
    told = {"prevented": 40, "false-alarm": 60, "sensor-fault": 30, "confirmed": 40}
    async with running(settings, kafka=True) as api:
        for machine_id, hour in told.items():
            report = {
                "machine_id": machine_id,
                "outcome": machine_id.replace("-", "_"),
                "at": (BEGIN + timedelta(hours=hour)).isoformat(),
                "failure_mode": "bearing_wear" if machine_id == "confirmed" else None,
                "idempotency_key": f"order-{machine_id}",
            }
            for _ in range(2):  # a repeat changes nothing
                answer = await api.client.post("/api/v1/feedback", json=report)
                assert answer.status_code == 202, answer.text
        await api.until(lambda: api.outbox.depth == 0)
    to_delta(settings, lake)
    assert lake.scan(FEEDBACK).collect().height == len(told)
    after = {m: labelled(settings, lake, m) for m in MACHINES_}

    # Prevented: neither positive nor negative where the failure would have been.
    assert of(after["prevented"], "prevented") == [(16.0, 40.0, None)]
    # False alarm: a negative where the record alone left it open.
    rows = after["false-alarm"].filter(pl.col("provenance") == "false_alarm")
    assert rows["label"].unique().to_list() == [0]
    assert rows["hour"].min() > 48.0
    assert rows["hour"].max() == 60.0
    # Sensor fault: the rows whose windows hold the faulty values are gone.
    assert of(after["sensor-fault"], "sensor_fault") == [(29.0, 31.0, None)]
    # Confirmed: a positive.
    (first, last, label) = of(after["confirmed"], "confirmed")[0]
    assert (first, label) == (16.0, 1)
    assert last < 40.0
    # Nobody said anything: nothing changes.
    assert after["untold"].equals(before["untold"])
