"""Every failure the product raises on purpose. No HTTP codes, no client types here.

A failure is `Retryable` (the same call may succeed later) or `Permanent` (it never will: the
input or the configuration must change). Permanent failures are never retried; they end in a
dead letter, a problem answer or an alert. A message says what is wrong and what to do next.
"""

from __future__ import annotations


class AegisError(Exception):
    """Root of the product's errors; catch it only at the edge of an app."""


class Retryable(AegisError):
    """The outside world is away or busy; try again with backoff."""


class Permanent(AegisError):
    """Trying again cannot help."""


class ConfigurationError(Permanent):
    """A setting, machine class or mapping file is wrong; the message names file and field."""


class BadInput(Permanent):
    """Data from outside breaks its contract; `reason` is a stable word from `names.Reason`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UnknownMachine(Permanent):
    """No machine of this id is registered."""

    def __init__(self, machine_id: str) -> None:
        super().__init__(f"machine {machine_id!r} is not registered")
        self.machine_id = machine_id


class UntrustedBundle(Permanent):
    """A model bundle is unsigned, altered or of an unsupported format; it must not be loaded."""


class Conflict(Retryable):
    """Another writer committed first; start again from the new state."""


class ServiceUnavailable(Retryable):
    """Kafka, Redis, the registry or the lake does not answer."""
