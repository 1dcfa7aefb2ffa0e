"""Sources → spool → Kafka, in one thread: commit to the spool, acknowledge, send, delete.

Everything goes through the spool, so order per machine is the order of arrival, also after an
outage. A message leaves the spool when Kafka says that all replicas have it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from aegisops.errors import AegisError, Retryable
from streaming.gateway_metrics import GatewayMetrics
from streaming.messages import Encoder
from streaming.samples import Delivery, Refusal
from streaming.spool import Message, Spool, SpoolFull

log = logging.getLogger(__name__)

BATCH_SECONDS = 0.02
"""How long the first item of a commit waits for others: a commit costs a write to the disk."""
BATCH_ITEMS = 2_000
WAITING_ITEMS = 20_000
"""Items that may wait for the disk before a source has to wait; bounds memory."""
IN_FLIGHT = 5_000
"""Messages handed to the producer and not acknowledged; the rest stays on disk only."""
RETRY_SECONDS = 2.0
DRAIN_SECONDS = 15.0
_LOG_SECONDS = 10.0


class Sender(Protocol):
    """What this needs of `bus.Producer`."""

    def publish(
        self, topic: str, key: str, value: bytes, done: Callable[[Exception | None], None]
    ) -> None:
        """Queue one message."""

    def poll(self, seconds: float = 0.0) -> None:
        """Serve delivery reports."""


class Forwarder:
    """Takes deliveries from any thread; `run` (or `turn`, in tests) does the work in one."""

    def __init__(
        self,
        spool: Spool,
        sender: Sender,
        encoder: Encoder,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.time,
        *,
        waiting_items: int = WAITING_ITEMS,
    ) -> None:
        self._spool = spool
        self._sender = sender
        self._encoder = encoder
        self._metrics = metrics
        self._clock = clock
        self._waiting_items = waiting_items
        self._waiting: deque[Delivery] = deque()
        self._items = 0
        self._changed = threading.Condition()
        self._closed = False
        self._held: tuple[list[Delivery], list[Message]] = ([], [])
        self._acknowledged: list[int] = []
        self._in_flight = 0
        # What an earlier process left is read from the file.
        self._sent_to = 0 if spool.depth else spool.last_id
        self._failure: Exception | None = None
        self._rest_until = 0.0
        self._told_at = -_LOG_SECONDS
        self.turned_at = time.monotonic()
        """Monotonic time of the last turn: the liveness of the thread."""
        self.complaint = ""
        """What is wrong at the moment, for readiness; empty when nothing is."""

    # --- any thread -------------------------------------------------------------------------------

    def offer(self, delivery: Delivery) -> None:
        """Take a delivery; waits while too much is waiting for the disk.

        After `close` it is dropped without being acknowledged: its source sends it again.
        """
        with self._changed:
            while self._items >= self._waiting_items and not self._closed:
                self._changed.wait()
            self._put(delivery)

    def put(self, delivery: Delivery) -> None:
        """Take a delivery at once. For a source that waits for `done` before it goes on."""
        with self._changed:
            self._put(delivery)

    def close(self) -> None:
        """Take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, delivery: Delivery) -> None:
        if not self._closed:
            self._waiting.append(delivery)
            self._items += len(delivery.items)
            self._changed.notify_all()

    # --- the one thread ---------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `close`, then until Kafka has everything or `DRAIN_SECONDS` have passed."""
        while not self._closed:
            self.turn(0.005 if self._in_flight else 0.1)
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._is_busy() and time.monotonic() < deadline:
            self.turn(0.0)
            self._sender.poll(0.05)
        self.turn(0.0)
        if self._spool.depth:
            log.warning("%d messages stay in the spool for the next start", self._spool.depth)

    def turn(self, wait: float = 0.0) -> None:
        """One round: take what came (waiting at most `wait` s for it), commit, send, delete."""
        deliveries, messages = self._held
        if not deliveries:
            deliveries = self._take(wait)
            messages = self._encoder.encode(
                (item for delivery in deliveries for item in delivery.items),
                self._spool.last_id + 1,
                self._clock(),
                self._refused,
            )
        if messages or self._acknowledged:
            try:
                with self._metrics.commit_seconds.time():
                    self._spool.write(messages, self._acknowledged, _marks(deliveries))
            except SpoolFull as error:
                self._held = deliveries, messages
                self._complain(error)
                messages = []
                self._sender.poll(0.1)
            else:
                self._held = [], []
                self._acknowledged.clear()
        if not self._held[0]:
            self._acknowledge(deliveries)
        self._send(messages)
        self._sender.poll()
        self._measure()

    def _take(self, wait: float) -> list[Delivery]:
        with self._changed:
            if not self._waiting and wait and not self._closed:
                self._changed.wait(wait)
            if self._waiting and not self._closed:
                until = time.monotonic() + BATCH_SECONDS
                while self._items < BATCH_ITEMS and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
            taken, items = [], 0
            while self._waiting and items < BATCH_ITEMS:
                taken.append(self._waiting.popleft())
                items += len(taken[-1].items)
            self._items -= items
            self._changed.notify_all()
        return taken

    def _acknowledge(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._metrics.items.labels(delivery.source).inc(len(delivery.items))
            try:
                delivery.done()
            except Exception:  # a source that is gone will get its delivery again from the device
                log.exception("%s could not be told that its values are safe", delivery.source)

    def _send(self, new: list[Message]) -> None:
        now = time.monotonic()
        if self._failure is not None and not self._in_flight:
            # Whatever of it was delivered has left the file by now; the rest goes again, in order.
            if self._acknowledged:
                return
            self._complain(self._failure)
            self._failure, self._rest_until, self._sent_to = None, now + RETRY_SECONDS, 0
        if self._failure is not None or now < self._rest_until:
            return
        for message in self._next(new):
            try:
                self._sender.publish(
                    message.topic, message.key, message.value, partial(self._delivered, message.id)
                )
            except Retryable:
                break  # its queue is full: next round
            except AegisError as error:
                self._complain(error)
                self._rest_until = now + RETRY_SECONDS
                break
            self._in_flight += 1
            self._sent_to = message.id

    def _next(self, new: list[Message]) -> Iterator[Message]:
        room = IN_FLIGHT - self._in_flight
        if room <= 0 or self._sent_to >= self._spool.last_id:
            return iter(())
        if new and new[0].id == self._sent_to + 1:
            return iter(new[:room])
        return iter(self._spool.read(self._sent_to, room))

    def _delivered(self, number: int, error: Exception | None) -> None:
        self._in_flight -= 1
        if error is None:
            self._acknowledged.append(number)
            self.complaint = ""
            self._metrics.delivered.inc()
        else:
            self._failure = self._failure or error
            self._metrics.failed.inc()

    def _is_busy(self) -> bool:
        return bool(self._waiting or self._held[0] or self._in_flight or self._acknowledged)

    def _refused(self, refusal: Refusal) -> None:
        self._metrics.refused.labels(refusal.source, str(refusal.reason)).inc()

    def _complain(self, error: Exception) -> None:
        self.complaint = str(error)
        now = time.monotonic()
        if now - self._told_at > _LOG_SECONDS:
            self._told_at = now
            level = logging.WARNING if isinstance(error, Retryable) else logging.ERROR
            log.log(level, "%s; nothing is lost, the spool holds %d messages", error,
                    self._spool.depth)  # fmt: skip

    def _measure(self) -> None:
        self.turned_at = time.monotonic()
        self._metrics.spool_messages.set(self._spool.depth)
        self._metrics.spool_bytes.set(self._spool.bytes)
        oldest = self._spool.oldest_at() if self._spool.depth else None
        self._metrics.spool_age.set(0.0 if oldest is None else max(self._clock() - oldest, 0.0))


def _marks(deliveries: Iterable[Delivery]) -> Iterator[tuple[str, str, int, int]]:
    return ((d.source, *mark) for d in deliveries for mark in d.marks)
