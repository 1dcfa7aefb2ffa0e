"""Security headers on every answer. Pure ASGI."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_NO_FRAME = (b"x-frame-options", b"DENY")
PAGE_POLICY = b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
_POLICY = b"default-src 'none'; frame-ancestors 'none'"
PAGES = "/api/docs"
_MACHINE_PATHS = ("/api/", "/livez", "/readyz", "/metrics", "/openapi.json")


def console_policy(connect: str = "") -> bytes:
    """Content security policy of the console; `connect`: origin it may call besides its own."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"font-src 'self'; connect-src 'self'{connect and ' ' + connect}; frame-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ).encode()


class SecurityHeaders:
    """Adds the headers; only pages may load script and style, and only their own.

    An answer that brings a content security policy keeps it, and may be framed as that says.
    """

    def __init__(self, app: ASGIApp, console: bytes = console_policy()) -> None:
        """`console`: the policy of everything that is not the API."""
        self._app = app
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        policy = self._policy(scope["path"])

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                added = list(_ALWAYS)
                if b"content-security-policy" not in own:
                    added += [_NO_FRAME, (b"content-security-policy", policy)]
                # A route that says nothing of caching is not to be kept.
                if b"cache-control" not in own:
                    added.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _policy(self, path: str) -> bytes:
        if path.startswith(PAGES):
            return PAGE_POLICY
        return _POLICY if path.startswith(_MACHINE_PATHS) else self._console
