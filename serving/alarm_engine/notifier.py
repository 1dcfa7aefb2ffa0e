"""Tells a pager about alarms: PagerDuty Events v2 over HTTP, one event at a time, in order.

What was told is remembered in Redis, so a restart or another engine tells nothing twice. An event
that was taken just before the process died is sent again with the same `dedup_key`, which the
receiver folds into the same incident. What the pager refuses for good is not sent again by this
process: it is an alarm of its own, and is tried anew after a restart with another configuration.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aegisops.alarm_store import AlarmStore, Signal
from aegisops.alarms.lifecycle import Alarm
from aegisops.alarms.notices import Step, Told, event, next_step
from aegisops.errors import ConfigurationError, Permanent, Retryable
from serving.alarm_engine.metrics import EngineMetrics
from serving.alarms import AlarmDesk

if TYPE_CHECKING:
    import httpx

    from aegisops.settings import AlarmSettings

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
LONGEST_PAUSE = 60.0
PATIENCE_SECONDS = 60.0
"""After failing this long, that notifications do not get through is an alarm."""
_TOO_MANY = 429
_TRY_AGAIN = frozenset({408, 425, _TOO_MANY})


class Refused(Permanent):
    """The pager will never take this event."""


class Busy(Retryable):
    """The pager is away or wants a pause of some seconds."""

    def __init__(self, detail: str, pause: float | None = None) -> None:
        super().__init__(detail)
        self.pause = pause


def routing_key(settings: AlarmSettings) -> str:
    """The secret, from the environment or a file. Raises `ConfigurationError`."""
    if settings.webhook_routing_key_file is not None:
        try:
            return settings.webhook_routing_key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(
                f"AEGIS_ALARMS__WEBHOOK_ROUTING_KEY_FILE: cannot be read: {error.strerror}"
            ) from error
    if settings.webhook_routing_key is None:
        raise ConfigurationError(
            "AEGIS_ALARMS__WEBHOOK_URL needs AEGIS_ALARMS__WEBHOOK_ROUTING_KEY, or its _FILE"
        )
    return settings.webhook_routing_key.get_secret_value()


class Pager:
    """The receiver at the other end."""

    def __init__(self, url: str, key: str, client: httpx.AsyncClient) -> None:
        self._url = url
        self._key = key
        self._client = client

    async def tell(self, step: Step, row: dict[str, object]) -> None:
        """Send one event. Raises `Refused` or `Busy`; neither names the key."""
        import httpx

        try:
            answer = await self._client.post(
                self._url, json=event(step, row, self._key), timeout=TIMEOUT_SECONDS
            )
        except httpx.TransportError as error:
            raise Busy(f"{type(error).__name__} at {self._url}") from error
        if answer.is_success:
            return
        told = f"{self._url} answered {answer.status_code}"
        if answer.is_server_error or answer.status_code in _TRY_AGAIN:
            raise Busy(told, _seconds(answer.headers.get("retry-after")))
        raise Refused(f"{told}: {answer.text[:200]}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


@dataclass
class Notifier:
    """Brings the pager to what the alarms ask for."""

    pager: Pager
    store: AlarmStore
    desk: AlarmDesk
    metrics: EngineMetrics
    lowest_priority: int
    instance: str
    clock: Callable[[], float]
    _refused: set[Step] = field(default_factory=set)
    _not_before: float = 0.0
    _failures: int = 0
    _failing_since: float | None = None
    _problem: str = ""

    async def round(self, alarms: Mapping[str, Alarm]) -> None:
        """Send what is due; returns early when the pager wants a pause."""
        now = self.clock()
        if now >= self._not_before:
            told = {i: Told.parse(text) for i, text in (await self.store.notices()).items()}
            for alarm in sorted(alarms.values(), key=lambda a: (a.priority, a.raised_at or 0)):
                if not await self._bring(alarm, told.get(alarm.alarm_id)):
                    break
        since = self._failing_since
        is_away = since is not None and self.clock() - since > PATIENCE_SECONDS
        is_failing = bool(self._refused) or is_away
        await self.store.tell(
            Signal("notification_failed", self.instance, is_failing, self._problem, self.clock())
        )

    async def _bring(self, alarm: Alarm, told: Told | None) -> bool:
        """Tell all that is due of one alarm; False when the pager wants a pause."""
        while (step := next_step(alarm, told, self.lowest_priority)) is not None:
            if step in self._refused:
                return True
            try:
                await self.pager.tell(step, self.desk.row(alarm))
            except Refused as error:
                self._refused.add(step)
                self._problem = str(error)
                self.metrics.notifications.labels("refused").inc()
                log.error("ALERT: %s of %s: %s", step.action, alarm.alarm_id, error)  # noqa: TRY400
                return True
            except Busy as error:
                self._wait(error)
                return False
            self._failures, self._failing_since = 0, None
            if not self._refused:
                self._problem = ""
            self.metrics.notifications.labels("delivered").inc()
            told = step.told
            await self.store.noticed(alarm.alarm_id, None if told is None else str(told))
        return True

    def _wait(self, error: Busy) -> None:
        self._failures += 1
        self._failing_since = self._failing_since or self.clock()
        self._problem = str(error)
        self.metrics.notifications.labels("postponed").inc()
        backoff = min(LONGEST_PAUSE, 2.0 ** min(self._failures - 1, 10))
        pause = error.pause if error.pause is not None else backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._not_before = self.clock() + min(pause, 10 * LONGEST_PAUSE)
        log.warning("notifications wait %.1f s: %s", pause, error)


def _seconds(retry_after: str | None) -> float | None:
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None  # a date; our own pause is as good
