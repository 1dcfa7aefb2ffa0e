"""The HTTP server around the application: uvicorn, patient with no one.

uvicorn sets no limit to the time or size of a request's head. A connection that has sent no whole
head within HEAD_SECONDS, or more than HEAD_BYTES of one, is closed; bodies are `limits`' business.
"""

from __future__ import annotations

import asyncio
import ssl
from socket import socket
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aegisops.errors import ConfigurationError

if TYPE_CHECKING:
    from serving.service import Service

HEAD_SECONDS = 10.0
HEAD_BYTES = 64 * 1024
CONNECTIONS = 4_096


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with an end to waiting for a head."""

    head_seconds = HEAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A first head is due."""
        super().connection_made(transport)
        self._head_size = 0
        self._head_due: asyncio.TimerHandle | None = None
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to no complete head yet."""
        if self._head_due is not None:
            self._head_size += len(data)
            if self._head_size > HEAD_BYTES + self._most_body_with_head(data):
                self._give_up()
                return
        super().data_received(data)

    def _most_body_with_head(self, data: bytes) -> int:
        # A head and the beginning of its body may arrive together.
        end = data.find(b"\r\n\r\n")
        return 0 if end < 0 else len(data) - end

    def on_message_begin(self) -> None:
        """Bytes of a new head have come."""
        super().on_message_begin()
        if self._head_due is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
        self._head_size = 0
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        if self._head_due is not None:
            self._head_due.cancel()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_due = self.loop.call_later(self.head_seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class Server(uvicorn.Server):
    """Ends open streams before it waits for answers to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Uvicorn waits for open answers before it stops the app; streams would never end."""
        self._service.telemetry.hub.close()
        await super().shutdown(sockets)


def make_server(app: ASGIApp, service: Service) -> Server:
    """A server of the service's settings, not yet started.

    Raises `ConfigurationError` when certificate and key cannot be used.
    """
    api = service.settings.api
    config = uvicorn.Config(
        app,
        host=api.host,
        port=api.port,
        loop="uvloop",
        http=ImpatientProtocol,
        # One line per request costs as much as the audit record that says more.
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks for the caller's address
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        log_config=None,
        # First messages are small; compressing each frame for each client would cost the fan-out.
        ws_max_size=64 * 1024,
        ws_per_message_deflate=False,
    )
    if (api.tls_certificate is None) != (api.tls_key is None):
        raise ConfigurationError("set both AEGIS_API__TLS_CERTIFICATE and AEGIS_API__TLS_KEY")
    config.load()
    if api.tls_certificate is not None and api.tls_key is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(api.tls_certificate, api.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"AEGIS_API__TLS_CERTIFICATE, AEGIS_API__TLS_KEY: cannot be used: {error}"
            ) from error
        config.ssl = context
    return Server(config, service)
