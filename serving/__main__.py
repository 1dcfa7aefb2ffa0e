"""`python -m serving`: the prediction API, configured by AEGIS_* variables alone."""

from __future__ import annotations

import logging
import sys

import uvicorn

from aegisops.errors import AegisError
from aegisops.settings import Settings
from serving.app import create_app
from serving.service import build


def main() -> int:
    """Serve until a signal; 2 when the configuration or a dependency does not allow a start."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    settings = Settings()
    try:
        app = create_app(build(settings))
    except AegisError as error:
        logging.getLogger("serving").critical("cannot start: %s", error)
        return 2
    uvicorn.run(
        app,
        host=settings.api.host,
        port=settings.api.port,
        loop="uvloop",
        http="httptools",
        # One line per request costs as much as the audit record that says more.
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        log_config=None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
