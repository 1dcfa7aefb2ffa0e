"""The gateway as a process between a real broker or server of a plant and Kafka, under fire."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from aegisops import bus, names
from aegisops.cli.runs import as_environment
from aegisops.embedded.broker import InMemoryBroker
from aegisops.embedded.ports import free_port
from aegisops.names import READINGS_TOPIC, REFUSALS_TOPIC
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.settings import KafkaSettings, Settings
from aegisops.simulator.plant import mapping_path
from tests.streaming.mosquitto import Mosquitto

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
PATIENCE = 90.0
BROKER_LINES = ("allow_anonymous true", "max_packet_size 1000000")
FLOOD_SECONDS, FLOOD_RATE, FLOOD_MACHINES = 4, 2_000, 50
"""Ten times a plant of 200 machines; `make test-faults` floods for 60 s."""
MOST_MEMORY_MB = 400


class InMemory:
    """The in-memory broker, which can be away."""

    def __init__(self):
        self.broker = InMemoryBroker().start()
        for topic in names.TOPICS:
            self.broker.create_topic(topic, names.PARTITIONS)
        self.settings = KafkaSettings(
            bootstrap=self.broker.bootstrap, cluster_id=self.broker.incarnation
        )
        self.down, self.up = self.broker.set_down, self.broker.set_up


class Real:
    """A real node, which can be killed and started again."""

    def __init__(self, server, settings):
        self.settings, self.down, self.up = settings, server.kill, server.start


@pytest.fixture(params=["in_memory", "real"])
def kafka(request):
    if request.param == "real":
        settings = request.getfixturevalue("real_kafka")
        yield Real(request.getfixturevalue("kafka_server"), settings)
        return
    memory = InMemory()
    yield memory
    memory.broker.close()


@pytest.fixture
def in_memory():
    memory = InMemory()
    yield memory
    memory.broker.close()


class Gateway:
    """A gateway process over one mosquitto, and what Kafka has of it."""

    def __init__(self, folder, kafka, registry, broker, machines, **options):
        self.health = free_port()
        self.settings = Settings(
            data_dir=folder / "data",
            kafka=kafka.settings,
            registry={"url": registry},
            gateway={"mapping": folder / "mapping.toml", "metrics_port": self.health, **options},
        )
        self.log_path = folder / "gateway.log"
        self.process = None
        (folder / "mapping.toml").write_text(
            f"""
            gateway = "g"
            [[mqtt]]
            name = "broker"
            host = "127.0.0.1"
            port = {broker.port}
            tls = false
            receive_maximum = 1000
            [[mqtt.machines]]
            class = "cnc_spindle"
            ids = {json.dumps(machines)}
            [mqtt.machines.channels]
            power = {{ topic = "plant/{{machine}}/power", unit = "kW" }}
            """
        )

    def start(self, *, ready=True):
        environment = os.environ | as_environment(self.settings)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streaming.gateway"], env=environment, stderr=log
            )
        if ready:
            self.until("ready", self.is_ready)
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Exit code after SIGTERM, and how long that took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), time.monotonic() - begun

    def until(self, what, condition, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (
                f"never: {what}\n{self.log_path.read_text()[-3000:]}"
            )
            assert self.process.poll() is None, self.log_path.read_text()[-3000:]
            time.sleep(0.05)

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=5) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def is_ready(self):
        return self.ask("/readyz")[0] == 200

    def metric(self, name):
        for line in self.ask("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return None

    def records(self, topic=READINGS_TOPIC):
        """Everything in the topic, partition by partition, in order."""
        marks = bus.watermarks(self.settings.kafka, topic)
        consumer = bus.consumer(self.settings.kafka, f"test-{time.time_ns()}")
        from confluent_kafka import TopicPartition

        consumer.assign([TopicPartition(topic, p, low) for p, (low, _) in marks.items()])
        left, raw = sum(high - low for low, high in marks.values()), []
        deadline = time.monotonic() + 60
        while left > len(raw) and time.monotonic() < deadline:
            raw += [m.value() for m in consumer.consume(1_000, 0.5) if m.error() is None]
        consumer.close()
        with SchemaRegistry(self.settings) as registry:
            frame, failures = avro.decode_many(topic, raw, registry.schema)
        assert failures == []
        return frame.to_dicts()

    def values(self):
        """machine → its values, in Kafka's order."""
        found = {}
        for record in self.records():
            values = [v for block in record["blocks"] for v in block["values"]]
            found.setdefault(record["machine_id"], []).extend(values)
        return found


