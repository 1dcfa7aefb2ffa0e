"""Runs every claim's script in a process of its own and keeps the line it prints.

python benchmarks/run.py [claim …]    # default: all; results in benchmarks/results/<claim>.json
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NOT_CLAIMS = {"run", "serving_table", "tree_memory", "fleet_day", "kafka_stack", "plain_loop"}


def main(wanted: list[str]) -> int:
    """0 when every script ran and met its own bar."""
    claims = wanted or sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NOT_CLAIMS)
    failed = []
    for claim in claims:
        print(f"{claim} …", flush=True)
        done = subprocess.run(
            [sys.executable, HERE / f"{claim}.py"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            cwd=HERE.parent,
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            failed.append(claim)
            continue
        keep(claim, json.loads(lines[-1]))
        print(f"  {lines[-1]}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def keep(claim: str, result: dict[str, Any]) -> None:
    """Write a result with what it was measured on."""
    result = result | {
        "claim": claim,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    (HERE / "results" / f"{claim}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
