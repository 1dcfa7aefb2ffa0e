"""Sparkplug B as a host sees it: births, deaths, aliases, sequence numbers, historical values.

Pure but for its own memory: bytes and the time in, items and wanted rebirths out. The broker is
`mqtt.py`'s. Sections are those of the Eclipse Sparkplug specification 3.0.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from aegisops.errors import BadInput
from aegisops.names import Quality, Reason
from streaming.mapping import Place, Target
from streaming.messages import MOST_VALUES
from streaming.samples import Item, Refusal
from streaming.sources import values
from streaming.sources.sparkplug_payload import DataType, payload_class

NAMESPACE = "spBv1.0"
REBIRTH_SECONDS = 10.0
"""At most one rebirth request per edge node in this time: a rebirth is a large message."""
MOST_BYTES = 4 * 1024 * 1024
_BD_SEQ = "bdSeq"
_REBIRTH = "Node Control/Rebirth"
_SEQUENCE = 256
_GOOD_PROPERTY = 192  # section 6.4.15: 0 bad, 192 good, 500 stale
_SIGNED = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
_ARRAYS = {
    DataType.INT8_ARRAY: "b", DataType.INT16_ARRAY: "h", DataType.INT32_ARRAY: "i",
    DataType.INT64_ARRAY: "q", DataType.UINT8_ARRAY: "B", DataType.UINT16_ARRAY: "H",
    DataType.UINT32_ARRAY: "I", DataType.UINT64_ARRAY: "Q", DataType.FLOAT_ARRAY: "f",
    DataType.DOUBLE_ARRAY: "d",
}  # fmt: skip
_TOPIC_PARTS = (4, 5)


class EdgeNode(NamedTuple):
    """Who publishes."""

    group: str
    name: str


class Heard(NamedTuple):
    """What a message meant."""

    items: tuple[Item, ...]
    rebirth: EdgeNode | None = None
    """The node that must be asked for its births again."""
    ignored: int = 0
    """Metrics that nobody mapped."""


@dataclass(slots=True)
class _Metric:
    name: str
    datatype: int


@dataclass(slots=True)
class _Node:
    is_born: bool = False
    bd_seq: int | None = None
    seq: int = -1
    aliases: dict[int, _Metric] = field(default_factory=dict)
    """Aliases are unique over a node and its devices (6.4.6)."""
    types: dict[tuple[str, str], int] = field(default_factory=dict)
    """(device, metric) → data type, as born."""
    asked_at: float = -1e18


@dataclass(frozen=True, slots=True)
class _Message:
    """One opened message."""

    topic: str
    kind: str
    node: EdgeNode
    device: str
    payload: Any
    raw: bytes
    now: float

    @property
    def address(self) -> str:
        """As in the mapping: group/edge node[/device]."""
        return "/".join(filter(None, (*self.node, self.device)))


class SparkplugHost:
    """The state of every edge node that the mapping names."""

    def __init__(self, source: str, targets: Mapping[Place, Sequence[Target]]) -> None:
        """`source`: the broker's name in the mapping, for refusals."""
        self._source = source
        self._targets: dict[tuple[str, str], Target] = {
            (place.address, place.metric): found[0]
            for place, found in targets.items()
            if place.kind == "metric"
        }
        nodes = {EdgeNode(*address.split("/")[:2]) for address, _ in self._targets}
        self._nodes = {node: _Node() for node in nodes}
        self._kinds: dict[str, Callable[[_Message, _Node], Heard]] = {
            "NBIRTH": self._node_birth,
            "NDEATH": self._node_death,
            "NDATA": self._data,
            "DBIRTH": self._device_birth,
            "DDEATH": self._device_death,
            "DDATA": self._data,
        }

    @property
    def topics(self) -> list[str]:
        """Topic filters to subscribe to."""
        groups = {(node.group, node.name) for node in self._nodes}
        kinds = ("NBIRTH", "NDEATH", "NDATA")
        filters = [f"{NAMESPACE}/{g}/{kind}/{n}" for g, n in groups for kind in kinds]
        filters += [
            f"{NAMESPACE}/{g}/{kind}/{n}/+"
            for g, n in groups
            for kind in ("DBIRTH", "DDEATH", "DDATA")
        ]
        return sorted(filters)

    def receive(self, topic: str, raw: bytes, now: float) -> Heard:
        """One message; `now` in seconds since 1970. Raises nothing for any input."""
        try:
            message, state = self._opened(topic, raw, now)
        except BadInput as error:
            return Heard((self._refusal(topic, error, raw, now),))
        except (DecodeError, UnicodeDecodeError) as error:
            # What it held may have been a birth: the state is not to be trusted.
            node = EdgeNode(*topic.split("/")[1:4:2])
            refusal = self._refusal(topic, _malformed(f"not Sparkplug B: {error}"), raw, now)
            return Heard((refusal,), self._ask(node, self._nodes[node], now))
        return self._kinds[message.kind](message, state)

    def forget(self) -> None:
        """The broker is gone: births must come again (6.4.5)."""
        for state in self._nodes.values():
            state.is_born = False

    # --- messages ---------------------------------------------------------------------------------

    def _opened(self, topic: str, raw: bytes, now: float) -> tuple[_Message, _Node]:
        parts = topic.split("/")
        if len(parts) not in _TOPIC_PARTS or parts[0] != NAMESPACE:
            raise _malformed("no Sparkplug B topic")
        kind, node = parts[2], EdgeNode(parts[1], parts[3])
        device = parts[4] if len(parts) == _TOPIC_PARTS[1] else ""
        state = self._nodes.get(node)
        if state is None or kind not in self._kinds or (kind[0] == "D") != bool(device):
            raise BadInput(Reason.UNMAPPED, f"no {kind} of such a node or device is mapped")
        if len(raw) > MOST_BYTES:
            raise BadInput(Reason.TOO_LARGE, f"{len(raw):,} bytes")
        payload = payload_class().FromString(raw)
        return _Message(topic, kind, node, device, payload, raw, now), state

    def _node_birth(self, message: _Message, state: _Node) -> Heard:
        state.is_born = True
        state.aliases.clear()
        state.types.clear()
        state.seq = message.payload.seq % _SEQUENCE
        state.bd_seq = _bd_seq(message.payload)
        return self._metrics(message, state, is_birth=True)

    def _node_death(self, message: _Message, state: _Node) -> Heard:
        bd_seq = _bd_seq(message.payload)
        if state.bd_seq is not None and bd_seq is not None and bd_seq != state.bd_seq:
            return Heard(())  # the will of an older session (6.4.4)
        state.is_born = False
        return Heard(self._stale(message.address, message.now))

    def _device_birth(self, message: _Message, state: _Node) -> Heard:
        return self._data(message, state, is_birth=True)

    def _device_death(self, message: _Message, state: _Node) -> Heard:
        gap = self._gap(message, state)
        return gap._replace(
            items=(*gap.items, *self._stale(message.address, message.now, exact=True))
        )

    def _data(self, message: _Message, state: _Node, *, is_birth: bool = False) -> Heard:
        gap = self._gap(message, state)
        heard = self._metrics(message, state, is_birth=is_birth)
        items = (*gap.items, *heard.items)
        return Heard(items, gap.rebirth or heard.rebirth, heard.ignored)

    def _gap(self, message: _Message, state: _Node) -> Heard:
        """Check the running number, 0 to 255 and round again (6.4.7)."""
        if not state.is_born:
            return Heard((), self._ask(message.node, state, message.now))
        before, state.seq = state.seq, message.payload.seq % _SEQUENCE
        if state.seq == (before + 1) % _SEQUENCE:
            return Heard(())
        error = BadInput(Reason.GAP, f"sequence number {state.seq} after {before}: some are lost")
        refusal = self._refusal(message.topic, error, b"", message.now)
        return Heard((refusal,), self._ask(message.node, state, message.now))

    def _metrics(self, message: _Message, state: _Node, *, is_birth: bool) -> Heard:
        items: list[Item] = []
        rebirth: EdgeNode | None = None
        ignored = 0
        for metric in message.payload.metrics:
            if is_birth:
                self._born(state, message.device, metric)
            known = state.aliases.get(metric.alias) if metric.HasField("alias") else None
            name = metric.name or (known.name if known else "")
            if not name:
                error = BadInput(Reason.UNMAPPED, f"alias {metric.alias} is unknown")
                raw = metric.SerializeToString()
                items.append(self._refusal(message.topic, error, raw, message.now))
                rebirth = rebirth or self._ask(message.node, state, message.now)
                continue
            target = self._targets.get((message.address, name))
            if target is None:
                ignored += 1
                continue
            born = known.datatype if known else state.types.get((message.device, name), 0)
            try:
                items.append(_item(target, metric, metric.datatype or born, message))
            except BadInput as error:
                place, raw = f"{message.address} {name}", metric.SerializeToString()
                items.append(self._refusal(place, error, raw, message.now, target))
        return Heard(tuple(items), rebirth, ignored)

    @staticmethod
    def _born(state: _Node, device: str, metric: Any) -> None:  # noqa: ANN401
        if metric.HasField("alias"):
            state.aliases[metric.alias] = _Metric(metric.name, metric.datatype)
        state.types[device, metric.name] = metric.datatype

    def _stale(self, address: str, now: float, *, exact: bool = False) -> tuple[Item, ...]:
        """A bad value without a number for everything the dead one measured (6.4.4)."""
        ts = round(now * 1e6)
        gone = [
            target
            for (place, _), target in self._targets.items()
            if place == address or (not exact and place.startswith(f"{address}/"))
        ]
        return tuple(values.item(t, None, ts, Quality.BAD) for t in gone if not t.event_type)

    def _ask(self, node: EdgeNode, state: _Node, now: float) -> EdgeNode | None:
        """The node, if it may be asked for a rebirth now."""
        if now - state.asked_at < REBIRTH_SECONDS:
            return None
        state.asked_at = now
        return node

    def _refusal(
        self, place: str, error: BadInput, raw: bytes, now: float, target: Target | None = None
    ) -> Refusal:
        machine, channel = (target.machine_id, target.channel) if target else ("", "")
        at, reason = round(now * 1e6), Reason(error.reason)
        return Refusal(self._source, place, reason, error.detail, raw, at, machine, channel)


