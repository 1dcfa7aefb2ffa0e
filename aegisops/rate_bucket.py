"""A token bucket per name in Redis, shared by all API processes. One script, one round trip.

The bucket holds up to `burst` tokens and gains `rate` a second by Redis' own clock.
"""

from __future__ import annotations

from aegisops.names import rate_key
from aegisops.online_store import Client, connect_async, translated
from aegisops.settings import RedisSettings

_TAKE = """
local rate, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = redis.call('TIME')
now = now[1] + now[2] / 1e6
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local since = math.max(0, now - (tonumber(held[2]) or now))
local tokens = math.min(burst, (tonumber(held[1]) or burst) + rate * since)
local granted = math.min(want, math.floor(tokens))
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - granted), 'at', tostring(now))
redis.call('EXPIRE', KEYS[1], math.ceil(burst / rate) + 1)
return granted
"""


class RateBucket:
    """Takes tokens, for an event loop. Raises `ServiceUnavailable` when Redis is away."""

    def __init__(self, client: Client, *, rate: float, burst: int) -> None:
        """`rate`: tokens a second; `burst`: tokens a full bucket holds."""
        self._redis = client
        self._script = client.register_script(_TAKE)
        self._rate, self._burst = rate, burst

    @classmethod
    def from_settings(cls, settings: RedisSettings, *, rate: float, burst: int) -> RateBucket:
        """At the configured address; nothing is sent yet."""
        return cls(connect_async(settings), rate=rate, burst=burst)

    async def take(self, name: str, want: int) -> int:
        """Up to `want` tokens of that name's bucket: as many as there are."""
        with translated():
            arguments = [self._rate, self._burst, want]
            return int(await self._script(keys=[rate_key(name)], args=arguments))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
