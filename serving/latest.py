"""The last answer about each machine, kept in Redis beside the audit: what the fleet page reads.

The response path only notes an answer; a background task reduces it to a row and writes the rows
of the last moments together. Answers about the past or about given features are no news of the
machine and are not noted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from aegisops.errors import ServiceUnavailable
from aegisops.latest_predictions import LatestPredictions
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import RiskLevel
from serving import health
from serving.ladder import Judgement
from serving.prediction import Answer, Case
from serving.vectors import Unusable

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
AT_ONCE = 64
"""Rows made before the event loop gets its turn."""
TREND_STEP = 300 * US_PER_SECOND
"""µs between two points of a machine's trend."""
TREND_POINTS = 24

Row = dict[str, Any]
"""`at` µs of the question, `abnormal_since` µs or null, `trend` [[at, health, probability], …] of
the last two hours, oldest first, and the members of `_shown`."""


class LatestBook:
    """Notes answers and keeps Redis' rows of them. Runs on one event loop."""

    def __init__(self, store: LatestPredictions) -> None:
        self._store = store
        self._noted: dict[str, tuple[Case, Judgement, Answer]] = {}

    def note(self, case: Case, judgement: Judgement, answer: Answer) -> None:
        """Remember the answer for the next flush; the newest per machine counts."""
        if case.is_current:
            self._noted[case.machine.machine_id] = case, judgement, answer

    async def rows(self) -> dict[str, Row]:
        """Every machine's row; `ServiceUnavailable` when Redis does not answer."""
        return await self._store.read()

    async def row(self, machine_id: str) -> Row | None:
        """One machine's row."""
        return (await self._store.read([machine_id])).get(machine_id)

    async def answer(self, prediction_id: str) -> Answer | None:
        """A whole answer of the last minutes."""
        return await self._store.kept(prediction_id)

    async def run(self) -> None:
        """Flush for ever; Redis away costs the rows of that time, not the loop."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except ServiceUnavailable:
                log.debug("the fleet page's rows wait for Redis")
            except Exception:
                log.exception("the fleet page's rows could not be written")

    async def flush(self) -> None:
        """Write the rows of what was noted since the last time."""
        noted, self._noted = self._noted, {}
        if not noted:
            return
        before = await self._store.read(list(noted))
        rows: dict[str, Row] = {}
        for i, (machine_id, parts) in enumerate(noted.items(), 1):
            row = follow(before.get(machine_id), *parts)
            if row is not None:
                rows[machine_id] = row
            if i % AT_ONCE == 0:
                await asyncio.sleep(0)
        await self._store.write(rows)
        await self._store.keep({answer["prediction_id"]: answer for *_, answer in noted.values()})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._store.aclose()


def follow(
    before: Mapping[str, Any] | None, case: Case, judgement: Judgement, answer: Answer
) -> Row | None:
    """The row after this answer; None when `before` is of a later question. Pure."""
    at = case.asked_at
    if before is not None and before["at"] > at:
        return None
    row = _shown(case, judgement, answer) | {"at": at}
    is_abnormal = judgement.risk is not RiskLevel.NORMAL
    began = None if before is None else before["abnormal_since"]
    row["abnormal_since"] = (at if began is None else began) if is_abnormal else None
    trend = [] if before is None else before["trend"]
    if not trend or at - trend[-1][0] >= TREND_STEP:
        trend = [*trend, [at, row["health"], judgement.probability]]
    oldest = at - TREND_POINTS * TREND_STEP
    row["trend"] = [point for point in trend if point[0] >= oldest][-TREND_POINTS:]
    return row


def _shown(case: Case, judgement: Judgement, answer: Answer) -> Row:
    vector, mode, model = case.vector, judgement.failure_mode, judgement.model
    scored = health.parts(case.machine_class, vector, judgement)
    return {
        "prediction_id": answer["prediction_id"],
        "risk": judgement.risk.value,
        "probability": judgement.probability,
        "served_by": judgement.rung.value,
        "cause": None if judgement.cause is None else judgement.cause.value,
        "explanation": judgement.explanation,
        "failure_mode": None if mode is None else {"code": mode["code"], "title": mode["title"]},
        "model_version": None if model is None else model.version,
        "health": health.score_of(scored),
        "signal": judgement.signal,
        "coverage": None if isinstance(vector, Unusable) else round(vector.coverage, 4),
        "features_at": vector.at,
    }
