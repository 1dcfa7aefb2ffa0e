"""The simulated machines as a plant shows them: an OPC UA server with a node for each channel.

Readings get to Kafka as a plant's would, through the gateway; `mapping` writes its file. Which
readings there are is the live fleet's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import orjson
from asyncua import ua
from asyncua.crypto.truststore import TrustStore
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions
from asyncua.server.server import Server
from asyncua.ua.status_codes import StatusCodes

from aegisops.certificates import Identity, identity
from aegisops.errors import ServiceUnavailable
from aegisops.machines import ChannelKind, MachineClass
from aegisops.names import READINGS_TOPIC, EventType, Quality
from aegisops.settings import Settings

NAMESPACE = "urn:aegisops:simulator"
EVENTS = (EventType.MAINTENANCE, EventType.FAILURE, EventType.COUNTER_RESET, EventType.ERROR)
_STATUS = {
    Quality.GOOD: StatusCodes.Good,
    Quality.UNCERTAIN: StatusCodes.UncertainSensorNotAccurate,
    Quality.BAD: StatusCodes.BadSensorFailure,
}
_SECONDS = 30.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PlantServer:
    """An OPC UA server in a thread of its own; a context manager, and a `Publisher` of records."""

    def __init__(
        self,
        endpoint: str,
        machine_class: MachineClass,
        machine_ids: Sequence[str],
        *,
        identity: Identity | None = None,
        trusted: Path | None = None,
    ) -> None:
        """With `identity`: SignAndEncrypt only, for clients whose certificate is in `trusted`."""
        self._endpoint = endpoint
        self._class = machine_class
        self._machines = machine_ids
        self._identity = identity
        self._trusted = trusted
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True)
        self._server = Server()
        self._index = 0
        self._queued: list[tuple[ua.NodeId, ua.DataValue]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._wait(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._wait(self._server.stop())
        self._end()

    @property
    def is_watched(self) -> bool:
        """Whether a client monitors nodes: before that, what is written is seen by nobody."""
        subscriptions = list(self._server.iserver.subscription_service.subscriptions.values())
        return any(
            s.monitored_item_srv._monitored_items  # noqa: SLF001 - the server has no public way
            for s in subscriptions
        )

    def publish(self, topic: str, key: str, record: Mapping[str, Any]) -> None:
        """Queue a record of the live fleet as values of its nodes."""
        if topic == READINGS_TOPIC:
            for block in record["blocks"]:
                is_waveform = self._class.channels[block["channel"]].kind is ChannelKind.WAVEFORM
                values: Any = list(block["values"])
                value = values if is_waveform else values[0] if values else None
                self.set(key, block["channel"], value, block["start_us"], Quality(block["quality"]))
        else:
            self.set(key, str(record["type"]), record["code"], record["ts"])

    def set(
        self,
        machine_id: str,
        name: str,
        value: Any,  # noqa: ANN401 - a number, numbers, a text or None
        ts: int,
        quality: Quality = Quality.GOOD,
    ) -> None:
        """Queue a value of a channel or event; `ts` in µs."""
        kind = ua.VariantType.String if isinstance(value, str) else ua.VariantType.Double
        data = ua.DataValue(
            ua.Variant() if value is None else ua.Variant(value, kind),
            ua.StatusCode(ua.UInt32(_STATUS[quality])),
            _EPOCH + timedelta(microseconds=ts),  # type: ignore[arg-type]
        )
        self._queued.append((self._node(machine_id, name), data))

    def flush(self) -> None:
        """Write what is queued, in order."""
        queued, self._queued = self._queued, []
        self._wait(self._write(queued))

    async def _write(self, queued: Sequence[tuple[ua.NodeId, ua.DataValue]]) -> None:
        for node, data in queued:
            await self._server.write_attribute_value(node, data)

    async def _start(self) -> None:
        server = self._server
        await server.init()
        server.set_endpoint(self._endpoint)
        server.set_server_name("AegisOps simulator")
        if self._identity is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            await self._secure(self._identity)
        self._index = await server.register_namespace(NAMESPACE)
        for machine_id in self._machines:
            await self._add(machine_id)
        try:
            await server.start()
        except OSError as error:
            raise ServiceUnavailable(f"{self._endpoint} cannot be listened on: {error}") from error

    async def _secure(self, identity: Identity) -> None:
        server = self._server
        await server.set_application_uri(identity.uri)
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        await server.load_certificate(identity.certificate)
        await server.load_private_key(identity.private_key)
        if self._trusted is not None:
            store = TrustStore([self._trusted], [])
            await store.load()
            options = CertificateValidatorOptions
            wanted = options.TIME_RANGE | options.URI | options.TRUSTED | options.PEER_CLIENT
            server.set_certificate_validator(CertificateValidator(wanted, store))

    async def _add(self, machine_id: str) -> None:
        folder = await self._server.get_objects_node().add_object(
            self._id(machine_id), f"{self._index}:{machine_id}"
        )
        nothing = ua.DataValue(
            ua.Variant(), ua.StatusCode(ua.UInt32(StatusCodes.BadWaitingForInitialData))
        )
        captures = {n for n, c in self._class.channels.items() if c.kind is ChannelKind.WAVEFORM}
        first: dict[str, Any] = {n: [0.0] if n in captures else 0.0 for n in self._class.channels}
        for name, value in (first | {str(event): "" for event in EVENTS}).items():
            node = self._node(machine_id, name)
            await folder.add_variable(node, f"{self._index}:{name}", value)
            await self._server.write_attribute_value(node, nothing)

    def _node(self, machine_id: str, name: str) -> ua.NodeId:
        return self._id(f"{machine_id}.{name}")

    def _id(self, text: str) -> ua.NodeId:
        return ua.NodeId(ua.String(text), ua.Int16(self._index))

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(_SECONDS)

    def _end(self) -> None:
        async def cancel() -> None:  # sessions of clients that never closed them
            mine = asyncio.current_task()
            left = [task for task in asyncio.all_tasks() if task is not mine]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self._wait(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()


def mapping_path(data_dir: Path) -> Path:
    """Where `commissioned` writes the gateway's mapping file."""
    return data_dir.absolute() / "simulator" / "mapping.toml"


