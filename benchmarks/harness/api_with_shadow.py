"""`python -m benchmarks.harness.api_with_shadow raises|sleeps`: the API with a bad shadow model."""

from __future__ import annotations

import sys
import time
from typing import Any


def main() -> int:
    """Serve as `python -m serving` does, but the shadow's scoring raises, or takes a second."""
    kind = sys.argv[1]
    from serving.__main__ import main
    from serving.lean_imports import import_xgboost_alone

    import_xgboost_alone()
    from aegisops import scoring

    def broken(*_: Any) -> Any:
        if kind == "raises":
            raise RuntimeError("a shadow that raises")
        time.sleep(1)
        raise RuntimeError("a shadow that slept")

    # serving.shadow takes its default from here when it is imported, after this line.
    scoring.probabilities = broken  # type: ignore[assignment]
    return main()


if __name__ == "__main__":
    sys.exit(main())
