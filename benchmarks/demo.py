"""Claim: a warm `make demo ONCE=1` takes at most 60 s and 4 GB on 2 cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tree_memory import Peak

BAR_SECONDS, BAR_MB = 60.0, 4_000.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "aegisops.cli", "demo", "--once", "--json", out],
            env=os.environ | {"AEGIS_DATA_DIR": f"{folder}/aegis"},
            stdout=subprocess.DEVNULL,
        )
        peak = Peak(process.pid)
        peak.start()
        code = process.wait()
        seconds = time.monotonic() - started
        peak.stop()
        if code:
            sys.exit(f"the demo ended with {code}")
        steps = json.loads(out.read_text())["seconds"]
    met = seconds <= BAR_SECONDS and peak.rss <= BAR_MB
    print(
        json.dumps(
            {
                "warm_seconds": round(seconds, 1),
                "peak_rss_mb": round(peak.rss),
                "peak_pss_mb": round(peak.pss),
                "steps": steps,
                "met": met,
            }
        )
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