class Device:
    """Publishes numbered values and waits until the broker has them."""

    def __init__(self, broker, machines):
        self.machines, self.sent = machines, 0
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.max_inflight_messages_set(1_000)
        self.client.max_queued_messages_set(0)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def send(self, count, payload=None):
        for _ in range(count):
            for machine in self.machines:
                text = str(self.sent) if payload is None else payload
                info = self.client.publish(f"plant/{machine}/power", text, qos=1)
            self.sent += payload is None
        info.wait_for_publish(30)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def plant(tmp_path):
    with Mosquitto(tmp_path / "broker", *BROKER_LINES) as broker:
        yield broker


@pytest.fixture
def device(plant):
    device = Device(plant, [f"m-{i}" for i in range(6)])
    yield device
    device.close()


@pytest.fixture(autouse=True)
def no_process_left():
    yield
    for child in psutil.Process().children(recursive=True):
        if "streaming.gateway" in child.cmdline():
            child.kill()


def test_kills_lose_nothing_and_keep_the_order(tmp_path, kafka, schema_registry, plant, device):
    gateway = Gateway(tmp_path, kafka, schema_registry, plant, device.machines)
    gateway.start()
    for _ in range(3):
        device.send(40)
        gateway.kill()  # some are in the spool, some in flight, some not acknowledged
        device.send(5)
        gateway.start()
    device.send(20)
    wanted = set(map(float, range(device.sent)))
    gateway.until(
        "everything in Kafka",
        lambda: all(set(gateway.values().get(m, ())) == wanted for m in device.machines),
    )
    code, seconds = gateway.stop()
    assert (code, seconds < 30) == (0, True)
    for values in gateway.values().values():
        first = list(dict.fromkeys(values))
        assert first == sorted(first)


def test_while_kafka_is_away_the_spool_grows_and_then_drains(
    tmp_path, kafka, schema_registry, plant, device, request
):
    gateway = Gateway(tmp_path, kafka, schema_registry, plant, device.machines)
    gateway.start()
    device.send(10)
    gateway.until("the first in Kafka", lambda: len(gateway.values()) == len(device.machines))
    kafka.down()
    try:
        device.send(50)
        gateway.until("a full spool", lambda: gateway.metric("aegis_gateway_spool_messages") > 5)
        time.sleep(request.config.getoption("--outage"))
        assert gateway.metric("aegis_gateway_spool_age_seconds") > 1
        gateway.kill()  # and the power fails, too
        gateway.start(ready=False)
        device.send(10)
    finally:
        kafka.up()
    gateway.until("an empty spool", lambda: gateway.metric("aegis_gateway_spool_messages") == 0)
    wanted = set(map(float, range(device.sent)))
    gateway.until(
        "everything in Kafka",
        lambda: all(set(gateway.values().get(m, ())) == wanted for m in device.machines),
    )
    assert gateway.stop()[0] == 0


def test_without_faults_nothing_is_twice_and_what_is_broken_is_told(
    tmp_path, in_memory, schema_registry, plant, device
):
    gateway = Gateway(tmp_path, in_memory, schema_registry, plant, device.machines).start()
    device.send(30)
    device.send(1, payload="{broken")
    device.send(1)
    gateway.until("refusals", lambda: len(gateway.records(REFUSALS_TOPIC)) == 6)
    gateway.until("readings", lambda: all(len(v) == 31 for v in gateway.values().values()))
    assert gateway.stop()[0] == 0
    assert set(map(tuple, gateway.values().values())) == {tuple(map(float, range(31)))}
    assert {r["payload"] for r in gateway.records(REFUSALS_TOPIC)} == {b"{broken"}
    assert {r["gateway"] for r in gateway.records(REFUSALS_TOPIC)} == {"g"}


