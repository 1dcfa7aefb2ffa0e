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


class Plant:
    """A plant's server that several tests share, each with machines of its own."""

    def __init__(self, folder, machines=24):
        self.endpoint = f"opc.tcp://127.0.0.1:{free_port()}"
        self.gateway = identity(folder / "own", "gateway")
        self.identity = identity(folder / "plant", "simulator")
        clients = folder / "clients"
        clients.mkdir()
        shutil.copy(self.gateway.certificate, clients)
        self.machines = [f"m{i}" for i in range(machines)]
        self._free = iter(self.machines)
        self.server = PlantServer(
            self.endpoint, SPINDLE, self.machines, identity=self.identity, trusted=clients
        )

    def two(self):
        return next(self._free), next(self._free)


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    shared = Plant(tmp_path_factory.mktemp("plant"))
    with shared.server:
        yield shared


class Bench:
    """A source that listens to two machines of a plant, and what it handed over."""

    def __init__(self, folder, plant):
        self.folder = folder
        self.plant = plant
        self.server = plant.server
        self.a, self.b = plant.two()
        self.trusted = folder / "pki/trusted"
        self.trusted.mkdir(parents=True)
        self.trust()
        self.metrics = GatewayMetrics()
        self.items, self.holding, self.is_holding, self.marks = [], [], False, {}

    def trust(self):
        shutil.copy(self.plant.identity.certificate, self.trusted)

    async def write(self, *values):
        for value in values:
            self.server.set(*value)
        await asyncio.to_thread(self.server.flush)

    def put(self, delivery):
        self.items += delivery.items
        self.marks |= {mark.place: mark[1:] for mark in delivery.marks}
        if self.is_holding:
            self.holding.append(delivery)
        else:
            delivery.done()

    def release(self):
        self.is_holding = False
        while self.holding:
            self.holding.pop(0).done()

    def source(self, text=None, wanted=(), identity_of=None):
        path = self.folder / "mapping.toml"
        wanted = wanted or (self.a, self.b)
        path.write_text(text or mapping(self.plant.endpoint, SPINDLE, wanted, is_secure=True))
        declared = load_mapping(path).opcua[0].model_copy(update={"publishing_interval": 50_000})
        return OpcUaSource(
            declared,
            targets(declared, shipped_classes()),
            identity=identity_of or self.plant.gateway,
            trusted=self.trusted,
            put=self.put,
            metrics=self.metrics,
            marks=self.marks,
        )

    def of(self, kind):
        return [i for i in self.items if isinstance(i, kind)]

    @property
    def power(self):
        return [i.values[0] for i in self.of(Sample) if i.channel == "power" and i.values]


@pytest.fixture
def bench(tmp_path, plant):
    return Bench(tmp_path, plant)


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
    a, b = bench.a, bench.b

    async def run():
        async with listening(source := bench.source()):
            await until(lambda: source.is_connected)
            await bench.write(
                *((a, "power", float(i), NOW + i) for i in range(20)),
                (b, "power", 7.0, NOW, Quality.UNCERTAIN),
                (b, "temperature", None, NOW, Quality.BAD),
                (a, "vibration", [0.5, -0.5], NOW),
                (a, "failure", "bearing_wear", NOW),
            )
            await until(lambda: len(bench.items) == 24)

    asyncio.run(run())
    power = [i for i in bench.of(Sample) if (i.machine_id, i.channel) == (a, "power")]
    assert [(i.values, i.ts) for i in power] == [((float(i),), NOW + i) for i in range(20)]
    assert Sample(b, "power", NOW, Quality.UNCERTAIN, (7.0,)) in bench.items
    assert Sample(b, "temperature", NOW, Quality.BAD, ()) in bench.items
    assert Sample(a, "vibration", NOW, Quality.GOOD, (0.5, -0.5), 1_000) in bench.items
    assert bench.of(Happening) == [Happening(a, NOW, "failure", "bearing_wear")]
    assert bench.of(Refusal) == []


def test_a_value_that_stays_the_same_is_a_reading_and_a_repeated_one_is_not(bench):
    async def run():
        async with listening(source := bench.source()):
            await until(lambda: source.is_connected)
            for ts in (NOW, NOW + 1, NOW + 1, NOW + 2):
                await bench.write((bench.a, "power", 5.0, ts))
            await until(lambda: len(bench.items) == 3)
            await asyncio.sleep(0.2)

    asyncio.run(run())
    assert [i.ts for i in bench.items] == [NOW, NOW + 1, NOW + 2]


def test_a_gateway_that_starts_again_does_not_take_the_last_values_twice(bench):
    async def run(value, ts, total):
        async with listening(source := bench.source()):
            await until(lambda: source.is_connected)
            await bench.write((bench.a, "power", value, ts), (bench.a, "failure", "jam", ts))
            await until(lambda: len(bench.items) == total)
            await asyncio.sleep(0.2)

    asyncio.run(run(1.0, NOW, 2))
    asyncio.run(run(2.0, NOW + 1, 4))
    assert bench.power == [1.0, 2.0]
    assert [h.ts for h in bench.of(Happening)] == [NOW, NOW + 1]


