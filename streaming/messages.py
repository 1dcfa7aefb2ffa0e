"""Samples, events and refusals → encoded Kafka messages: one per machine, with all its samples.

Pure but for the schema ids, which are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from aegisops.errors import BadInput
from aegisops.names import EVENTS_TOPIC, READINGS_TOPIC, REFUSALS_TOPIC, Reason
from aegisops.schemas import avro
from streaming.samples import MOST_KEPT, Happening, Item, Refusal, Sample
from streaming.spool import Message

MOST_VALUES = 60_000
"""Values in one message: 480 kB, half of what a broker takes by default."""


class Encoder:
    """Makes messages with running numbers."""

    def __init__(self, gateway: str, schema_ids: Mapping[str, int]) -> None:
        """`schema_ids`: topic → registry id of this release's contract."""
        self._gateway = gateway
        self._ids = schema_ids

    def encode(
        self, items: Iterable[Item], first_id: int, now: float, refused: Callable[[Refusal], None]
    ) -> list[Message]:
        """Messages with ids from `first_id` on, made at `now` (seconds since 1970).

        Readings keep their order per machine. What does not fit a contract becomes a refusal;
        `refused` hears of each refusal.
        """
        messages: list[Message] = []
        for topic, key, record in self._records(items, refused):
            number = first_id + len(messages)
            stamp = {"seq": number, "sent_at": round(now * 1e6)}
            try:
                whole = {**record, **stamp} if topic == READINGS_TOPIC else record
                messages.append(Message(number, topic, key, self._value(topic, whole), now))
            except BadInput as error:
                detail = f"{topic} of {key}: {error.detail}"
                payload = repr(record).encode()
                refusal = Refusal(
                    "gateway", topic, Reason.MALFORMED, detail, payload, stamp["sent_at"], key
                )
                refused(refusal)
                value = self._value(REFUSALS_TOPIC, self._refusal(refusal))
                messages.append(Message(number, REFUSALS_TOPIC, self._gateway, value, now))
        return messages

    def _value(self, topic: str, record: Mapping[str, Any]) -> bytes:
        return avro.encode(topic, record, self._ids[topic])

    def _records(
        self, items: Iterable[Item], refused: Callable[[Refusal], None]
    ) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        machines: dict[str, list[Sample]] = {}
        rest: list[tuple[str, str, Mapping[str, Any]]] = []
        for item in items:
            if isinstance(item, Sample):
                machines.setdefault(item.machine_id, []).append(item)
            elif isinstance(item, Happening):
                rest.append((EVENTS_TOPIC, item.machine_id, item._asdict()))
            else:
                refused(item)
                rest.append((REFUSALS_TOPIC, f"{self._gateway}/{item.place}", self._refusal(item)))
        for machine_id, samples in machines.items():
            for blocks in _batches(samples):
                yield READINGS_TOPIC, machine_id, {"machine_id": machine_id, "blocks": blocks}
        yield from rest

    def _refusal(self, refusal: Refusal) -> dict[str, Any]:
        return {
            **refusal._asdict(),
            "gateway": self._gateway,
            "reason": str(refusal.reason),
            "payload": refusal.payload[:MOST_KEPT],
        }


def _batches(samples: Iterable[Sample]) -> Iterator[list[dict[str, Any]]]:
    blocks: list[dict[str, Any]] = []
    size = 0
    for sample in samples:
        if blocks and size + len(sample.values) > MOST_VALUES:
            yield blocks
            blocks, size = [], 0
        size += max(len(sample.values), 1)
        blocks.append(
            {
                "channel": sample.channel,
                "start_us": sample.ts,
                "period_us": sample.period_us,
                "quality": int(sample.quality),
                "values": sample.values,
            }
        )
    if blocks:
        yield blocks
