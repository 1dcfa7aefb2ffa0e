"""Every answer becomes a record in a hash chain, committed to the outbox before it is given.

The chain belongs to the outbox's file and goes on over restarts, so a tail that was cut off shows
as soon as the next record arrives. Checking a log: `aegisops.audit_chain.verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from aegisops import audit_chain
from aegisops.audit_chain import verify
from aegisops.names import PREDICTIONS_TOPIC
from serving.outbox import Message, Outbox, new_instance

__all__ = ["Audit", "verify"]

_STATE = "audit_chain"


class Audit:
    """Appends records to this instance's chain. One thread."""

    def __init__(self, outbox: Outbox, encode: Callable[[Mapping[str, Any]], bytes]) -> None:
        """`encode`: wire form of a predictions.avsc record."""
        self._outbox = outbox
        self._encode = encode
        stored = outbox.load_state(_STATE)
        if stored is None:
            self.instance, self._seq = new_instance(), 0
            self._previous = audit_chain.genesis(self.instance)
        else:
            state = orjson.loads(stored)
            self.instance, self._seq = state["instance"], state["next"]
            self._previous = state["digest"]

    def record(self, records: Sequence[dict[str, Any]]) -> None:
        """Chain, encode and commit the records of answers about to be given.

        `records` hold every field of predictions.avsc but the chain's own, which are filled in.
        Raises `OutboxFull` and changes nothing when they cannot be kept.
        """
        seq, previous = self._seq, self._previous
        messages = []
        for record in records:
            record["instance"], record["chain_seq"] = self.instance, seq
            record["previous_digest"] = previous
            previous = record["digest"] = audit_chain.digest(record, previous)
            seq += 1
            messages.append(Message(PREDICTIONS_TOPIC, record["machine_id"], self._encode(record)))
        state = orjson.dumps({"instance": self.instance, "next": seq, "digest": previous})
        self._outbox.append(messages, (_STATE, state.decode()))
        self._seq, self._previous = seq, previous
