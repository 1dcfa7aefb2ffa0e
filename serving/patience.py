"""When a production model that is too slow is given a rest. Pure but for the clock it is given.

A running booster cannot be interrupted, so a late answer is still given. It is the questions after
it that must not queue up behind a model that has become slow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

IN_A_ROW = 3
"""Late calls before a rest; one alone may be a busy box."""
REST_SECONDS = 10.0
"""Then one call tries again; if it is late too, the model rests once more."""
ROWS = 64
"""The budget is for up to this many vectors; larger sets get more in proportion."""


class Patience:
    """Remembers late calls by model digest, so that a new model starts afresh."""

    def __init__(self, budget_seconds: float, clock: Callable[[], float]) -> None:
        """`clock`: seconds that never go back."""
        self.clock = clock
        self._budget = budget_seconds
        self._late: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def rests(self, digest: str) -> bool:
        """Whether the model is not to be asked now."""
        return self.clock() < self._until.get(digest, float("-inf"))

    def took(self, digest: str, vectors: int, seconds: float) -> None:
        """Tell how long the model took for so many vectors."""
        if seconds <= self._budget * max(1.0, vectors / ROWS):
            self._late.pop(digest, None)
            return
        late = self._late[digest] = self._late.get(digest, 0) + 1
        if late >= IN_A_ROW:
            self._until[digest] = self.clock() + REST_SECONDS
            log.error(
                "ALERT: model %s took %.3f s for %d vectors, its budget is %.3f s for %d; "
                "it rests for %g s",
                digest[:12],
                seconds,
                vectors,
                self._budget,
                ROWS,
                REST_SECONDS,
            )
