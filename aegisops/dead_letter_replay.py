"""Dead letters sent to their topic again, to be judged anew after a fix: each at most once.

What will be sent is committed to ops/replays before the first message leaves, and confirmed there
when Kafka has it. The commit carries a running number as a Delta app transaction, so of two
replays that planned on the same state one is refused. Killed between the two commits, a letter is
`unconfirmed`: it may have arrived or not, and only `again` sends it once more.

Readings of the message that were good the first time are in the lake and do not travel again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from aegisops import names
from aegisops.dead_letters import (
    ACKNOWLEDGED,
    INTENDED,
    PLACE,
    SENT,
    UNCONFIRMED,
    decode,
    only,
    topic_of,
)
from aegisops.errors import AegisError, BadInput, Conflict, Retryable, ServiceUnavailable
from aegisops.lake import Lake
from aegisops.machines import ChannelKind, MachineClass
from aegisops.schemas import avro
from aegisops.schemas.tables import MACHINES, REPLAYS

CHUNK = 1_000
"""Messages recorded, sent and confirmed together: what a kill may leave unconfirmed."""

_APP = names.OPS_REPLAYS


class Publisher(Protocol):
    """What a replay needs of `bus.Producer`."""

    def publish(
        self,
        topic: str,
        key: str,
        value: bytes,
        done: Callable[[Exception | None], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Queue one message; `Retryable` when the queue is full."""

    def poll(self, seconds: float = 0.0) -> None:
        """Serve delivery reports."""

    def flush(self, seconds: float = 30.0) -> None:
        """Wait for all delivery reports; `ServiceUnavailable` when some stay away."""


@dataclass(frozen=True, slots=True)
class Message:
    """One source message's letters, as they will be sent."""

    topic: str
    key: str
    value: bytes
    letters: pl.DataFrame
    """PLACE and reason of each letter in it."""

    @property
    def source(self) -> str:
        """`topic@incarnation/partition/offset:index,index`."""
        topic, partition, offset, _ = self.letters.select(PLACE).row(0)
        return f"{topic}/{partition}/{offset}:{','.join(map(str, self.letters['_index']))}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would do."""

    turn: int
    """Number of replays recorded when this was planned."""
    messages: list[Message] = field(default_factory=list)
    sent_before: int = 0
    """Letters that an earlier replay has sent."""
    unconfirmed: int = 0
    """Letters that a killed replay may have sent."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(source, why) of messages that would only be refused again."""

    @property
    def letters(self) -> int:
        """Letters that would be sent."""
        return sum(message.letters.height for message in self.messages)


def turn(lake: Lake) -> int:
    """Number of replays recorded so far. Ask before selecting what to replay."""
    return lake.ensure(REPLAYS).transaction_version(_APP) or 0


def plan(
    letters: pl.DataFrame,
    at_turn: int,
    *,
    writer_schema: avro.WriterSchema,
    schema_id: Callable[[str], int],
    is_capture: Callable[[str, str], bool],
    again: bool = False,
) -> Plan:
    """Which messages carry these letters, cut to what was refused.

    Args:
        letters: rows of `dead_letters.select`.
        at_turn: `turn` asked before they were selected.
        writer_schema: registry id → schema; raises `Retryable` while the registry is away.
        schema_id: topic → registry id of this release's contract.
        is_capture: (machine, channel) → whether it is a waveform.
        again: also what was sent, or perhaps sent, before.
    """
    before = letters["replayed"].value_counts() if letters.height else pl.DataFrame()
    counts: dict[str | None, int] = dict(before.iter_rows()) if before.height else {}
    made = Plan(
        at_turn,
        sent_before=0 if again else counts.get(SENT, 0),
        unconfirmed=0 if again else counts.get(UNCONFIRMED, 0),
    )
    wanted = letters if again else letters.filter(pl.col("replayed").is_null())
    for group in wanted.sort(PLACE).partition_by(PLACE[:3], maintain_order=True):
        try:
            made.messages.append(_message(group, writer_schema, schema_id, is_capture))
        except BadInput as error:
            topic, partition, offset, _ = group.select(PLACE).row(0)
            made.unreadable.append((f"{topic}/{partition}/{offset}", str(error)))
    return made