def rebirth_request(node: EdgeNode, now: float) -> tuple[str, bytes]:
    """(topic, payload) of the command that makes a node send its births again (6.4.20)."""
    payload = payload_class()(timestamp=round(now * 1e3))
    metric = payload.metrics.add(name=_REBIRTH, datatype=int(DataType.BOOLEAN))
    metric.boolean_value = True
    raw: bytes = payload.SerializeToString()
    return f"{NAMESPACE}/{node.group}/NCMD/{node.name}", raw


def _malformed(detail: str) -> BadInput:
    return BadInput(Reason.MALFORMED, detail)


def _bd_seq(payload: Any) -> int | None:  # noqa: ANN401
    for metric in payload.metrics:
        if metric.name == _BD_SEQ:
            return int(metric.long_value or metric.int_value)
    return None


def _item(target: Target, metric: Any, datatype: int, message: _Message) -> Item:  # noqa: ANN401
    """Historical values take the same way: event time decides what they change downstream."""
    sent = metric.timestamp or message.payload.timestamp
    ts = sent * 1_000 if sent else round(message.now * 1e6)
    if metric.is_null or metric.WhichOneof("value") is None:
        return values.item(target, None, ts, Quality.BAD)
    return values.item(target, _value(metric, datatype), ts, _quality(metric))


def _quality(metric: Any) -> Quality:  # noqa: ANN401
    properties = metric.properties
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == "Quality":
            return Quality.GOOD if value.int_value == _GOOD_PROPERTY else Quality.BAD
    return Quality.GOOD


def _value(metric: Any, datatype: int) -> object:  # noqa: ANN401
    which = metric.WhichOneof("value")
    value: Any = getattr(metric, which)
    if which in {"int_value", "long_value"} and datatype in _SIGNED:
        bits = _SIGNED[DataType(datatype)]
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value
    if which == "bytes_value":
        code = _ARRAYS.get(DataType(datatype)) if datatype in set(DataType) else None
        if code is None:
            raise BadInput(Reason.MALFORMED, f"bytes of data type {datatype} are no numbers")
        size = struct.calcsize(code)
        if len(value) % size:
            raise BadInput(
                Reason.MALFORMED, f"{len(value)} bytes are no array of {size}-byte values"
            )
        if len(value) // size > MOST_VALUES:
            raise BadInput(Reason.TOO_LARGE, f"{len(value) // size:,} values")
        return struct.unpack(f"<{len(value) // size}{code}", value)
    return value
