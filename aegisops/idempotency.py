"""Idempotency keys in Redis, shared by all API processes.

A key is claimed before its request is carried out and kept once it was. A claim of a process that
died in between runs out, so the client's next try is carried out and not taken for a repeat.
"""

from __future__ import annotations

from enum import StrEnum

from aegisops import names
from aegisops.online_store import Client, connect_async, translated
from aegisops.settings import RedisSettings

CLAIM_SECONDS = 30
KEPT_SECONDS = 30 * 86_400


class Claim(StrEnum):
    """What is known of a key."""

    NEW = "new"  # it is ours now: carry the request out, then `keep` it
    REPEAT = "repeat"  # the same request was carried out before
    OTHER = "other"  # it belongs to a request with other content
    BUSY = "busy"  # somebody carries it out right now


class IdempotencyKeys:
    """Claims of keys. For an event loop."""

    def __init__(self, client: Client) -> None:
        self._redis = client

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> IdempotencyKeys:
        """Keys at the configured address; nothing is sent yet."""
        return cls(connect_async(settings))

    async def claim(self, key: str, mark: str) -> Claim:
        """Claim a key for the request with this mark (a digest of its content)."""
        name = names.idempotency_key(key)
        with translated():
            if await self._redis.set(name, f"claimed {mark}", nx=True, ex=CLAIM_SECONDS):
                return Claim.NEW
            found = await self._redis.get(name)
        if found is None:  # it ran out in this moment
            return Claim.BUSY
        state, _, known = found.decode().partition(" ")
        if known != mark:
            return Claim.OTHER
        return Claim.REPEAT if state == "kept" else Claim.BUSY

    async def keep(self, key: str, mark: str) -> None:
        """The request was carried out."""
        with translated():
            await self._redis.set(names.idempotency_key(key), f"kept {mark}", ex=KEPT_SECONDS)

    async def release(self, key: str) -> None:
        """The request was not carried out; the next try may be."""
        with translated():
            await self._redis.delete(names.idempotency_key(key))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