def test_a_flood_costs_bounded_memory_and_loses_nothing(
    tmp_path, in_memory, schema_registry, plant, request
):
    long = request.config.getoption("--outage") > 30
    seconds, rate = (60 if long else FLOOD_SECONDS), FLOOD_RATE
    machines = [f"m-{i}" for i in range(FLOOD_MACHINES)]
    gateway = Gateway(tmp_path, in_memory, schema_registry, plant, machines).start()
    device = Device(plant, machines)
    watched = psutil.Process(gateway.process.pid)
    most = before = watched.memory_info().rss
    stop = threading.Event()

    def watch():
        nonlocal most
        while not stop.wait(0.1):
            most = max(most, watched.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.monotonic()
    for n in range(seconds * rate // FLOOD_MACHINES):
        device.send(1)
        time.sleep(max(0.0, begun + n * FLOOD_MACHINES / rate - time.monotonic()))
    total = device.sent * len(machines)
    name = 'aegis_gateway_items_total{source="broker"}'
    gateway.until("everything taken", lambda: gateway.metric(name) >= total)
    gateway.until("spool empty", lambda: gateway.metric("aegis_gateway_spool_messages") == 0)
    stop.set()
    watcher.join()
    device.close()
    assert gateway.stop()[0] == 0
    assert (most - before) / 1e6 < 100
    assert most / 1e6 < MOST_MEMORY_MB


def test_a_full_spool_holds_the_broker_back_and_memory_stays(
    tmp_path, in_memory, schema_registry, plant, device
):
    gateway = Gateway(
        tmp_path, in_memory, schema_registry, plant, device.machines, spool_max_bytes=20_000
    ).start()
    in_memory.down()
    device.send(900)
    gateway.until("not ready", lambda: "is full" in gateway.ask("/readyz")[1])
    assert gateway.ask("/livez")[0] == 200
    assert gateway.metric("aegis_gateway_spool_bytes") < 20_000 + 400_000  # one batch more
    in_memory.up()
    wanted = set(map(float, range(device.sent)))
    gateway.until(
        "everything in Kafka",
        lambda: all(set(gateway.values().get(m, ())) == wanted for m in device.machines),
    )
    assert gateway.stop()[0] == 0


def test_a_mapping_that_is_wrong_ends_with_2_and_says_why(
    tmp_path, in_memory, schema_registry, plant
):
    gateway = Gateway(tmp_path, in_memory, schema_registry, plant, ["m"])
    path = gateway.settings.gateway.mapping
    path.write_text(path.read_text().replace('"kW"', '"bar"'))
    gateway.start(ready=False)
    assert gateway.process.wait(60) == 2
    assert "'bar' is a pressure" in gateway.log_path.read_text()


def test_the_simulated_plant_reaches_kafka_over_opc_ua(tmp_path, in_memory, schema_registry, plant):
    gateway = Gateway(tmp_path, in_memory, schema_registry, plant, ["m"])
    gateway.settings = gateway.settings.model_copy(
        update={
            "gateway": gateway.settings.gateway.model_copy(
                update={"mapping": mapping_path(gateway.settings.data_dir)}
            )
        }
    )
    end = (datetime.now(UTC) - timedelta(minutes=12)).isoformat()
    command = [sys.executable, "-m", "aegisops.simulator.live", "--history-end", end]
    command += ["--history-days", "1", "--machines", "2", "--speed", "0"]
    command += ["--opcua", f"127.0.0.1:{free_port()}"]
    environment = os.environ | as_environment(gateway.settings)
    with (tmp_path / "simulator.log").open("wb") as log:
        simulator = subprocess.Popen(command, env=environment, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not gateway.settings.gateway.mapping.exists():
            assert simulator.poll() is None, (tmp_path / "simulator.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        gateway.start()
        gateway.until("readings", lambda: sum(map(len, gateway.values().values())) >= 2 * 11 * 34)
        simulator.send_signal(signal.SIGTERM)
        assert simulator.wait(30) == 0
        assert gateway.stop()[0] == 0
    finally:
        simulator.kill()
    readings = gateway.records()
    assert {r["machine_id"] for r in readings} == {"spindle-001", "spindle-002"}
    blocks = [b for r in readings for b in r["blocks"]]
    assert {b["channel"] for b in blocks} == {"vibration", "temperature", "power", "cycles"}
    per_channel = [sum(b["channel"] == c for b in blocks) for c in ("power", "cycles")]
    assert per_channel[0] == per_channel[1]  # an idle counter is a reading all the same
    assert gateway.records(REFUSALS_TOPIC) == []
