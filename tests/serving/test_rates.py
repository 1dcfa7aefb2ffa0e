from __future__ import annotations

import asyncio

import pytest

from aegisops.errors import ServiceUnavailable
from aegisops.rate_bucket import RateBucket
from aegisops.settings import Settings
from serving.rates import Rates

pytestmark = pytest.mark.anyio


class Bucket:
    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.asked = 0
        self.is_away = False

    async def take(self, name: str, want: int) -> int:
        self.asked += 1
        if self.is_away:
            raise ServiceUnavailable("away")
        granted = min(want, self.tokens)
        self.tokens -= granted
        return granted


async def test_a_lease_spares_most_requests_the_question() -> None:
    bucket = Bucket(1_000)
    rates = Rates(bucket, rate=200, burst=400, clock=lambda: 0.0)
    assert all([await rates.admits("a") for _ in range(100)])
    assert bucket.asked == 10


async def test_an_empty_bucket_refuses() -> None:
    rates = Rates(Bucket(2), rate=20, burst=40, clock=lambda: 0.0)
    assert [await rates.admits("a") for _ in range(3)] == [True, True, False]


async def test_an_old_lease_is_void() -> None:
    now = [0.0]
    bucket = Bucket(15)
    rates = Rates(bucket, rate=200, burst=400, clock=lambda: now[0])
    assert await rates.admits("a")
    now[0] = 2.0
    assert await rates.admits("a")
    assert bucket.asked == 2


async def test_with_redis_away_each_process_counts_for_itself() -> None:
    now = [0.0]
    bucket = Bucket(0)
    bucket.is_away = True
    rates = Rates(bucket, rate=10, burst=3, clock=lambda: now[0])
    assert [await rates.admits("a") for _ in range(4)] == [True, True, True, False]
    assert await rates.admits("b")
    now[0] = 0.2
    assert [await rates.admits("a") for _ in range(3)] == [True, True, False]
    assert bucket.asked == 1


@pytest.mark.integration
async def test_the_bucket_in_redis_is_shared_and_refills(settings: Settings) -> None:
    one = RateBucket.from_settings(settings.redis, rate=0.001, burst=5)
    two = RateBucket.from_settings(settings.redis, rate=0.001, burst=5)
    assert [await one.take("a", 3), await two.take("a", 3), await one.take("a", 3)] == [3, 2, 0]
    assert await two.take("b", 3) == 3
    fast = RateBucket.from_settings(settings.redis, rate=1e9, burst=5)
    assert await fast.take("a", 9) == 5
    for bucket in (one, two, fast):
        await bucket.aclose()


async def test_requests_at_once_share_one_lease() -> None:
    class Slow(Bucket):
        async def take(self, name: str, want: int) -> int:
            await asyncio.sleep(0)
            return await super().take(name, want)

    bucket = Slow(100)
    rates = Rates(bucket, rate=200, burst=400, clock=lambda: 0.0)
    admitted = await asyncio.gather(*(rates.admits("a") for _ in range(120)))
    assert sum(admitted) == 100  # none was lost
    assert bucket.asked < 40
