"""Drafts of work orders, their outcome, and their way to the maintenance system.

A draft is kept (Redis and journal) before it is confirmed; the webhook gets it afterwards, as often
as it takes, with a key by which the receiver can fold repeats. The outcome goes through feedback,
so it reaches the labels like any other report.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aegisops.errors import Conflict, Permanent, Retryable
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import WORK_ORDERS_TOPIC
from aegisops.work_orders import Order, WorkOrderStore, from_journal, journal_record, order_id
from serving.lake_reads import LakeReads
from serving.outbox import Message, Outbox
from serving.prediction import iso

if TYPE_CHECKING:
    import httpx

    from aegisops.settings import WorkOrderSettings

log = logging.getLogger(__name__)

DELIVER_SECONDS = 1.0
LEASE_SECONDS = 30
TIMEOUT_SECONDS = 5.0
LONGEST_PAUSE = 300.0
COLUMNS = (
    "work_order_id", "machine_id", "site", "area", "title", "description", "priority",
    "procedure", "state", "created_at", "created_by", "alarm_id", "prediction_id", "outcome",
    "failure_mode", "comment", "closed_at", "closed_by",
)  # fmt: skip
_TRY_AGAIN = frozenset({408, 425, 429})


class KeyReused(Permanent):
    """The idempotency key belongs to another draft, or to another outcome."""


class UnknownWorkOrder(Permanent):
    """There is no order of this id that the caller may see."""


class WorkOrderDesk:
    """Drafts, lists and closes orders. Runs on one event loop."""

    def __init__(
        self,
        store: WorkOrderStore,
        outbox: Outbox,
        encode: Callable[[Mapping[str, Any]], bytes],
        lake_reads: LakeReads,
        *,
        has_webhook: bool,
        clock: Callable[[], float],
    ) -> None:
        """`encode`: wire form of a work_orders.avsc record. `clock`: Unix seconds."""
        self.store = store
        self._outbox = outbox
        self._encode = encode
        self._lake_reads = lake_reads
        self._has_webhook = has_webhook
        self._clock = clock

    async def draft(self, asked: Mapping[str, Any], key: str, by: str) -> tuple[Order, bool]:
        """The order drafted from `asked`, and whether it was there already.

        `asked` holds machine_id, site, area, alarm_id, prediction_id, title, description, priority
        and procedure. Raises `KeyReused`.
        """
        await self._filled()
        mark = hashlib.sha256(repr(sorted(asked.items())).encode()).hexdigest()
        order: Order = {
            **asked,
            "work_order_id": order_id(key),
            "version": 1,
            "mark": mark,
            "state": "draft",
            "created_at": iso(self._now()),
            "created_by": by,
            "outcome": None,
            "failure_mode": None,
            "comment": None,
            "closed_at": None,
            "closed_by": None,
            "delivery": self._delivery(),
        }
        other = await self.store.put(order, 0)
        if other is None:
            self._journal(order, by)
            return order, False
        if other.get("mark") != mark:
            raise KeyReused(f"{key!r} was used for another work order")
        return other, True

    async def listing(self, may_see: Callable[[str, str], bool]) -> list[Order]:
        """Orders of machines that the caller may see, newest first."""
        await self._filled()
        return [o for o in await self.store.all() if may_see(o["site"], o["area"])]

    async def find(self, work_order_id: str, may_see: Callable[[str, str], bool]) -> Order:
        """One order; `UnknownWorkOrder`."""
        await self._filled()
        order = await self.store.get(work_order_id)
        if order is None or not may_see(order["site"], order["area"]):
            raise UnknownWorkOrder(f"there is no work order {work_order_id[:100]!r}")
        return order

    async def close(self, order: Order, told: Mapping[str, Any], by: str) -> Order:
        """The order with its outcome; the same outcome again changes nothing.

        `told` holds outcome, failure_mode and comment. Raises `KeyReused` when it is closed with
        another outcome, `Conflict` when it changed in between.
        """
        if order["state"] == "closed":
            if any(order[name] != value for name, value in told.items()):
                raise KeyReused(f"{order['work_order_id']} is closed as {order['outcome']}")
            return order
        closed: Order = {
            **order,
            **told,
            "state": "closed",
            "version": order["version"] + 1,
            "closed_at": iso(self._now()),
            "closed_by": by,
            "delivery": self._delivery(),
        }
        await self._replace(closed, by)
        return closed

    async def delivered(self, order: Order, delivery: Mapping[str, Any]) -> None:
        """Note how the webhook took it; a newer version of the order wins."""
        noted = {**order, "delivery": dict(delivery), "version": order["version"] + 1}
        try:
            await self._replace(noted, "webhook")
        except Conflict:
            log.info("%s changed while it was delivered", order["work_order_id"])

    async def _replace(self, order: Order, by: str) -> None:
        other = await self.store.put(order, order["version"] - 1)
        if other is not None:
            raise Conflict(f"{order['work_order_id']} was changed meanwhile; load it again")
        self._journal(order, by)

    def _journal(self, order: Order, by: str) -> None:
        record = journal_record(order, by, self._now())
        message = Message(WORK_ORDERS_TOPIC, order["machine_id"], self._encode(record))
        self._outbox.append([message])

    def _delivery(self) -> dict[str, Any]:
        state = "queued" if self._has_webhook else "off"
        return {"webhook": state, "attempts": 0, "detail": None}

    async def _filled(self) -> None:
        if not await self.store.is_filled():
            await self.store.fill(await self._lake_reads.run(from_journal))

    def _now(self) -> int:
        return round(self._clock() * US_PER_SECOND)


class Delivery:
    """Brings orders to the webhook, one at a time, oldest first; one process at a time."""

    def __init__(
        self,
        desk: WorkOrderDesk,
        settings: WorkOrderSettings,
        owner: str,
        client: Callable[[], httpx.AsyncClient],
        clock: Callable[[], float],
    ) -> None:
        """`owner`: a name no other process has. `clock`: seconds."""
        self._desk = desk
        self._settings = settings
        self._owner = owner
        self._make = client
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._not_before: dict[str, float] = {}
        self._one_round = asyncio.Lock()

    async def run(self) -> None:
        """For ever; whatever goes wrong is tried again."""
        while True:
            await asyncio.sleep(DELIVER_SECONDS)
            try:
                if self._settings.webhook_url:
                    await self.round()
            except Retryable as error:
                log.debug("work orders wait: %s", error)
            except Exception:
                log.exception("work orders could not be delivered; trying again")

    async def round(self) -> None:
        """Deliver what is queued and due."""
        async with self._one_round:
            orders = await self._desk.store.all()
            queued = [o for o in orders if o["delivery"]["webhook"] == "queued"]
            for order in reversed(queued):
                if not await self._desk.store.take_delivery(self._owner, LEASE_SECONDS):
                    return
                if self._clock() >= self._not_before.get(order["work_order_id"], 0.0):
                    await self._deliver(order)

    async def _deliver(self, order: Order) -> None:
        identity, attempts = order["work_order_id"], order["delivery"]["attempts"] + 1
        problem, is_final = await self._send(order)
        if problem is None:
            self._not_before.pop(identity, None)
            await self._desk.delivered(order, _state("delivered", attempts, None))
        elif is_final:
            log.error("ALERT: work order %s was refused by the webhook: %s", identity, problem)
            await self._desk.delivered(order, _state("failed", attempts, problem))
        else:
            pause = min(LONGEST_PAUSE, 2.0 ** min(attempts, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
            self._not_before[identity] = self._clock() + pause
            if attempts == 1:
                await self._desk.delivered(order, _state("queued", attempts, problem))

    async def _send(self, order: Order) -> tuple[str | None, bool]:
        """Why it was not taken, and whether that is for good."""
        import httpx

        if self._client is None:
            self._client = self._make()
        # The draft and its closing are two events; a repeat of either has the same key.
        headers = {"Idempotency-Key": f"{order['work_order_id']}-{order['state']}"}
        token = self._settings.webhook_token
        if token is not None:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        event = {"event": f"work_order.{order['state']}", "work_order": shown(order)}
        try:
            answer = await self._client.post(
                self._settings.webhook_url, json=event, headers=headers, timeout=TIMEOUT_SECONDS
            )
        except httpx.TransportError as error:
            return f"{type(error).__name__}: the webhook does not answer", False
        if answer.is_success:
            return None, False
        is_busy = answer.is_server_error or answer.status_code in _TRY_AGAIN
        return f"the webhook answered {answer.status_code}", not is_busy

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


def shown(order: Order) -> dict[str, Any]:
    """The order as people and other systems see it."""
    return {name: value for name, value in order.items() if name != "mark"}


def as_csv(orders: Sequence[Order]) -> str:
    """RFC 4180. Text that a spreadsheet would take for a formula gets a leading apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for order in orders:
        writer.writerow([_cell(order[name]) for name in COLUMNS])
    return out.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _state(webhook: str, attempts: int, detail: str | None) -> dict[str, Any]:
    return {"webhook": webhook, "attempts": attempts, "detail": detail}
