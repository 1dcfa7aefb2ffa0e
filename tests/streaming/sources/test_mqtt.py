"""MQTT against Debian's mosquitto: TLS 1.3, client certificates, sessions, acknowledgements."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from aegisops.errors import ConfigurationError
from aegisops.machines import shipped_classes
from aegisops.names import Quality, Reason
from streaming.gateway_metrics import GatewayMetrics
from streaming.mapping import Mqtt, targets
from streaming.samples import Refusal, Sample
from streaming.sources.mqtt import MqttSource, tls_context
from streaming.sources.sparkplug_payload import DataType, payload_class
from tests.streaming.mosquitto import Mosquitto
from tests.streaming.sources.certificates import Authority

pytestmark = pytest.mark.integration
CHANNELS = {
    "power": {"topic": "plant/{machine}/power", "unit": "W"},
    "temperature": {"topic": "plant/{machine}/state", "field": "temp", "unit": "°C"},
    "cycles": {"topic": "plant/{machine}/state", "field": "count", "unit": "cycles"},
    "vibration": {"topic": "plant/{machine}/vib", "unit": "m/s²"},
}


class Sink:
    """Takes deliveries; holds the acknowledgements back when told to."""

    def __init__(self):
        self.items, self.held, self.is_holding = [], [], False
        self.lock = threading.Lock()

    def offer(self, delivery):
        with self.lock:
            self.items += delivery.items
            if self.is_holding:
                self.held.append(delivery)
                return
        delivery.done()

    @property
    def values(self):
        return [i.values[0] for i in self.items if isinstance(i, Sample) and i.values]

    def until(self, count, seconds=20.0):
        deadline = time.monotonic() + seconds
        while len(self.items) < count:
            assert time.monotonic() < deadline, self.items
            time.sleep(0.01)
        return self.items


def source_of(broker, sink, *, channels=CHANNELS, device=None, **more):
    declared = Mqtt.model_validate(
        {
            "name": "broker",
            "host": "127.0.0.1",
            "port": broker.port,
            "tls": False,
            "client_id": "gateway-under-test",
            "machines": [
                {"class": "cnc_spindle", "ids": ["m-1"], "channels": channels, "device": device}
            ],
            **more,
        }
    )
    return MqttSource(
        declared,
        targets(declared, shipped_classes()),
        offer=sink.offer,
        metrics=GatewayMetrics(),
    )


class Device:
    """A publisher whose messages the broker has when `publish` returns."""

    def __init__(self, broker, context=None):
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        if context is not None:
            self.client.tls_set_context(context)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def publish(self, topic, payload, **more):
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.client.publish(topic, raw, qos=1, **more).wait_for_publish(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()


class Running:
    """A started source that has subscribed."""

    def __init__(self, source):
        self.source = source

    def __enter__(self):
        self.source.start()
        deadline = time.monotonic() + 20
        while not self.source.is_connected:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)  # the broker takes the subscription
        return self.source

    def __exit__(self, *_):
        self.source.stop()


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "broker", "allow_anonymous true") as running:
        yield running


@pytest.fixture
def sink():
    return Sink()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_payloads_become_samples(broker, sink, version):
    with Running(source_of(broker, sink, version=version)), Device(broker) as device:
        device.publish("plant/m-1/power", 1500)
        device.publish("plant/m-1/power", {"value": 2500, "timestamp": 1_790_000_000_123})
        device.publish(
            "plant/m-1/state",
            {"temp": 41.5, "count": 7, "timestamp": 1_790_000_000_000, "quality": "uncertain"},
        )
        device.publish(
            "plant/m-1/vib", {"value": [0.5, -0.5], "timestamp": 5, "sample_period_us": 500}
        )
        device.publish("plant/m-1/power", {"value": None, "timestamp": 6})
        items = sink.until(6)
    assert items[0].values == (1.5,)
    assert abs(items[0].ts / 1e6 - time.time()) < 60
    assert items[1] == Sample("m-1", "power", 1_790_000_000_123_000, Quality.GOOD, (2.5,))
    at = 1_790_000_000_000_000
    assert items[2] == Sample("m-1", "temperature", at, Quality.UNCERTAIN, (41.5,))
    assert items[3] == Sample("m-1", "cycles", at, Quality.UNCERTAIN, (7.0,))
    assert items[4] == Sample("m-1", "vibration", 5_000, Quality.GOOD, (0.5, -0.5), 500)
    assert items[5] == Sample("m-1", "power", 6_000, Quality.BAD, ())


def test_what_cannot_be_read_is_refused_with_its_bytes(broker, sink):
    with Running(source_of(broker, sink)), Device(broker) as device:
        device.publish("plant/m-1/power", b"\x80 not json")
        device.publish("plant/m-1/state", {"temp": "warm", "count": 3})
        device.publish("plant/m-1/power", [1, 2])
        items = sink.until(4)
    assert [type(i) for i in items] == [Refusal, Refusal, Sample, Refusal]
    assert (items[0].reason, items[0].payload) == (Reason.MALFORMED, b"\x80 not json")
    assert (items[1].machine_id, items[1].channel) == ("m-1", "temperature")
    assert items[3].detail == "an array, but power is no waveform"


def test_a_retained_value_without_a_time_is_not_dated_now(broker, sink):
    with Device(broker) as device:
        device.publish("plant/m-1/power", 9000, retain=True)
        device.publish("plant/m-1/vib", {"value": [1.0], "timestamp": 7}, retain=True)
        with Running(source_of(broker, sink)):
            device.publish("plant/m-1/power", 1000)
            items = sink.until(2)
    assert min(i.ts for i in items) == 7_000
    assert sorted(sink.values) == [1.0, 1.0]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_the_broker_keeps_what_comes_while_the_gateway_is_away(broker, sink, version):
    with Device(broker) as device:
        with Running(source_of(broker, sink, version=version)):
            device.publish("plant/m-1/power", 1000)
            sink.until(1)
        for i in range(2, 6):
            device.publish("plant/m-1/power", i * 1000)
        with Running(source_of(broker, sink, version=version)):
            sink.until(5)
    assert sink.values == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_what_was_not_acknowledged_comes_again(broker, sink):
    with Device(broker) as device:
        with Running(source_of(broker, sink)):
            sink.is_holding = True  # the disk does not answer
            for i in range(3):
                device.publish("plant/m-1/power", i * 1000)
            sink.until(3)
        after = Sink()
        with Running(source_of(broker, after)):
            after.until(3)
            time.sleep(0.2)
    assert after.values == [0.0, 1.0, 2.0]
    third = Sink()
    with Running(source_of(broker, third)):
        time.sleep(0.3)
    assert third.items == []  # acknowledged now


def test_the_source_comes_back_with_the_broker(broker, sink):
    with Running(source_of(broker, sink)) as source:
        broker.stop()
        deadline = time.monotonic() + 20
        while source.is_connected:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        broker.start()
        while not source.is_connected:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with Device(broker) as device:
            device.publish("plant/m-1/power", 4000)
            sink.until(1)
    assert sink.values == [4.0]


def tls_lines(authority, name="server"):
    certificate, key = authority.issue(name)
    return (
        f"cafile {authority.certificate}",
        f"certfile {certificate}",
        f"keyfile {key}",
        "require_certificate true",
        "use_identity_as_username true",
        "tls_version tlsv1.3",
    )


def test_tls_1_3_with_client_certificates(tmp_path, sink):
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("gateway")
    with Mosquitto(tmp_path / "broker", *tls_lines(authority)) as broker:
        tls = {
            "tls": True,
            "ca": authority.certificate,
            "certificate": certificate,
            "private_key": key,
        }
        source = source_of(broker, sink, **tls)
        with Running(source), Device(broker, tls_context(source._source)) as device:
            assert source._client.socket().version() == "TLSv1.3"
            device.publish("plant/m-1/power", 1000)
            sink.until(1)
    assert sink.values == [1.0]


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_of_another_authority_is_refused(tmp_path, sink):
    theirs, ours = Authority(tmp_path / "theirs"), Authority(tmp_path / "ours")
    certificate, key = theirs.issue("gateway")
    with Mosquitto(tmp_path / "broker", *tls_lines(theirs)) as broker:
        tls = {"tls": True, "ca": ours.certificate, "certificate": certificate, "private_key": key}
        source = source_of(broker, sink, **tls)
        source.start()
        time.sleep(0.5)
        source.stop()
        assert not source.is_connected
        context = tls_context(source._source)
        address = ("127.0.0.1", broker.port)
        with (
            socket.create_connection(address) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_certificate_that_cannot_be_read_is_named(tmp_path, broker, sink):
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigurationError, match="broker: ca, certificate or private_key"):
        source_of(broker, sink, tls=True, ca=tmp_path / "ca.pem")


DATA = "spBv1.0/plant/DDATA/edge/m-1"


def sparkplug(seq, *metrics):
    made = payload_class()(timestamp=1_000, seq=seq)
    for metric in metrics:
        made.metrics.add(datatype=int(DataType.DOUBLE), **metric)
    return made.SerializeToString()


def test_sparkplug_data_without_a_birth_makes_the_gateway_ask_for_one(broker, sink):
    commands = []
    channels = {"temperature": {"metric": "Temp", "unit": "°C"}}
    source = source_of(broker, sink, channels=channels, device="plant/edge/{machine}")
    with Device(broker) as node:
        node.client.on_message = lambda c, _, m: commands.append((m.topic, m.payload))
        node.client.subscribe("spBv1.0/plant/NCMD/edge", 1)
        with Running(source):
            node.publish(
                "spBv1.0/plant/DDATA/edge/m-1", sparkplug(4, {"alias": 1, "double_value": 1.0})
            )
            sink.until(1)
            deadline = time.monotonic() + 10
            while not commands:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            node.publish("spBv1.0/plant/NBIRTH/edge", sparkplug(0))
            birth = {"name": "Temp", "alias": 1, "double_value": 20.0}
            node.publish("spBv1.0/plant/DBIRTH/edge/m-1", sparkplug(1, birth))
            node.publish(
                "spBv1.0/plant/DDATA/edge/m-1", sparkplug(2, {"alias": 1, "double_value": 21.0})
            )
            sink.until(3)
    assert sink.values == [20.0, 21.0]
    assert payload_class().FromString(commands[0][1]).metrics[0].name == "Node Control/Rebirth"
