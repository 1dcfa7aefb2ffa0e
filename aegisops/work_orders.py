"""Work orders in Redis: state that every API process sees at once, changed by compare-and-set.

The journal in ops/work_orders is the truth; an emptied Redis is filled from it. An order's id
follows from its idempotency key, so the same draft sent twice is one order, whichever process
takes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from aegisops import names
from aegisops.online_store import Client, connect_async, translated
from aegisops.settings import RedisSettings

if TYPE_CHECKING:
    from aegisops.lake import Lake

Order = dict[str, Any]
"""Members of console_contract.WorkOrder, `version`, and `mark` of what was asked for."""

_COMMIT = """
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local version = 0
if stored then version = cjson.decode(stored)['version'] end
if version ~= tonumber(ARGV[2]) then return stored or '' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return false
"""


def order_id(idempotency_key: str) -> str:
    """The id of the order that this key drafts."""
    return f"WO-{hashlib.sha256(idempotency_key.encode()).hexdigest()[:12].upper()}"


class WorkOrderStore:
    """Orders by id. For an event loop; raises `ServiceUnavailable` when Redis is away."""

    def __init__(self, client: Client) -> None:
        self._redis = client
        self._commit = client.register_script(_COMMIT)

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> WorkOrderStore:
        """At the configured address; nothing is sent yet."""
        return cls(connect_async(settings))

    async def is_filled(self) -> bool:
        """Whether the orders are complete; false after Redis was emptied."""
        with translated():
            return bool(await self._redis.exists(names.WORK_ORDERS_EPOCH_KEY))

    async def fill(self, orders: Iterable[Order]) -> None:
        """Add orders of the journal that are not there, and say that all are."""
        with translated():
            pipe = self._redis.pipeline(transaction=True)
            for order in orders:
                key = order["work_order_id"]
                pipe.hsetnx(names.WORK_ORDERS_KEY, key, orjson.dumps(order))
            pipe.set(names.WORK_ORDERS_EPOCH_KEY, "1")
            await pipe.execute()

    async def all(self) -> list[Order]:
        """Every order, newest first."""
        with translated():
            found = await self._redis.hvals(names.WORK_ORDERS_KEY)
        return sorted(map(orjson.loads, found), key=lambda o: o["created_at"], reverse=True)

    async def get(self, work_order_id: str) -> Order | None:
        """One order."""
        with translated():
            blob = await self._redis.hget(names.WORK_ORDERS_KEY, work_order_id)
        return None if blob is None else dict(orjson.loads(blob))

    async def put(self, order: Order, expected: int) -> Order | None:
        """Store the order if the stored version is `expected` (0 = there is none yet).

        Returns None when it is stored now, else what is there instead (empty = gone).
        """
        with translated():
            other = await self._commit(
                keys=[names.WORK_ORDERS_KEY],
                args=[order["work_order_id"], expected, orjson.dumps(order)],
            )
        return None if other is None else dict(orjson.loads(other or b"{}"))

    async def take_delivery(self, owner: str, seconds: int) -> bool:
        """Whether `owner` is the one process that delivers for the next seconds."""
        key = names.WORK_ORDER_DELIVERY_KEY
        with translated():
            if await self._redis.set(key, owner, nx=True, ex=seconds):
                return True
            is_own = await self._redis.get(key) == owner.encode()
            if is_own:
                await self._redis.expire(key, seconds)
            return bool(is_own)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def from_journal(lake: Lake) -> list[Order]:
    """The last state of every order in the journal. Blocking."""
    import polars as pl

    from aegisops.schemas.tables import WORK_ORDERS

    rows = lake.scan(WORK_ORDERS).sort("version").unique("work_order_id", keep="last").collect()
    return [orjson.loads(text) for text in rows.select(pl.col("snapshot")).to_series()]


def journal_record(order: Mapping[str, Any], subject: str, changed_at: int) -> dict[str, Any]:
    """A record of work_orders.avsc; `changed_at` in µs."""
    same = ("work_order_id", "version", "state", "machine_id", "alarm_id", "prediction_id")
    return {
        **{name: order[name] for name in same},
        "outcome": order["outcome"],
        "changed_at": changed_at,
        "subject": subject,
        "snapshot": orjson.dumps(order).decode(),
    }
