"""Whole-flush decoding: the raw messages of one topic → one frame, and whole-message failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl

from aegisops.schemas import avro
from aegisops.schemas.avro import Failure
from streaming.buffers import Messages

_MAGIC = 0
_FRAME_BYTES = 5
_US_PER_MS = 1_000
_chained = chain.from_iterable


Decode = Callable[[str, Sequence[bytes]], tuple[pl.DataFrame, list[Failure]]]
"""(topic, payloads) → (records with `_row` = payload number, failures). Raises `Retryable` when the
schema registry is away and a schema is not cached: an outage must never look like a bad message."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One topic's messages of one flush."""

    records: pl.DataFrame
    """Decoded messages with _partition, _offset and arrived_us, in arrival order per partition."""
    failures: pl.DataFrame
    """_partition, _offset, reason, why of messages that could not be decoded."""


def decode(topic: str, parts: Mapping[int, Messages], decoder: Decode, now_us: int) -> Batch:
    """Decode the messages of all partitions of a topic at once.

    `arrived_us` is Kafka's timestamp, so that judging again judges alike; a producer whose clock
    runs ahead of `now_us` gets `now_us` instead, lest it vouch for its own wrong times.
    """
    sizes = [len(messages) for messages in parts.values()]
    arrived = np.fromiter(_chained(m.arrived_ms for m in parts.values()), np.int64, sum(sizes))
    source = pl.DataFrame(
        {
            "_partition": np.repeat(np.array(list(parts), np.int32), sizes),
            "_offset": np.fromiter(
                _chained(m.offsets for m in parts.values()), np.int64, sum(sizes)
            ),
            "arrived_us": np.where(arrived > 0, np.minimum(arrived * _US_PER_MS, now_us), now_us),
        },
        schema={"_partition": pl.Int32, "_offset": pl.Int64, "arrived_us": pl.Int64},
    )
    records, failed = decoder(topic, list(_chained(m.values for m in parts.values())))
    failures = pl.DataFrame(
        [(str(f.reason), f.detail) for f in failed],
        schema={"reason": pl.String, "why": pl.String},
        orient="row",
    )
    return Batch(
        records.drop(avro.ROW).hstack(source[records[avro.ROW]]),
        source[[f.row for f in failed]].select("_partition", "_offset").hstack(failures),
    )


def schema_id(payload: bytes) -> int | None:
    """Registry id in a Confluent frame; None when it is not one."""
    if len(payload) < _FRAME_BYTES or payload[0] != _MAGIC:
        return None
    return int.from_bytes(payload[1:_FRAME_BYTES], "big", signed=True)
