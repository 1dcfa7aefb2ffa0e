"""OPC UA against a real asyncua server, encrypted, with certificates made here."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time

import pytest

from aegisops.certificates import identity
from aegisops.embedded.ports import free_port
from aegisops.machines import load_class, shipped_classes
from aegisops.names import Quality, Reason
from aegisops.simulator.plant import PlantServer, mapping
from streaming.gateway_metrics import GatewayMetrics
from streaming.mapping import load_mapping, targets
from streaming.samples import Happening, Refusal, Sample
from streaming.sources import opcua
from streaming.sources.opcua import OpcUaSource

pytestmark = pytest.mark.integration
SPINDLE = load_class("cnc_spindle")
NOW = 1_790_000_000_000_000


class Bench:
    """A plant's server, a source that listens to it, and what the source handed over."""

    def __init__(self, folder):
        self.folder = folder
        self.endpoint = f"opc.tcp://127.0.0.1:{free_port()}"
        self.gateway = identity(folder / "pki/own", "gateway")
        self.plant_identity = identity(folder / "plant", "simulator")
        self.trusted = folder / "pki/trusted"
        self.clients = folder / "clients"
        for place in (self.trusted, self.clients):
            place.mkdir(parents=True)
        shutil.copy(self.gateway.certificate, self.clients)
        self.metrics = GatewayMetrics()
        self.items, self.holding, self.is_holding = [], [], False

    def trust(self):
        shutil.copy(self.plant_identity.certificate, self.trusted)

    def plant(self, machines=("a", "b")):
        self.machines = machines
        secure = {"identity": self.plant_identity, "trusted": self.clients}
        return PlantServer(self.endpoint, SPINDLE, machines, **secure)

    def put(self, delivery):
        self.items += delivery.items
        if self.is_holding:
            self.holding.append(delivery)
        else:
            delivery.done()

    def release(self):
        self.is_holding = False
        while self.holding:
            self.holding.pop(0).done()

    def source(self, text=None, wanted=("a", "b")):
        path = self.folder / "mapping.toml"
        path.write_text(text or mapping(self.endpoint, SPINDLE, wanted, is_secure=True))
        declared = load_mapping(path).opcua[0].model_copy(update={"publishing_interval": 50_000})
        return OpcUaSource(
            declared,
            targets(declared, shipped_classes()),
            identity=self.gateway,
            trusted=self.trusted,
            put=self.put,
            metrics=self.metrics,
        )

    def of(self, kind):
        return [i for i in self.items if isinstance(i, kind)]

    @property
    def power(self):
        return [i.values[0] for i in self.of(Sample) if i.channel == "power" and i.values]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@contextlib.asynccontextmanager
