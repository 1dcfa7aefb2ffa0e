"""A person's promotion: `python -m aegisops_assets.promote --class C --by WHO --reason WHY`.

The same gate as the ml/production asset, without Dagster. Exit code 0 when the model is in
production afterwards, 1 when it was refused or the call was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from aegisops.errors import AegisError, Permanent
from aegisops.settings import Settings
from aegisops_assets.steps.platform import Platform
from aegisops_assets.steps.promotion import Wish, promote


def main(arguments: list[str] | None = None) -> int:
    """Decide, record, write the decision as JSON."""
    options = _parser().parse_args(arguments)
    try:
        made = promote(
            Platform.of(Settings()),
            decided_by=options.by,
            classes=[options.machine_class],
            wish=Wish(options.reason, options.version),
        )
        if not made:
            raise Permanent(f"{options.machine_class} has no machines or no candidate; train first")
    except AegisError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    options.json.write_text(json.dumps(asdict(made[0])))
    return 0 if made[0].promoted else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m aegisops_assets.promote")
    parser.add_argument("--class", dest="machine_class", required=True, metavar="NAME")
    parser.add_argument("--version", default="", help="bundle version; empty: the candidate")
    parser.add_argument("--by", required=True, help="who decides; an id, not a name")
    parser.add_argument("--reason", required=True)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
