"""`python -m serving`: the prediction API, configured by AEGIS_* variables alone."""

from __future__ import annotations

import logging
import sys


def main() -> int:
    """Serve until a signal; 2 when the configuration or a dependency does not allow a start."""
    _import_xgboost_alone()
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


def _import_xgboost_alone() -> None:
    """Import xgboost without scikit-learn and pandas.

    It imports both where they are installed, for estimator classes and inputs the API does not use:
    five sixths of its import time and 130 MB.
    """
    hidden = [name for name in ("sklearn", "pandas") if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # None makes an import fail
    try:
        import xgboost  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]


if __name__ == "__main__":
    sys.exit(main())
