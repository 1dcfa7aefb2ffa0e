"""How many requests a principal may send: a bucket in Redis for all API processes together.

A process takes tokens in small leases, so that most requests ask nobody. With Redis away it counts
for itself: the limit then holds per process.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aegisops.errors import ServiceUnavailable

LEASES_A_SECOND = 20.0
"""A lease is what the rate allows in a twentieth of a second."""
LEASE_SECONDS = 1.0
"""A lease that was not used up by then is void: it must not be hoarded."""
AWAY_SECONDS = 1.0
"""How long Redis is not asked again after it did not answer."""
SUBJECTS = 10_000


class Bucket(Protocol):
    """What is needed of Redis; see aegisops.rate_bucket."""

    async def take(self, name: str, want: int) -> int:
        """Tokens granted."""


@dataclass(slots=True)
class _Lease:
    left: float
    until: float
    counted_at: float | None = None
    """Since when it is a bucket of this process; None = leased from Redis."""


class Rates:
    """Runs on one event loop."""

    def __init__(
        self, bucket: Bucket, *, rate: float, burst: int, clock: Callable[[], float]
    ) -> None:
        """`rate`: requests a second and subject; `burst`: more at once; `clock`: seconds."""
        self._bucket = bucket
        self._rate, self._burst = rate, burst
        self._lease = max(1, round(rate / LEASES_A_SECOND))
        self._clock = clock
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._away_until = float("-inf")

    async def admits(self, subject: str) -> bool:
        """Whether the subject may send one more request now."""
        while True:
            lease, now = self._leases.get(subject), self._clock()
            if lease is not None and lease.left >= 1 and now < lease.until:
                lease.left -= 1
                return True
            if now < self._away_until:
                return self._alone(subject, lease, now)
            # One lease for all that wait: what each took for itself would be lost to the others.
            asked = self._asked.get(subject)
            if asked is None:
                asked = self._asked[subject] = asyncio.ensure_future(self._ask(subject))
                asked.add_done_callback(lambda _: self._asked.pop(subject, None))
            if not await asyncio.shield(asked):
                return False

    async def _ask(self, subject: str) -> bool:
        """Take a lease; False when the bucket is empty, True when there is one or Redis is away."""
        try:
            granted = await self._bucket.take(subject, self._lease)
        except ServiceUnavailable:
            self._away_until = self._clock() + AWAY_SECONDS
            return True
        self._keep(subject, _Lease(granted, self._clock() + LEASE_SECONDS))
        return granted >= 1

    def _alone(self, subject: str, lease: _Lease | None, now: float) -> bool:
        """Redis is away: a bucket of this process's own."""
        if lease is None or lease.counted_at is None:
            lease = _Lease(self._burst, float("-inf"), now)
            self._keep(subject, lease)
        gained = self._rate * (now - (lease.counted_at or 0.0))
        lease.left, lease.counted_at = min(self._burst, max(0.0, lease.left) + gained), now
        if lease.left < 1:
            return False
        lease.left -= 1
        return True

    def _keep(self, subject: str, lease: _Lease) -> None:
        self._leases[subject] = lease
        self._leases.move_to_end(subject)
        while len(self._leases) > SUBJECTS:
            self._leases.popitem(last=False)
