"""What a gateway's mapping file may say, validated, and what each node and topic then means.

`docs/gateway.md` is its reference for people. Connections are the sources' work.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from aegisops.errors import ConfigurationError
from aegisops.importers.units import conversion
from aegisops.machines import ChannelKind, MachineClass
from aegisops.machines.durations import Duration
from aegisops.names import EventType

MACHINE = "{machine}"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_RANGE = re.compile(r"^(.*?)(\d+)\.\.(\d+)$")
_MOST_IDS = 100_000


def _ids(value: object) -> object:
    """`["press-01", "spindle-001..020"]` → every id."""
    if not isinstance(value, list):
        return value
    ids: list[object] = []
    for entry in value:
        match = _RANGE.match(entry) if isinstance(entry, str) else None
        if match is None:
            ids.append(entry)
            continue
        prefix, first, last = match.groups()
        if not 0 <= int(last) - int(first) < _MOST_IDS:
            raise ValueError(f"{entry!r}: the range must go up, by less than {_MOST_IDS:,}")
        ids += [f"{prefix}{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    return ids


def _event(word: str) -> str:
    if word not in set(EventType):
        raise ValueError(f"{word!r} is no event; use one of {', '.join(EventType)}")
    return word


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MappedChannel(_Frozen):
    """Where a channel's values come from, and in which unit."""

    unit: str
    node: str | None = None
    """OPC UA: node id, `ns=2;s=Press1.Vibration` or `nsu=urn:maker:press;s=…`."""
    topic: str | None = None
    """MQTT: topic."""
    field: str | None = None
    """MQTT: path in a JSON object (`state.temperature`); absent = the whole payload."""
    metric: str | None = None
    """Sparkplug B: metric name."""
    sample_period: Duration | None = None
    """Captures: time between two values; the class's when absent."""


class MappedEvent(_Frozen):
    """A node, topic or metric whose new values are events; the value is the code."""

    type: Annotated[str, AfterValidator(_event)]
    node: str | None = None
    topic: str | None = None
    field: str | None = None
    metric: str | None = None


class Machines(_Frozen):
    """Machines of one class that are mapped alike; `{machine}` stands for the id."""

    ids: Annotated[tuple[str, ...], BeforeValidator(_ids), Field(min_length=1)]
    machine_class: str = Field(alias="class")
    device: str | None = None
    """Sparkplug B: `group/edge node` or `group/edge node/device`."""
    channels: dict[str, MappedChannel] = {}
    events: dict[str, MappedEvent] = {}
    """By a name of your own."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.channels and not self.events:
            raise ValueError("map at least one channel or event")
        return self


class _Source(_Frozen):
    name: str = Field(pattern=_NAME)
    machines: tuple[Machines, ...] = Field(min_length=1)
    user: str | None = None
    password_env: str | None = None
    """Environment variable with the password; a file would be copied around."""


class OpcUa(_Source):
    """One OPC UA server."""

    endpoint: str = Field(pattern=r"^opc\.tcp://")
    security_mode: Literal["SignAndEncrypt", "Sign", "None"] = "SignAndEncrypt"
    security_policy: Literal["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"] = (
        "Basic256Sha256"
    )
    publishing_interval: Duration = 250_000
    trigger: Literal["timestamp", "value"] = "timestamp"
    """What the server reports: every new source time, or only values that differ."""
    queue_size: int = Field(default=100, ge=2, le=10_000)
    """Values of a node that the server keeps between two publications; 1 would keep the last."""


class Payload(_Frozen):
    """Names inside the JSON objects of a broker's payloads."""

    value: str = "value"
    time: str = "timestamp"
    time_format: Literal["iso", "unix_s", "unix_ms", "unix_us"] = "unix_ms"
    quality: str = "quality"
    sample_period: str = "sample_period_us"


class Mqtt(_Source):
    """One MQTT broker; payloads are JSON, or Sparkplug B where `device` is given."""

    host: str
    port: int = Field(default=8883, ge=1, le=65_535)
    version: Literal["5", "3.1.1"] = "5"
    client_id: str = Field(default="aegis-gateway", min_length=1)
    """The broker's session belongs to it: one per gateway and broker, and never another."""
    tls: bool = True
    ca: Path | None = None
    """PEM of the authorities to trust; the system's when absent."""
    certificate: Path | None = None
    private_key: Path | None = None
    session_expiry: Duration = 7 * 24 * 3_600_000_000
    """MQTT 5: how long the broker keeps messages while the gateway is away."""
    receive_maximum: int = Field(default=1_000, ge=1, le=65_535)
    """MQTT 5: messages the broker may send ahead of the acknowledgement."""
    keepalive: Duration = 30_000_000
    payload: Payload = Payload()

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("give both certificate and private_key, or neither")
        if not self.tls and (self.ca or self.certificate):
            raise ValueError("tls = false contradicts ca and certificate")
        return self


