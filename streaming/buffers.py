"""What a sink has received and not yet written, per topic and partition."""

from __future__ import annotations

from typing import NamedTuple

TopicPartition = tuple[str, int]


class Message(NamedTuple):
    """One Kafka message as received."""

    offset: int
    arrived_ms: int
    """Kafka's timestamp, milliseconds since 1970."""
    value: bytes


Taken = dict[TopicPartition, list[Message]]
"""Messages in offset order, none empty."""


class Buffers:
    """Messages in offset order, each offset once."""

    def __init__(self) -> None:
        self._messages: Taken = {}

    def add(self, partition: TopicPartition, message: Message) -> None:
        """Keep a message. Offsets that go backwards come again: their buffered tail is dropped."""
        kept = self._messages.setdefault(partition, [])
        while kept and kept[-1].offset >= message.offset:
            kept.pop()
        kept.append(message)

    def swap(self) -> Taken:
        """Everything kept so far; the buffers are empty afterwards.

        A flush takes its messages first thing: one that overruns a rebalance goes on in a thread
        of its own and must not clear what arrives meanwhile.
        """
        taken, self._messages = self._messages, {}
        return taken

    def clear(self) -> None:
        """Forget everything; Kafka will send it again."""
        self._messages = {}
