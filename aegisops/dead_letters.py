"""Dead letters: found by reason, machine, time or place, decoded, and cut to what was refused.

A letter's place is that of its source: topic with incarnation, partition, offset and index. A
reading has a letter of its own, a message that could not be read or judged at all has one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from aegisops import names
from aegisops.errors import BadInput, ConfigurationError
from aegisops.lake import Lake
from aegisops.schemas import avro
from aegisops.schemas.tables import DEAD_LETTERS, REPLAYS

PLACE = ["_topic", "_partition", "_offset", "_index"]
INTENDED, ACKNOWLEDGED = "intended", "acknowledged"
SENT, UNCONFIRMED = "sent", "unconfirmed"


@dataclass(frozen=True, slots=True)
class Place:
    """Where letters come from; without `index` the whole message's."""

    topic: str
    """With or without `@<incarnation>`."""
    partition: int
    offset: int
    index: int | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """`topic/partition/offset` or `topic/partition/offset/index`.

        The topic of an import has a slash itself. Raises `ConfigurationError`.
        """
        parts = text.split("/")
        numbers: list[int] = []
        while len(parts) > 1 and parts[-1].isdigit():
            numbers.insert(0, int(parts.pop()))
        if len(numbers) not in {2, 3} or not parts[0]:
            raise ConfigurationError(
                f"{text}: write topic/partition/offset or topic/partition/offset/index, "
                "as `aegisops dlq list` shows them"
            )
        return cls("/".join(parts), *numbers)

    @property
    def condition(self) -> pl.Expr:
        """Which rows of bronze/dead_letters these are."""
        topic = pl.col("_topic")
        here = (
            ((topic == self.topic) | topic.str.starts_with(f"{self.topic}@"))
            & (pl.col("_partition") == self.partition)
            & (pl.col("_offset") == self.offset)
        )
        return here if self.index is None else here & (pl.col("_index") == self.index)


def select(
    lake: Lake,
    *,
    reason: str | None = None,
    machine: str | None = None,
    since: datetime | None = None,
    places: Collection[Place] = (),
) -> pl.LazyFrame:
    """Letters that meet every condition given, with `replayed`: null, `sent` or `unconfirmed`.

    `since`: arrived in the lake at this aware time or later. `unconfirmed`: a replay recorded that
    it would send the letter and did not live to see Kafka's answer.
    """
    letters = lake.scan(DEAD_LETTERS)
    if reason is not None:
        letters = letters.filter(pl.col("reason") == reason)
    if machine is not None:
        letters = letters.filter(pl.col("machine_id") == machine)
    if since is not None:
        letters = letters.filter(pl.col("_ingested_at") >= since)
    if places:
        letters = letters.filter(pl.any_horizontal([place.condition for place in places]))
    replays = (
        lake.scan(REPLAYS)
        .group_by(PLACE)
        .agg(
            replayed=pl.when((pl.col("state") == ACKNOWLEDGED).any())
            .then(pl.lit(SENT))
            .otherwise(pl.lit(UNCONFIRMED))
        )
    )
    return letters.join(replays, on=PLACE, how="left")


def decode(
    topic: str, raw: bytes, schema_id: int | None, writer_schema: avro.WriterSchema
) -> dict[str, Any]:
    """The record in a letter's bytes. Raises `BadInput` when it still does not decode.

    `topic` as in the letter. `Retryable` when the registry is away.
    """
    name = topic_of(topic)
    if name is None:
        what = "no registry id" if schema_id is None else f"registry id {schema_id}"
        raise BadInput(names.Reason.MALFORMED, f"{topic} is no Kafka topic ({what})")
    records, failures = avro.decode_many(name, [raw], writer_schema)
    if failures:
        raise BadInput(failures[0].reason, failures[0].detail)
    return records.drop(avro.ROW).row(0, named=True)


def topic_of(label: str) -> str | None:
    """Kafka topic of a letter's `_topic`; None for one that came by an import."""
    topic = label.partition("@")[0]
    return topic if topic in names.TOPICS else None


def only(
    record: dict[str, Any], indices: Collection[int], is_capture: Callable[[str], bool]
) -> dict[str, Any]:
    """A readings record with only the values at these indices (numbered from the message's first).

    A capture is refused, and kept, as a whole at the index of its first sample. A value that leaves
    its neighbours becomes a block of its own at its own time. The same object when all are kept.
    """
    blocks: list[dict[str, Any]] = []
    first = 0
    for block in record["blocks"]:
        size = max(len(block["values"]), 1)
        wanted = [i for i in range(size) if first + i in indices]
        if len(wanted) == size or (wanted and is_capture(block["channel"])):
            blocks.append(block)
        else:
            period = block["period_us"] or 0
            blocks += [
                {
                    **block,
                    "start_us": block["start_us"] + i * period,
                    "period_us": None,
                    "values": [block["values"][i]],
                }
                for i in wanted
            ]
        first += size
    is_whole = len(blocks) == len(record["blocks"]) and all(
        kept is block for kept, block in zip(blocks, record["blocks"], strict=True)
    )
    return record if is_whole else {**record, "blocks": blocks}
