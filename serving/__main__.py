"""`python -m serving`: the prediction API, configured by AEGIS_* variables alone."""

from __future__ import annotations

import gc
import logging
import sys

SWITCH_SECONDS = 0.0005


def main() -> int:
    """Serve until a signal; 2 when the configuration or a dependency does not allow a start."""
    from serving.lean_imports import import_xgboost_alone

    import_xgboost_alone()
    from aegisops.errors import AegisError
    from aegisops.settings import Settings
    from serving.app import create_app
    from serving.server import make_server
    from serving.service import build

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = Settings()
    try:
        service = build(settings)
        server = make_server(create_app(service), service)
    except AegisError as error:
        logging.getLogger("serving").critical("cannot start: %s", error)
        return 2
    # The pump and the shadow work on threads: Python's 5 ms turn of the other thread would be the
    # p99 of an answer.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What lives now lives until the end: a full collection that walks it costs tens of ms.
    gc.collect()
    gc.freeze()
    server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
