"""What both sinks share: messages wait in columns, a flush writes all of them or none.

A flush that a store or Kafka itself holds up is no failure: the application pauses and everything
comes again. Which stores, and what is written, is the subclass's.
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence

from deltalake.exceptions import DeltaError
from quixstreams.sinks.base import BaseSink, SinkBackpressureError

from aegisops.errors import Retryable
from streaming.buffers import Buffers, Taken, TopicPartition
from streaming.metrics import StreamMetrics

log = logging.getLogger(__name__)


class BufferedSink(BaseSink):
    """Keeps raw messages until the next flush."""

    retry_seconds = 5.0
    """Pause before a postponed flush is tried again."""
    ends_at: tuple[type[Exception], ...] = ()
    """Errors that end the process, though they are `Retryable`: its restart is the retry."""

    def __init__(self, metrics: StreamMetrics, check_topics: Callable[[], None]) -> None:
        """`check_topics` raises when a topic is not the one any more that this process began on."""
        super().__init__()
        self._metrics = metrics
        self._check_topics = check_topics
        self._buffers = Buffers()
        # A flush that overran a rebalance may still be writing in its own thread.
        self._writing = threading.Lock()

    @property
    def waiting_bytes(self) -> int:
        """Payload bytes that wait for a flush."""
        return self._buffers.bytes

    def extend(
        self,
        partition: TopicPartition,
        offsets: Sequence[int],
        arrived_ms: Sequence[int],
        values: Sequence[bytes],
    ) -> None:
        """Keep messages of one partition, offsets ascending."""
        self._buffers.extend(partition, offsets, arrived_ms, values)

    def add(  # noqa: PLR0917 - Quix's signature
        self,
        value: bytes | None,
        key: object,  # noqa: ARG002
        timestamp: int,
        headers: object,  # noqa: ARG002
        topic: str,
        partition: int,
        offset: int,
    ) -> None:
        """Keep one message."""
        self.extend((topic, partition), [offset], [timestamp], [value or b""])

    def on_paused(self) -> None:
        """Another sink is away: Kafka will send everything again."""
        self._buffers.clear()

    def flush(self) -> None:
        """Write what was added.

        Raises `SinkBackpressureError` when a store, the registry or Kafka is away: the application
        pauses, and the same messages come again.
        """
        taken = self._buffers.swap()
        if not taken:
            return
        with self._writing, self._metrics.flush_seconds.time():
            try:
                # All messages here were fetched before this question, so the answer holds for them.
                self._check_topics()
                self.write(taken)
            except self.ends_at:
                raise
            except (Retryable, DeltaError, OSError) as error:
                self.postponed()
                self._metrics.postponed(error)
                log.warning("flush postponed by %s s: %s", self.retry_seconds, error)
                raise SinkBackpressureError(self.retry_seconds) from error
        self._metrics.flushed(sum(map(len, taken.values())))

    @abstractmethod
    def write(self, taken: Taken) -> None:
        """Write these messages to the stores."""

    @abstractmethod
    def postponed(self) -> None:
        """Forget what the stores may not have; the same messages come again."""

    def count_skipped(self, taken: Taken, stored: Callable[[TopicPartition], int]) -> Taken:
        """The messages behind the stored offsets; counts the others, and offsets that never came.

        Our producers leave no gaps, so a gap is what the broker dropped before it was read.
        """
        fresh: Taken = {}
        for partition, messages in taken.items():
            before = stored(partition)
            kept = messages.after(before)
            self._metrics.skipped.inc(len(messages) - len(kept))
            if not len(kept):
                continue
            fresh[partition] = kept
            if missing := kept.last - before - len(kept):
                self._metrics.missing.inc(missing)
                log.error(
                    "ALERT: %s: %s offsets between %s and %s never came; the broker dropped them "
                    "before they were read",
                    partition,
                    missing,
                    before,
                    kept.last,
                )
        return fresh
