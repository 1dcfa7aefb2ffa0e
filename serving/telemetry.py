"""Fan-out of live messages to clients, each with a bounded queue. Pure asyncio: no HTTP, no Redis.

`publish` never waits. A client whose queue is full loses what waits there, is told so with a
`dropped` message, and after STRIKES such losses without catching up it is closed. Clients that
watch the same machines share one encoded message, so a slow one costs references, not copies.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import orjson

from aegisops.errors import Retryable

VERSION = 1
"""`v` of every message; fields are only ever added within a version."""
STRIKES = 3
"""Losses in a row, without the queue running empty in between, until a client is closed."""
QUEUE_BYTES = 4 * 1024 * 1024
"""Bytes that may wait for one client, whatever the number of messages."""


class Kind(StrEnum):
    """What a client can ask for."""

    READINGS = "readings"
    FEATURES = "features"
    PREDICTIONS = "predictions"
    ALARMS = "alarms"


@dataclass(frozen=True)
class Message:
    """One message as the client gets it."""

    type: str
    body: bytes
    """JSON."""
    position: str | None = None
    """Everything up to here was delivered once this message was; None: no change."""

    @cached_property
    def text(self) -> str:
        """The body for a WebSocket."""
        return self.body.decode()

    @cached_property
    def event(self) -> bytes:
        """The message as a server-sent event."""
        head = b"" if self.position is None else b"id: %s\n" % self.position.encode()
        return head + b"event: %s\ndata: %s\n\n" % (self.type.encode(), self.body)


class TooManyClients(Retryable):
    """The API or the subject has all the live clients it may have."""


class Subscription:
    """One client's view. Made by `Hub.subscribe`; the client calls `next` and, at last, `close`."""

    def __init__(
        self,
        hub: Hub,
        subject: str,
        machines: frozenset[str],
        kinds: frozenset[Kind],
        sees: Callable[[str, str], bool],
    ) -> None:
        self._hub = hub
        self.sees = sees
        """Whether the client's token covers a plant and area; of those it gets every alarm."""
        self.subject = subject
        self.machines = machines
        self.kinds = kinds
        self.position: str | None = None
        """Of the last message taken: where a client may resume without a gap."""
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._dropped = 0
        self._strikes = 0
        self._reason: str | None = None
        self._wake = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether messages still come."""
        return self._reason is None

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return len(self._queue)

    def put(self, message: Message) -> None:
        """Queue a message; never waits."""
        if not self.is_open:
            return
        full = len(self._queue) >= self._hub.queue or self._bytes + len(message.body) > QUEUE_BYTES
        if full and self._queue:
            self._dropped += len(self._queue)
            self._strikes += 1
            self._clear()
            if self._strikes > STRIKES:
                self.close("slow")
                return
        self._queue.append(message)
        self._bytes += len(message.body)
        self._wake.set()

    async def next(self) -> Message | None:
        """The next message in order; None after the last one, which says why it was the last."""
        while True:
            if self._dropped:
                lost, self._dropped = self._dropped, 0
                return message("dropped", messages=lost, resume_from=self.position)
            if self._queue:
                return self._take()
            if self._reason is not None:
                if not self._reason:
                    return None
                reason, self._reason = self._reason, ""
                return message("closed", reason=reason, resume_from=self.position)
            self._strikes = 0
            self._wake.clear()
            await self._wake.wait()

    def close(self, reason: str = "") -> None:
        """End it; with a reason the client still gets a `closed` message that names it."""
        if self.is_open:
            self._reason = reason
            self._hub.forget(self)
        self._wake.set()

    def _take(self) -> Message:
        taken = self._queue.popleft()
        self._bytes -= len(taken.body)
        if taken.position is not None:
            self.position = taken.position
        return taken

    def _clear(self) -> None:
        self._queue.clear()
        self._bytes = 0


class Hub:
    """All live clients of this process. Every method runs on the event loop."""

    def __init__(self, *, clients: int, per_subject: int, queue: int) -> None:
        """Limits: clients in all and per token subject, messages that wait for one client."""
        self.queue = queue
        self._clients = clients
        self._per_subject = per_subject
        self._subjects: Counter[str] = Counter()
        self._groups: dict[frozenset[str], dict[Subscription, None]] = {}
        self._watched: Counter[str] = Counter()
        self.is_closed = False

    def __len__(self) -> int:
        """Open subscriptions."""
        return self._subjects.total()

    @property
    def watched(self) -> Mapping[str, int]:
        """Machine → how many clients watch it; only those with at least one."""
        return self._watched

    def subscribe(
        self,
        subject: str,
        machines: Iterable[str],
        kinds: Iterable[Kind] = Kind,
        sees: Callable[[str, str], bool] = lambda site, area: True,  # noqa: ARG005
    ) -> Subscription:
        """A new client's subscription; `TooManyClients` beyond the limits or after `close`."""
        if self.is_closed:
            raise TooManyClients("the API is stopping; connect again")
        if len(self) >= self._clients:
            raise TooManyClients(f"{self._clients} live clients are connected; try again later")
        if self._subjects[subject] >= self._per_subject:
            raise TooManyClients(
                f"this token's subject has {self._per_subject} live clients; close one of them"
            )
        made = Subscription(self, subject, frozenset(machines), frozenset(kinds), sees)
        self._subjects[subject] += 1
        self._watched.update(made.machines)
        self._groups.setdefault(made.machines, {})[made] = None
        return made

    def publish_alarms(
        self,
        rows: Iterable[tuple[str, str, str, bytes]],
        **head: Any,  # noqa: ANN401 - JSON members
    ) -> None:
        """Send every client the alarms of its token's areas, whichever machines it watches.

        `rows`: (machine, plant, area, JSON); those without a machine are everybody's.
        """
        opening = _opening(Kind.ALARMS, None, head) + b',"machines":['
        known = list(rows)
        for members in list(self._groups.values()):
            for subscription in list(members):
                if Kind.ALARMS not in subscription.kinds:
                    continue
                mine = [r for m, site, area, r in known if not m or subscription.sees(site, area)]
                if mine:
                    body = opening + b",".join(mine) + b"]}"
                    subscription.put(Message(Kind.ALARMS.value, body))

    def publish(
        self,
        kind: Kind,
        parts: Mapping[str, bytes],
        *,
        position: str | None = None,
        **head: Any,  # noqa: ANN401 - JSON members
    ) -> None:
        """Send every client the parts (machine → JSON) of the machines it watches.

        A client that watches none of them gets nothing; the next heartbeat tells it the position.
        """
        if not parts:
            return
        opening = _opening(kind, position, head) + b',"machines":['
        for machines, members in list(self._groups.items()):
            mine = [part for machine_id, part in parts.items() if machine_id in machines]
            if mine:
                body = opening + b",".join(mine) + b"]}"
                shared = Message(kind.value, body, position)
                for subscription in list(members):
                    if kind in subscription.kinds:
                        subscription.put(shared)

    def notify(self, machines: Iterable[str], make: Callable[[list[str]], Message]) -> None:
        """Send each client `make(those of the machines that it watches)`, if there are any."""
        affected = list(machines)
        for watched, members in list(self._groups.items()):
            if mine := [machine_id for machine_id in affected if machine_id in watched]:
                shared = make(mine)
                for subscription in list(members):
                    subscription.put(shared)

    def broadcast(self, shared: Message, kind: Kind | None = None) -> None:
        """Send every client the same message; with `kind`, those that asked for it."""
        for members in list(self._groups.values()):
            for subscription in list(members):
                if kind is None or kind in subscription.kinds:
                    subscription.put(shared)

    def close(self) -> None:
        """Tell every client that the API stops; no new one is taken."""
        self.is_closed = True
        for members in list(self._groups.values()):
            for subscription in list(members):
                subscription.close("stopping")

    def forget(self, subscription: Subscription) -> None:
        """Called by a subscription that closes."""
        members = self._groups[subscription.machines]
        del members[subscription]
        if not members:
            del self._groups[subscription.machines]
        self._subjects -= Counter({subscription.subject: 1})
        self._watched -= Counter(subscription.machines)


def message(type_: str, position: str | None = None, **members: Any) -> Message:  # noqa: ANN401
    """A message of these JSON members."""
    return Message(type_, _opening(type_, position, members) + b"}", position)


def _opening(type_: str, position: str | None, members: Mapping[str, Any]) -> bytes:
    head: dict[str, Any] = {"v": VERSION, "type": type_}
    if position is not None:
        head["position"] = position
    return orjson.dumps(head | dict(members))[:-1]
