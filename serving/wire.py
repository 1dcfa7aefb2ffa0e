"""Records to Kafka bytes, and the producer behind the outbox.

The outbox keeps Avro bodies without their frame: the frame carries the registry's schema id, and
the API must start and answer while the registry is away.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from aegisops.names import FEEDBACK_TOPIC, PREDICTIONS_TOPIC

SCHEMAS = {PREDICTIONS_TOPIC: "predictions", FEEDBACK_TOPIC: "feedback"}


def schema_text(topic: str) -> str:
    """The .avsc of a topic's records."""
    return files("aegisops.schemas").joinpath(f"{SCHEMAS[topic]}.avsc").read_text("utf-8")


def body_encoder(topic: str) -> Callable[[Mapping[str, Any]], bytes]:
    """Encoder of a topic's records to Avro bodies, without frame."""
    import fastavro

    schema = fastavro.parse_schema(json.loads(schema_text(topic)))

    def encode(record: Mapping[str, Any]) -> bytes:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, record)
        return buffer.getvalue()

    return encode


def frame(schema_id: int, body: bytes) -> bytes:
    """Confluent framing: magic byte 0, schema id, body."""
    return b"\0" + schema_id.to_bytes(4, "big") + body
