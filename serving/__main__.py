"""`python -m serving`: the prediction API, configured by AEGIS_* variables alone."""

from __future__ import annotations

import gc
import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socket import socket


def main() -> int:
    """Serve until a signal; 2 when the configuration or a dependency does not allow a start."""
    from serving.lean_imports import import_xgboost_alone

    import_xgboost_alone()
    import uvicorn

    from aegisops.errors import AegisError
    from aegisops.settings import Settings
    from serving.app import create_app
    from serving.service import build

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = Settings()
    try:
        service = build(settings)
        app = create_app(service)
    except AegisError as error:
        logging.getLogger("serving").critical("cannot start: %s", error)
        return 2
    config = uvicorn.Config(
        app,
        host=settings.api.host,
        port=settings.api.port,
        loop="uvloop",
        http="httptools",
        # One line per request costs as much as the audit record that says more.
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks for the caller's address
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        log_config=None,
        # First messages are small; compressing each frame for each client would cost the fan-out.
        ws_max_size=64 * 1024,
        ws_per_message_deflate=False,
    )
    # What lives now lives until the end: a full collection that walks it costs tens of ms.
    gc.collect()
    gc.freeze()
    server = uvicorn.Server(config)
    stop = server.shutdown

    async def shutdown(sockets: list[socket] | None = None) -> None:
        # uvicorn waits for open answers before it stops the app; streams would never end.
        service.telemetry.hub.close()
        await stop(sockets)

    server.shutdown = shutdown  # type: ignore[method-assign]
    server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
