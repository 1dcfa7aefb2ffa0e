"""The Redis hash with the last answer about each machine: what the fleet page shows.

One field per machine, JSON, written by whoever answers (see serving.latest for its members). It is
a view: the audit log is the truth, and an emptied Redis fills again with the next answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from aegisops.names import LATEST_PREDICTIONS_KEY, recent_prediction_key
from aegisops.online_store import Client, connect_async, translated
from aegisops.settings import RedisSettings

RECENT_SECONDS = 120
"""How long a whole answer is kept; the lake writer needs a few seconds."""


class LatestPredictions:
    """Rows by machine id, for an event loop. Raises `ServiceUnavailable` when Redis is away."""

    def __init__(self, client: Client) -> None:
        self._redis = client

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> LatestPredictions:
        """At the configured address; nothing is sent yet."""
        return cls(connect_async(settings))

    async def read(self, machine_ids: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """Rows of those machines that have one; of all with None."""
        found: Mapping[bytes, bytes]
        with translated():
            if machine_ids is None:
                found = await self._redis.hgetall(LATEST_PREDICTIONS_KEY)
            elif machine_ids:
                blobs = await self._redis.hmget(LATEST_PREDICTIONS_KEY, list(machine_ids))
                pairs = zip(machine_ids, blobs, strict=True)
                found = {m.encode(): blob for m, blob in pairs if blob is not None}
            else:
                found = {}
        return {machine_id.decode(): orjson.loads(blob) for machine_id, blob in found.items()}

    async def write(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the rows of these machines."""
        if rows:
            with translated():
                await self._redis.hset(
                    LATEST_PREDICTIONS_KEY,
                    mapping={m: orjson.dumps(row) for m, row in rows.items()},
                )

    async def keep(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep answers by prediction id until the lake has their records."""
        if answers:
            with translated():
                pipe = self._redis.pipeline(transaction=False)
                for identity, answer in answers.items():
                    key = recent_prediction_key(identity)
                    pipe.set(key, orjson.dumps(answer), ex=RECENT_SECONDS)
                await pipe.execute()

    async def kept(self, prediction_id: str) -> dict[str, Any] | None:
        """A kept answer; None when it is unknown or older than RECENT_SECONDS."""
        with translated():
            blob = await self._redis.get(recent_prediction_key(prediction_id))
        return None if blob is None else dict(orjson.loads(blob))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