@contextlib.contextmanager
def commissioned(
    settings: Settings, endpoint: str, machine_class: MachineClass, machine_ids: Sequence[str]
) -> Iterator[PlantServer]:
    """A running server and a gateway that may use it: both certificates, the trust, the mapping."""
    folder = settings.data_dir.absolute() / "simulator" / "pki"
    pki = settings.gateway_pki
    server, client = identity(folder / "own", "simulator"), identity(pki / "own", "gateway")
    for certificate, trusted in (
        (server.certificate, pki / "trusted"),
        (client.certificate, folder / "trusted"),
    ):
        trusted.mkdir(parents=True, exist_ok=True)
        shutil.copy(certificate, trusted)
    with PlantServer(
        endpoint, machine_class, machine_ids, identity=server, trusted=folder / "trusted"
    ) as running:
        # The file says that the server is there, so it comes last, and whole.
        path = mapping_path(settings.data_dir)
        half = path.with_suffix(".half")
        half.write_text(mapping(endpoint, machine_class, machine_ids, is_secure=True))
        half.replace(path)
        yield running


def mapping(
    endpoint: str, machine_class: MachineClass, machine_ids: Sequence[str], *, is_secure: bool
) -> str:
    """The gateway's mapping file for this server, as TOML."""
    return "\n".join(_lines(endpoint, machine_class, machine_ids, is_secure=is_secure)) + "\n"


def _lines(
    endpoint: str, machine_class: MachineClass, machine_ids: Sequence[str], *, is_secure: bool
) -> Iterator[str]:
    yield "# Written by the simulator at its start."
    yield 'gateway = "simulator"'
    yield "\n[[opcua]]"
    yield 'name = "plant"'
    yield f'endpoint = "{endpoint}"'
    mode = "SignAndEncrypt" if is_secure else "None"
    yield f'security_mode = "{mode}"'
    yield "queue_size = 1000"
    yield "\n[[opcua.machines]]"
    yield f'class = "{machine_class.name}"'
    yield f"ids = {orjson.dumps(list(machine_ids)).decode()}"
    yield "\n[opcua.machines.channels]"
    for name, channel in machine_class.channels.items():
        yield f'{name} = {{ node = "{_node_of(name)}", unit = "{channel.unit}" }}'
    yield "\n[opcua.machines.events]"
    for event in EVENTS:
        yield f'{event} = {{ node = "{_node_of(event)}", type = "{event}" }}'


def _node_of(name: str) -> str:
    return f"nsu={NAMESPACE};s={{machine}}.{name}"
