"""Whole-flush decoding: the raw messages of one topic → one frame, and whole-message failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from aegisops.schemas.avro import Failure
from streaming.buffers import Message

_MAGIC = 0
_FRAME_BYTES = 5
_US_PER_MS = 1_000


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


def decode(
    topic: str, parts: Mapping[int, Sequence[Message]], decoder: Decode, now_us: int
) -> Batch:
    """Decode the messages of all partitions of a topic at once.

    `arrived_us` is Kafka's timestamp, so that judging again judges alike; a producer whose clock
    runs ahead of `now_us` gets `now_us` instead, lest it vouch for its own wrong times.
    """
    flat = [(p, m) for p, messages in parts.items() for m in messages]
    source = pl.DataFrame(
        {
            "_row": pl.Series(range(len(flat)), dtype=pl.Int64),
            "_partition": pl.Series([p for p, _ in flat], dtype=pl.Int32),
            "_offset": pl.Series([m.offset for _, m in flat], dtype=pl.Int64),
            "arrived_us": pl.Series(
                [
                    min(m.arrived_ms * _US_PER_MS, now_us) if m.arrived_ms > 0 else now_us
                    for _, m in flat
                ],
                dtype=pl.Int64,
            ),
        }
    )
    records, failed = decoder(topic, [m.value for _, m in flat])
    failures = pl.DataFrame(
        [(f.row, str(f.reason), f.detail) for f in failed],
        schema={"_row": pl.Int64, "reason": pl.String, "why": pl.String},
        orient="row",
    )
    records = records.with_columns(pl.col("_row").cast(pl.Int64))
    return Batch(
        records.join(source, on="_row", how="left", maintain_order="left")
        .sort("_row")
        .drop("_row"),
        failures.join(source, on="_row", how="left", maintain_order="left").select(
            "_partition", "_offset", "reason", "why"
        ),
    )


def schema_id(payload: bytes) -> int | None:
    """Registry id in a Confluent frame; None when it is not one."""
    if len(payload) < _FRAME_BYTES or payload[0] != _MAGIC:
        return None
    return int.from_bytes(payload[1:_FRAME_BYTES], "big", signed=True)
