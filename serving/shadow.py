"""Scores of the shadow model, beside the answers and never in their way.

After an answer is audited its vector is offered here. An offer only copies references into a
bounded queue: when that is full the vectors are dropped and counted. A worker thread scores them
with the model of the alias `shadow` and keeps the encoded records until the event loop hands them
to the outbox, which only one thread may touch. The shadow gives way everywhere: it takes no room
in the outbox that answers may need, and whatever it raises is counted and logged, not passed on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from aegisops import scoring
from aegisops.errors import UntrustedBundle
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import SHADOW_SCORES_TOPIC
from serving.model_slot import Loaded
from serving.outbox import Message, Outbox, OutboxFull

log = logging.getLogger(__name__)

BATCH = 256
"""Vectors scored in one call."""
OUTBOX_SHARE = 0.5
"""Share of the outbox from which on shadow records are dropped: the rest is for answers."""
JOIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Scored:
    """A vector that was answered about."""

    prediction_id: str
    machine_id: str
    machine_class: str
    feature_set: str
    values: npt.NDArray[np.float64]


class Counted(Protocol):
    """What is told how vectors ended, with their class and number."""

    def scored(self, machine_class: str, n: int) -> None:
        """Scored and on their way to the outbox."""

    def dropped(self, machine_class: str, n: int) -> None:
        """Given up for want of room."""

    def failed(self, machine_class: str, n: int) -> None:
        """The model raised, or gave no number."""


class ShadowScorer:
    """`wants`, `offer` and `hand_over` run on the event loop, the scoring on a thread."""

    def __init__(
        self,
        model_of: Callable[[str], Loaded | None],
        outbox: Outbox,
        encode: Callable[[Mapping[str, Any]], bytes],
        *,
        clock: Callable[[], float],
        counted: Counted,
        queue: int,
        outbox_capacity: int,
        probabilities: Callable[
            [scoring.Bundle, npt.NDArray[np.float64]], npt.NDArray[np.float64]
        ] = scoring.probabilities,
    ) -> None:
        """Give the outside world in.

        Args:
            model_of: machine class → its shadow model, if any.
            outbox: where the records go.
            encode: wire form of a shadow_scores.avsc record.
            clock: Unix seconds.
            counted: told how vectors ended.
            queue: vectors that may wait for the worker, and records that may wait for the loop.
            outbox_capacity: records the outbox takes in all.
            probabilities: bundle and vectors [n, d] → probabilities [n].
        """
        self._model_of = model_of
        self._outbox = outbox
        self._encode = encode
        self._clock = clock
        self._counted = counted
        self._limit = queue
        self._outbox_limit = int(outbox_capacity * OUTBOX_SHARE)
        self._probabilities = probabilities
        self._waiting: deque[Scored] = deque()
        self._done: deque[tuple[str, Message]] = deque()
        self._work = threading.Event()
        self._over = threading.Event()
        self._failing: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    @property
    def idle(self) -> bool:
        """Whether nothing waits; what the worker holds in hand does not count."""
        return not self._waiting and not self._done

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker, without waiting long for a slow model, and hand over what is scored."""
        self._over.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)
        self.hand_over()

    def wants(self, machine_class: str) -> bool:
        """Whether the class has a shadow model."""
        return self._model_of(machine_class) is not None

    def offer(self, vectors: Sequence[Scored]) -> None:
        """Queue vectors whose class has a shadow model; what finds no room is dropped."""
        room = max(0, self._limit - len(self._waiting))
        self._waiting.extend(vectors[:room])
        for vector in vectors[room:]:
            self._counted.dropped(vector.machine_class, 1)
        self._work.set()

    def hand_over(self) -> None:
        """Give scored records to the outbox in one commit; they are dropped when it is filling."""
        ready = [self._done.popleft() for _ in range(len(self._done))]
        if not ready:
            return
        is_kept = len(ready) <= self._outbox_limit - self._outbox.depth
        if is_kept:
            try:
                self._outbox.append([message for _, message in ready])
            except OutboxFull:
                is_kept = False
        if not is_kept:
            for name, _ in ready:
                self._counted.dropped(name, 1)

    def _run(self) -> None:
        while not self._over.is_set():
            self._work.wait()
            self._work.clear()
            while self._waiting and not self._over.is_set():
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                for name in {vector.machine_class for vector in batch}:
                    self._score(name, [v for v in batch if v.machine_class == name])

    def _score(self, name: str, vectors: Sequence[Scored]) -> None:
        loaded = self._model_of(name)
        if loaded is None:  # withdrawn in the meantime
            self._counted.dropped(name, len(vectors))
            return
        try:
            messages = self._records(loaded, vectors)
        except Exception:
            # Nobody acts on a shadow: whatever it raises must not end the thread.
            self._counted.failed(name, len(vectors))
            if (name, loaded.digest) not in self._failing:  # once a model, or it floods the log
                self._failing.add((name, loaded.digest))
                log.exception("the shadow model of %s failed; answers are not affected", name)
            return
        room = max(0, self._limit - len(self._done))
        self._done.extend((name, message) for message in messages[:room])
        self._counted.scored(name, len(messages[:room]))
        self._counted.failed(name, len(vectors) - len(messages))
        self._counted.dropped(name, len(messages[room:]))

    def _records(self, loaded: Loaded, vectors: Sequence[Scored]) -> list[Message]:
        expected = loaded.bundle.feature_set
        other = {v.feature_set for v in vectors} - {expected}
        if other:
            raise UntrustedBundle(f"the shadow model is for {expected}, the vectors are {other}")
        found = self._probabilities(loaded.bundle, np.stack([v.values for v in vectors]))
        scored_at = round(self._clock() * US_PER_SECOND)
        return [
            Message(
                SHADOW_SCORES_TOPIC,
                vector.machine_id,
                self._encode(
                    {
                        "prediction_id": vector.prediction_id,
                        "machine_id": vector.machine_id,
                        "scored_at": scored_at,
                        "model_version": loaded.version,
                        "digest": loaded.digest,
                        "probability": float(probability),
                    }
                ),
            )
            for vector, probability in zip(vectors, found, strict=True)
            if np.isfinite(probability)
        ]