def _message(
    group: pl.DataFrame,
    writer_schema: avro.WriterSchema,
    schema_id: Callable[[str], int],
    is_capture: Callable[[str, str], bool],
) -> Message:
    label, raw, written_by = group.select("_topic", "raw", "schema_id").row(0)
    if topic_of(label) == names.REFUSALS_TOPIC:
        raise BadInput(
            str(group["reason"][0]),
            "a gateway refused it before Kafka; mend its mapping file, the source sends on",
        )
    record = decode(label, raw, written_by, writer_schema)
    topic, machine = topic_of(label) or label, str(record["machine_id"])
    kept = group.select(*PLACE, "reason")
    is_whole = group["channel"].is_null().any()
    if topic == names.READINGS_TOPIC and not is_whole:
        cut = only(record, set(group["_index"]), lambda channel: is_capture(machine, channel))
        if cut is not record:
            raw = avro.encode(topic, cut, schema_id(topic))
    return Message(topic, machine, raw, kept)


def captures(lake: Lake, classes: Mapping[str, MachineClass]) -> Callable[[str, str], bool]:
    """`is_capture` of the registered fleet."""
    rows = lake.scan(MACHINES).sort("registered_at", maintain_order=True)
    fleet = dict(rows.select("machine_id", "machine_class").collect().iter_rows())

    def is_capture(machine: str, channel: str) -> bool:
        declared = classes.get(fleet.get(machine, ""))
        found = None if declared is None else declared.channels.get(channel)
        return found is not None and found.kind is ChannelKind.WAVEFORM

    return is_capture


def send(
    lake: Lake,
    planned: Plan,
    publisher: Publisher,
    *,
    clock: Callable[[], datetime],
    replay_id: str | None = None,
) -> int:
    """Record, send and confirm; returns the letters Kafka acknowledged.

    Raises `Conflict` when another replay was recorded since the plan (nothing is sent), and the
    failure of a message: it stays `unconfirmed`, and the chunks after it are not begun.
    """
    identity = replay_id or str(uuid.uuid4())
    at_turn, acknowledged = planned.turn, 0
    for begin in range(0, len(planned.messages), CHUNK):
        chunk = planned.messages[begin : begin + CHUNK]
        _intend(lake, chunk, identity, at_turn, clock())
        at_turn += 1
        arrived, failure = _publish(chunk, identity, publisher)
        if arrived:
            lake.append(REPLAYS, _rows(arrived, identity, ACKNOWLEDGED, clock()))
            acknowledged += sum(message.letters.height for message in arrived)
        if failure is not None:
            raise failure
    return acknowledged


def _intend(lake: Lake, chunk: Sequence[Message], identity: str, at: int, now: datetime) -> None:
    handle = lake.ensure(REPLAYS)
    if (handle.transaction_version(_APP) or 0) != at:
        raise Conflict("another replay was recorded meanwhile; run the command again")
    lake.append(REPLAYS, _rows(chunk, identity, INTENDED, now), {_APP: at + 1}, handle)


def _publish(
    chunk: Sequence[Message], identity: str, publisher: Publisher
) -> tuple[list[Message], AegisError | None]:
    """The messages Kafka has acknowledged, and the first failure."""
    arrived: list[Message] = []
    failures: list[Exception] = []

    def reporter(message: Message) -> Callable[[Exception | None], None]:
        return lambda error: failures.append(error) if error else arrived.append(message)

    failure: AegisError | None = None
    try:
        for message in chunk:
            for _ in _patiently(publisher):
                headers = {names.REPLAY_OF_HEADER: message.source, names.REPLAY_ID_HEADER: identity}
                try:
                    publisher.publish(
                        message.topic, message.key, message.value, reporter(message), headers
                    )
                    break
                except Retryable:
                    continue
        publisher.flush()
    except AegisError as error:
        failure = error
    if failure is None and failures:
        failure = ServiceUnavailable(f"Kafka did not take a message: {failures[0]}")
    return arrived, failure


_TURNS, _TURN_SECONDS = 300, 0.1


def _patiently(publisher: Publisher) -> Iterator[int]:
    """Turns to try while the producer's queue is full."""
    for attempt in range(_TURNS):
        if attempt:
            publisher.poll(_TURN_SECONDS)
        yield attempt
    raise ServiceUnavailable("Kafka takes no messages; is the broker there?")


def _rows(messages: Sequence[Message], identity: str, state: str, at: datetime) -> pl.DataFrame:
    return pl.concat([message.letters for message in messages]).with_columns(
        replay_id=pl.lit(identity), state=pl.lit(state), recorded_at=pl.lit(at)
    )


def as_json(planned: Plan) -> dict[str, Any]:
    """The plan in numbers and sources."""
    return {
        "messages": len(planned.messages),
        "letters": planned.letters,
        "sources": [message.source for message in planned.messages],
        "sent_before": planned.sent_before,
        "unconfirmed": planned.unconfirmed,
        "unreadable": [{"source": s, "why": why} for s, why in planned.unreadable],
    }
