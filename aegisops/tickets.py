"""Tickets: addresses that are good for a moment, for what a browser fetches without a header.

A page in a frame cannot send a bearer token. Who may read it asks for a ticket with the token and
puts the ticket into the frame's address.
"""

from __future__ import annotations

import re
import secrets

from aegisops.names import report_ticket_key
from aegisops.online_store import Client, connect_async, translated
from aegisops.settings import RedisSettings

SECONDS = 60
_SHAPE = re.compile(r"[A-Za-z0-9_-]{43}")


class Tickets:
    """For an event loop; raises `ServiceUnavailable` when Redis is away."""

    def __init__(self, client: Client) -> None:
        self._redis = client

    @classmethod
    def from_settings(cls, settings: RedisSettings) -> Tickets:
        """At the configured address; nothing is sent yet."""
        return cls(connect_async(settings))

    async def issue(self, content: str) -> str:
        """A new ticket for `content`, good for SECONDS."""
        ticket = secrets.token_urlsafe(32)
        with translated():
            await self._redis.set(report_ticket_key(ticket), content, ex=SECONDS)
        return ticket

    async def content(self, ticket: str) -> str | None:
        """What the ticket is for; None when it is unknown or old."""
        if _SHAPE.fullmatch(ticket) is None:
            return None
        with translated():
            found = await self._redis.get(report_ticket_key(ticket))
        return None if found is None else str(found.decode())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
