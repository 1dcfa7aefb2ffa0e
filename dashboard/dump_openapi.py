"""Writes openapi.json, from which the console's client types are generated.

python dashboard/dump_openapi.py [file]    # default: dashboard/openapi.json; `make client` calls it
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

DEFAULT = Path(__file__).resolve().parent / "openapi.json"


def document() -> dict[str, Any]:
    """The API's OpenAPI document; nothing is connected to or started."""
    from aegisops.settings import Settings
    from serving.app import create_app
    from serving.service import build

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(build(Settings(data_dir=Path(folder))))
        return app.openapi()


def text() -> str:
    """The document as it is kept: sorted, so that a change shows as one."""
    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else DEFAULT).write_text(text())