class MappingFile(_Frozen):
    """The file."""

    gateway: str = Field(pattern=_NAME)
    opcua: tuple[OpcUa, ...] = ()
    mqtt: tuple[Mqtt, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [source.name for source in (*self.opcua, *self.mqtt)]
        if not names:
            raise ValueError("name at least one source: [[opcua]] or [[mqtt]]")
        if len(set(names)) != len(names):
            raise ValueError("every source needs a name of its own")
        return self


@dataclass(frozen=True, slots=True)
class Target:
    """What a value becomes: `machine's unit = value · factor + offset`; or an event of `type`."""

    machine_id: str
    channel: str
    factor: float = 1.0
    offset: float = 0.0
    period_us: int | None = None
    """Captures: time between two values."""
    event_type: str = ""
    field: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A mapped node, topic, or Sparkplug (group/edge[/device], metric)."""

    kind: Literal["node", "topic", "metric"]
    address: str
    metric: str = ""


def load_mapping(path: Path) -> MappingFile:
    """The mapping in a TOML file. Raises `ConfigurationError` naming the file and every field."""
    try:
        text = path.read_bytes().decode()
        mapping = MappingFile.model_validate(tomllib.loads(text))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise ConfigurationError(f"{path}: {problems}") from error
    return _beside(mapping, path.absolute().parent)


def _beside(mapping: MappingFile, folder: Path) -> MappingFile:
    """Relative certificate paths are relative to the file."""
    brokers = []
    for broker in mapping.mqtt:
        paths = {n: getattr(broker, n) for n in ("ca", "certificate", "private_key")}
        update = {n: folder / p for n, p in paths.items() if p is not None}
        brokers.append(broker.model_copy(update=update))
    return mapping.model_copy(update={"mqtt": tuple(brokers)})


def targets(source: OpcUa | Mqtt, classes: Mapping[str, MachineClass]) -> dict[Place, list[Target]]:
    """What each place of a source means. Raises `ConfigurationError` with every problem."""
    found: dict[Place, list[Target]] = {}
    problems: list[str] = []
    for i, machines in enumerate(source.machines):
        where = f"{source.name}.machines[{i}]"
        try:
            for place, target in _targets(source, machines, classes, problems, where):
                known = found.setdefault(place, [])
                if any(t.field == target.field for t in known) and place.kind != "topic":
                    problems.append(f"{where}: {place.address} {place.metric} is mapped twice")
                known.append(target)
        except ConfigurationError as error:
            problems.append(f"{where}: {error}")
    doubles = _doubles(found)
    problems += [f"{source.name}: {m} {c} comes from two places" for m, c in doubles]
    if problems:
        raise ConfigurationError("; ".join(dict.fromkeys(problems)))
    return found


def _doubles(found: Mapping[Place, list[Target]]) -> list[tuple[str, str]]:
    seen: set[tuple[str, str]] = set()
    twice = []
    for target in (t for ts in found.values() for t in ts if not t.event_type):
        key = (target.machine_id, target.channel)
        if key in seen:
            twice.append(key)
        seen.add(key)
    return twice


def _targets(
    source: OpcUa | Mqtt,
    machines: Machines,
    classes: Mapping[str, MachineClass],
    problems: list[str],
    where: str,
) -> Iterator[tuple[Place, Target]]:
    declared = classes.get(machines.machine_class)
    if declared is None:
        raise ConfigurationError(
            f"no machine class {machines.machine_class!r}; there are: {', '.join(sorted(classes))}"
        )
    entries: list[tuple[str, MappedChannel | MappedEvent, Target]] = []
    for name, entry in machines.channels.items():
        channel = declared.channels.get(name)
        if channel is None:
            problems.append(
                f"{where}.channels.{name}: {declared.name} has no such channel; it has: "
                f"{', '.join(declared.channels)}"
            )
            continue
        try:
            factor, offset = conversion(entry.unit, channel.unit)
        except ConfigurationError as error:
            problems.append(f"{where}.channels.{name}: {error}")
            continue
        is_capture = channel.kind is ChannelKind.WAVEFORM
        period = (entry.sample_period or channel.sample_period or 1) if is_capture else None
        entries.append((f"channels.{name}", entry, Target("", name, factor, offset, period)))
    entries += [
        (f"events.{name}", event, Target("", "", event_type=event.type))
        for name, event in machines.events.items()
    ]
    for name, mapped, target in entries:
        place = _place(source, machines, mapped)
        if isinstance(place, str):
            problems.append(f"{where}.{name}: {place}")
            continue
        template = f"{place.address} {place.metric}"
        if len(machines.ids) > 1 and MACHINE not in template:
            problems.append(f"{where}.{name}: {len(machines.ids)} machines, so write {MACHINE}")
            continue
        path = tuple(mapped.field.split(".")) if mapped.field else ()
        for machine_id in machines.ids:
            yield (
                Place(
                    place.kind,
                    place.address.replace(MACHINE, machine_id),
                    place.metric.replace(MACHINE, machine_id),
                ),
                Target(
                    machine_id, target.channel, target.factor, target.offset, target.period_us,
                    target.event_type, path,
                ),
            )  # fmt: skip


def _place(
    source: OpcUa | Mqtt, machines: Machines, entry: MappedChannel | MappedEvent
) -> Place | str:
    """The entry's place with `{machine}` in it, or what is wrong."""
    given = [n for n in ("node", "topic", "metric") if getattr(entry, n) is not None]
    wanted = ["node"] if isinstance(source, OpcUa) else ["topic", "metric"]
    if len(given) != 1 or given[0] not in wanted:
        return f"give exactly one of {' and '.join(wanted)}"
    if entry.node is not None:
        return Place("node", entry.node)
    if entry.topic is not None:
        if any(c in entry.topic for c in "+#\0") or not entry.topic:
            return f"topic {entry.topic!r}: write one topic without + and #"
        return Place("topic", entry.topic)
    device = machines.device or ""
    if len(device.split("/")) not in {2, 3} or not all(device.split("/")):
        return 'metrics need `device = "group/edge node"` or "group/edge node/device"'
    return Place("metric", device, entry.metric or "")