async def listening(source):
    task = asyncio.create_task(source.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        await asyncio.sleep(0.02)


def test_values_arrive_encrypted_with_time_quality_and_order(bench):
    bench.trust()

    async def run(plant):
        async with listening(source := bench.source()):
            await until(lambda: source.is_connected and plant.is_watched)
            for i in range(20):
                plant.set("a", "power", float(i), NOW + i)
            plant.set("b", "power", 7.0, NOW, Quality.UNCERTAIN)
            plant.set("b", "temperature", None, NOW, Quality.BAD)
            plant.set("a", "vibration", [0.5, -0.5], NOW)
            plant.set("a", "failure", "bearing_wear", NOW)
            await asyncio.to_thread(plant.flush)
            await until(lambda: len(bench.items) == 24)

    with bench.plant() as plant:
        asyncio.run(run(plant))
    a = [i for i in bench.of(Sample) if (i.machine_id, i.channel) == ("a", "power")]
    assert [(i.values, i.ts) for i in a] == [((float(i),), NOW + i) for i in range(20)]
    assert Sample("b", "power", NOW, Quality.UNCERTAIN, (7.0,)) in bench.items
    assert Sample("b", "temperature", NOW, Quality.BAD, ()) in bench.items
    assert Sample("a", "vibration", NOW, Quality.GOOD, (0.5, -0.5), 1_000) in bench.items
    assert bench.of(Happening) == [Happening("a", NOW, "failure", "bearing_wear")]
    assert bench.of(Refusal) == []


def test_a_server_that_is_not_trusted_is_refused_and_its_certificate_is_kept(bench, caplog):
    async def run():
        async with listening(bench.source()) as task:
            await until(lambda: "certificate is refused" in caplog.text)
            assert not task.done()

    with bench.plant() as plant:
        asyncio.run(run())
        assert not plant.is_watched
    (kept,) = (bench.folder / "pki/rejected").iterdir()
    assert kept.read_bytes() == bench.plant_identity.certificate.read_bytes()
    assert bench.items == []


def test_a_server_that_does_not_trust_us_gives_nothing(bench):
    bench.trust()
    for certificate in bench.clients.iterdir():
        certificate.unlink()
    other = identity(bench.folder / "other", "somebody")
    shutil.copy(other.certificate, bench.clients)

    async def run():
        async with listening(source := bench.source()):
            await asyncio.sleep(1.0)
            assert not source.is_connected

    with bench.plant():
        asyncio.run(run())
    assert bench.items == []


def test_nothing_is_acknowledged_before_the_spool_has_it(bench):
    bench.trust()

    async def run(plant):
        async with listening(source := bench.source()):
            await until(lambda: source.is_connected and plant.is_watched)
            bench.is_holding = True
            plant.set("a", "power", 1.0, NOW)
            await asyncio.to_thread(plant.flush)
            await until(lambda: bench.power == [1.0])
            plant.set("a", "power", 2.0, NOW + 1)
            await asyncio.to_thread(plant.flush)
            await asyncio.sleep(0.3)
            assert bench.power == [1.0]  # we asked for nothing more
            kept = plant._server.iserver.subscription_service.subscriptions.values()
            assert any(s._not_acknowledged_results for s in kept)
            bench.release()
            await until(lambda: bench.power == [1.0, 2.0])

    with bench.plant() as plant:
        asyncio.run(run(plant))


def test_after_a_restart_of_the_server_values_come_again_and_the_gap_is_visible(bench, monkeypatch):
    bench.trust()

    async def run():
        async with listening(source := bench.source()):
            with bench.plant() as plant:
                await until(lambda: source.is_connected and plant.is_watched)
                plant.set("a", "power", 1.0, NOW)
                await asyncio.to_thread(plant.flush)
                await until(lambda: bench.power == [1.0])
            await until(lambda: not source.is_connected)
            with bench.plant() as plant:
                await until(lambda: source.is_connected and plant.is_watched, 60)
                plant.set("a", "power", 2.0, NOW + 1)
                await asyncio.to_thread(plant.flush)
                await until(lambda: bench.power == [1.0, 2.0])

    asyncio.run(run())
    gaps = [i for i in bench.of(Refusal) if i.reason is Reason.GAP]
    assert len(gaps) >= 1
    assert "away since" in gaps[0].detail
    assert bench.metrics.registry.get_sample_value(
        "aegis_gateway_connections_total", {"source": "plant"}
    ) >= 2  # fmt: skip


def test_nodes_that_are_not_there_are_named_and_the_others_work(bench):
    bench.trust()

    async def run(plant):
        async with listening(source := bench.source(wanted=("a", "ghost"))):
            await until(lambda: source.is_connected and plant.is_watched)
            plant.set("a", "power", 1.0, NOW)
            await asyncio.to_thread(plant.flush)
            await until(lambda: bench.power == [1.0])

    with bench.plant() as plant:
        asyncio.run(run(plant))
    missing = bench.of(Refusal)
    assert len(missing) == 8
    assert {(r.reason, r.machine_id) for r in missing} == {(Reason.UNMAPPED, "ghost")}
    assert "BadNodeIdUnknown" in missing[0].detail


def test_values_that_mean_nothing_become_refusals(bench):
    bench.trust()

    async def run(plant):
        async with listening(source := bench.source()):
            await until(lambda: source.is_connected and plant.is_watched)
            plant.set("a", "power", "full", NOW)
            plant.set("a", "temperature", [1.0, 2.0], NOW)
            plant.set("b", "power", 3.0, NOW)
            await asyncio.to_thread(plant.flush)
            await until(lambda: len(bench.items) == 3)

    with bench.plant() as plant:
        asyncio.run(run(plant))
    assert sorted(r.detail for r in bench.of(Refusal)) == [
        "an array, but temperature is no waveform",
        "str is no number",
    ]
    assert bench.power == [3.0]


def test_a_server_is_browsed_into_variables(bench):
    bench.trust()
    source = bench.source()

    async def run():
        client = await opcua.client_of(source._source, bench.gateway, bench.trusted)
        async with client:
            return await opcua.browse(client)

    with bench.plant(("a",)):
        found = asyncio.run(run())
    assert ("nsu=urn:aegisops:simulator;s=a.power", "/a/power", "Double") in found
    assert len(found) == 8


@pytest.mark.parametrize(
    ("status", "quality"),
    [(0, 0), (0x00A60000, 0), (0x40920000, 1), (0x80000000, 2), (0xC0000000, 2)],
)
def test_the_severity_bits_are_the_quality(status, quality):
    assert opcua.quality(status) == quality
