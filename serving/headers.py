"""Security headers on every answer. Pure ASGI."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_API = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
PAGE_POLICY = b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
_POLICY = b"default-src 'none'; frame-ancestors 'none'"
PAGES = "/api/docs"


class SecurityHeaders:
    """Adds the headers; pages under PAGES may load their own script and style, nothing else may."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        policy = PAGE_POLICY if scope["path"].startswith(PAGES) else _POLICY
        added = [*_API, (b"content-security-policy", policy)]

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message["headers"]
                message["headers"] = [*own, *added]
                # A route that says nothing of caching is not to be kept.
                if not any(name.lower() == b"cache-control" for name, _ in own):
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        await self._app(scope, receive, with_headers)
