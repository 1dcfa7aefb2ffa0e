"""The sensor gateway: OPC UA and MQTT, through a spool on disk, to Kafka.

    sources (OPC UA, MQTT, Sparkplug B) → spool (SQLite) → Kafka

Run with `python -m streaming.gateway`; configured by AEGIS_* variables and a mapping file. Ends
with 1 after an error that a restart may cure, so run it under a supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from aegisops import bus, names
from aegisops.certificates import identity
from aegisops.errors import AegisError, ConfigurationError, Retryable
from aegisops.machines import load_classes
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas import avro
from aegisops.settings import Settings
from streaming import health, logs
from streaming.forwarder import Forwarder
from streaming.gateway_metrics import GatewayMetrics
from streaming.mapping import load_mapping, targets
from streaming.messages import Encoder
from streaming.sources.mqtt import MqttSource
from streaming.sources.opcua import OpcUaSource
from streaming.spool import Spool

log = logging.getLogger(__name__)

TOPICS = (names.READINGS_TOPIC, names.EVENTS_TOPIC, names.REFUSALS_TOPIC)
PRODUCER_OPTIONS = {"linger.ms": "5", "message.timeout.ms": "60000"}
"""Batches are made by the spool's commits already; what failed goes again from the spool."""
REGISTRY_SECONDS = 2.0
ALIVE_SECONDS = 30.0


def run(settings: Settings) -> None:
    """Wire and run until SIGTERM; raises what a restart must cure."""
    mapping = load_mapping(_mapping_path(settings))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    classes = load_classes(settings.classes_dir)
    opcua = [(source, targets(source, classes)) for source in mapping.opcua]
    mqtt = [(source, targets(source, classes)) for source in mapping.mqtt]
    ids = _schema_ids(settings, stop)
    if stop.is_set():
        return
    metrics = GatewayMetrics()
    spool = Spool(
        settings.data_dir.absolute() / "gateway" / f"{mapping.gateway}.spool",
        settings.gateway.spool_max_bytes,
    )
    kafka = settings.kafka.model_copy(update={"options": PRODUCER_OPTIONS | settings.kafka.options})
    forwarder = Forwarder(spool, bus.Producer(kafka), Encoder(mapping.gateway, ids), metrics)
    pki = settings.gateway_pki
    servers = [
        OpcUaSource(
            source,
            found,
            identity=identity(pki / "own", "gateway"),
            trusted=pki / "trusted",
            put=forwarder.put,
            metrics=metrics,
            marks=spool.marks(source.name),
        )
        for source, found in opcua
    ]
    brokers = [
        MqttSource(source, found, offer=forwarder.offer, metrics=metrics) for source, found in mqtt
    ]
    sources: tuple[OpcUaSource | MqttSource, ...] = (*servers, *brokers)
    health.serve(settings.gateway.metrics_port, metrics.registry, _Probes(forwarder, sources))
    worker = threading.Thread(target=forwarder.run, name="forwarder")
    worker.start()
    log.info(
        "gateway %s: %d OPC UA servers, %d brokers, %d messages in the spool",
        mapping.gateway, len(servers), len(brokers), spool.depth,
    )  # fmt: skip
    try:
        for broker in brokers:
            broker.start()
        asyncio.run(_listen(servers, stop, worker))
    finally:
        for broker in brokers:
            broker.stop()
        forwarder.close()
        worker.join()
        spool.close()
    if not stop.is_set():
        raise Retryable("the forwarder ended by itself")


class _Probes:
    """What the gateway answers to /livez and /readyz."""

    def __init__(self, forwarder: Forwarder, sources: Sequence[OpcUaSource | MqttSource]) -> None:
        self._forwarder = forwarder
        self._sources = sources

    def live(self) -> dict[str, object]:
        """`ok` while the forwarder turns."""
        silent = time.monotonic() - self._forwarder.turned_at
        return {"ok": silent < ALIVE_SECONDS, "silent_seconds": round(silent, 1)}

    def ready(self) -> dict[str, object]:
        """`ok` while Kafka takes what comes and every source is connected."""
        away = [f"{s.name} is not connected" for s in self._sources if not s.is_connected]
        why = self._forwarder.complaint or "; ".join(away)
        return {"ok": not why, "why": why}


async def _listen(
    servers: Sequence[OpcUaSource], stop: threading.Event, worker: threading.Thread
) -> None:
    tasks = [asyncio.create_task(server.run(), name=server.name) for server in servers]
    while not stop.is_set() and worker.is_alive():
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _mapping_path(settings: Settings) -> Path:
    if settings.gateway.mapping is None:
        raise ConfigurationError(
            "no mapping file: set AEGIS_GATEWAY__MAPPING, or `aegisops gateway run FILE`; "
            "docs/gateway.md shows how to write one"
        )
    return settings.gateway.mapping


def _wait_for(path: Path | None, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while path is not None and not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def _schema_ids(settings: Settings, stop: threading.Event) -> dict[str, int]:
    """Registry ids of the contracts; waits for a registry that has never answered before."""
    with SchemaRegistry(settings) as registry:
        while not stop.is_set():
            try:
                return {
                    topic: registry.register(names.subject(topic), avro.contract(topic).text)
                    for topic in TOPICS
                }
            except Retryable as error:
                log.warning("%s; nothing is read from the sources until then", error)
                stop.wait(REGISTRY_SECONDS)
    return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 after SIGTERM, 2 for a wrong mapping, 1 for what a restart may cure."""
    parser = argparse.ArgumentParser(prog="python -m streaming.gateway", description=__doc__)
    parser.add_argument("mapping", nargs="?", type=Path, help="default: AEGIS_GATEWAY__MAPPING")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait for the file to be there"
    )
    options = parser.parse_args(arguments)
    logs.configure(names.GATEWAY_APP)
    # It logs each lost connection with a trace; the source says the same in a line.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    settings = Settings()
    if options.mapping is not None:
        gateway = settings.gateway.model_copy(update={"mapping": options.mapping})
        settings = settings.model_copy(update={"gateway": gateway})
    try:
        _wait_for(settings.gateway.mapping, options.patience)
        run(settings)
    except AegisError as error:
        log.error("%s", error)  # noqa: TRY400 - a message for people
        return 1 if isinstance(error, Retryable) else 2
    except Exception:
        log.exception("the gateway ends; a restart continues with the spool")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
