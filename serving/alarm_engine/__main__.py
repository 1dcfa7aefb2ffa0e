"""`python -m serving.alarm_engine`: the alarm engine, configured by AEGIS_* variables alone."""

from __future__ import annotations

import sys


def main() -> int:
    """Judge until a signal; 2 when the configuration does not allow a start."""
    from serving.lean_imports import import_xgboost_alone

    import_xgboost_alone()
    from serving.alarm_engine.process import serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