def test_a_server_that_is_not_trusted_is_refused_and_its_certificate_is_kept(bench, caplog):
    for certificate in bench.trusted.iterdir():
        certificate.unlink()

    async def run():
        async with listening(source := bench.source()) as task:
            await until(lambda: "certificate is refused" in caplog.text)
            assert not task.done()
            assert not source.is_connected

    asyncio.run(run())
    (kept,) = (bench.folder / "pki/rejected").iterdir()
    assert kept.read_bytes() == bench.plant.identity.certificate.read_bytes()
    assert bench.items == []


def test_a_server_that_does_not_trust_us_gives_nothing(bench, caplog):
    somebody = identity(bench.folder / "other", "somebody")

    async def run():
        async with listening(source := bench.source(identity_of=somebody)):
            await until(lambda: "next try in" in caplog.text)
            assert not source.is_connected

    asyncio.run(run())
    assert bench.items == []


def test_nothing_is_acknowledged_before_the_spool_has_it(bench):
    async def run():
        async with listening(source := bench.source()):
            await until(lambda: source.is_connected)
            bench.is_holding = True
            await bench.write((bench.a, "power", 1.0, NOW))
            await until(lambda: bench.power == [1.0])
            await bench.write((bench.a, "power", 2.0, NOW + 1))
            await asyncio.sleep(0.3)
            assert bench.power == [1.0]  # we asked for nothing more
            kept = bench.server._server.iserver.subscription_service.subscriptions.values()
            assert any(s._not_acknowledged_results for s in kept)
            bench.release()
            await until(lambda: bench.power == [1.0, 2.0])

    asyncio.run(run())


def test_after_a_restart_of_the_server_values_come_again_and_the_gap_is_visible(tmp_path):
    folder = tmp_path / "plant"
    folder.mkdir()
    plant = Plant(folder, machines=2)
    bench = Bench(tmp_path, plant)

    async def run():
        async with listening(source := bench.source()):
            with plant.server:
                await until(lambda: source.is_connected, 60)
                await bench.write((bench.a, "power", 1.0, NOW))
                await until(lambda: bench.power == [1.0])
            await until(lambda: not source.is_connected)
            again = PlantServer(
                plant.endpoint, SPINDLE, plant.machines,
                identity=plant.identity, trusted=folder / "clients",
            )  # fmt: skip
            with again:
                bench.server = again
                await until(lambda: source.is_connected and again.is_watched, 60)
                await bench.write((bench.a, "power", 2.0, NOW + 1))
                await until(lambda: bench.power == [1.0, 2.0])

    asyncio.run(run())
    gaps = [i for i in bench.of(Refusal) if i.reason is Reason.GAP]
    assert len(gaps) >= 1
    assert "away since" in gaps[0].detail


def test_nodes_that_are_not_there_are_named_and_the_others_work(bench):
    async def run():
        async with listening(source := bench.source(wanted=(bench.a, "ghost"))):
            await until(lambda: source.is_connected)
            await bench.write((bench.a, "power", 1.0, NOW))
            await until(lambda: bench.power == [1.0])

    asyncio.run(run())
    missing = bench.of(Refusal)
    assert len(missing) == 8
    assert {(r.reason, r.machine_id) for r in missing} == {(Reason.UNMAPPED, "ghost")}
    assert "BadNodeIdUnknown" in missing[0].detail


def test_values_that_mean_nothing_become_refusals(bench):
    text = mapping(bench.plant.endpoint, SPINDLE, (bench.a,), is_secure=True)
    text = text.replace("s={machine}.power", "s={machine}.error").replace("error = {", "# {")

    async def run():
        async with listening(source := bench.source(text)):
            await until(lambda: source.is_connected)
            await bench.write(
                (bench.a, "error", "full", NOW),
                (bench.a, "temperature", [1.0, 2.0], NOW),
                (bench.a, "cycles", 3.0, NOW),
            )
            await until(lambda: len(bench.items) == 3)

    asyncio.run(run())
    assert sorted(r.detail for r in bench.of(Refusal)) == [
        "an array, but temperature is no waveform",
        "str is no number",
    ]
    assert [s.values for s in bench.of(Sample)] == [(3.0,)]


def test_a_server_is_browsed_into_variables(bench):
    source = bench.source()

    async def run():
        client = await opcua.client_of(source._source, bench.plant.gateway, bench.trusted)
        async with client:
            return await opcua.browse(client)

    found = asyncio.run(run())
    assert ("nsu=urn:aegisops:simulator;s=m0.power", "/m0/power", "Double") in found
    assert len(found) == 8 * len(bench.plant.machines)


@pytest.mark.parametrize(
    ("status", "quality"),
    [(0, 0), (0x00A60000, 0), (0x40920000, 1), (0x80000000, 2), (0xC0000000, 2)],
)
def test_the_severity_bits_are_the_quality(status, quality):
    assert opcua.quality(status) == quality
