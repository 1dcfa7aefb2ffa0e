"""Runs the serving claims and prints them as one table. Exit code 1 when a bar is missed.

python benchmarks/serving_table.py [soak_minutes]    # 0 leaves the soak out; default 30
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.run import keep

HERE = Path(__file__).resolve().parent
Result = Mapping[str, Any]


def _peers(r: Result) -> str:
    ratios = ", ".join(f"{n} {x:g}×" for n, x in r["rate_ratios"].items())
    return f"; rate against {ratios}" if ratios else ""


ROWS: list[tuple[str, list[str], str, str, Callable[[Result], str]]] = [
    (
        "predict",
        ["--peers"],
        "full /predict, one core",
        "≥ 855 req/s (16 conn.); p50 ≤ 1.5, p99 ≤ 5 ms (1 conn.)",
        lambda r: (
            f"{r['requests_per_second']} req/s; p50 {r['p50_ms']}, p99 {r['p99_ms']} ms" + _peers(r)
        ),
    ),
    (
        "predict_batch",
        [],
        "/predict/batch, 10,000 machines, 2 cores",
        "≤ 2.5 s; first row ≤ 100 ms",
        lambda r: f"{r['seconds']} s; first row {r['first_row_ms']} ms",
    ),
    (
        "overload",
        [],
        "5× overload",
        "accepted p99 ≤ 3× unloaded; the rest 429; memory flat",
        lambda r: (
            f"{r['p99_ratio']}× ({r['accepted_p99_ms']} ms); {r['refused']} refused; "
            f"{r['memory_growth_mb']:+} MB"
        ),
    ),
    (
        "shadow",
        [],
        "a shadow that raises or sleeps",
        "same answers; p99 ≤ 1.5× that without",
        lambda r: f"{'same' if r['same_answers'] else 'OTHER'} answers; {r['p99_ratio']}×",
    ),
    (
        "telemetry_fanout",
        [],
        "telemetry, 500 clients × 50 updates/s, one core",
        "all delivered, a stalled client among them; memory flat",
        lambda r: (
            f"{r['delivered_share']:.0%}; p99 {r['latency_p99_ms']} ms; "
            f"{r['server_growth_mb']:+} MB"
        ),
    ),
    ("cold_start", [], "cold start to ready", "≤ 3 s", lambda r: f"{r['seconds']} s"),
    (
        "soak",
        [],
        "soak at 70 % load",
        "no growth in memory, descriptors, p99",
        lambda r: (
            f"{r['minutes']:g} min: {r['rss_mb'][0]} → {r['rss_mb'][1]} MB, "
            f"{r['descriptors'][0]:g} → {r['descriptors'][1]:g} descriptors, "
            f"p99 {r['p99_ms'][0]} → {r['p99_ms'][1]} ms"
        ),
    ),
]


def main(minutes: str) -> int:
    """Print a row as soon as it is measured."""
    missed = False
    print("| claim | bar | measured | met |\n|---|---|---|---|", flush=True)
    for name, options, claim, bar, told in ROWS:
        if name == "soak" and not float(minutes):
            continue
        done = subprocess.run(
            [sys.executable, HERE / f"{name}.py", *(options or [minutes] * (name == "soak"))],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            cwd=HERE.parent,
        )
        lines = done.stdout.strip().splitlines()
        missed |= bool(done.returncode)
        measured = "no result"
        if lines:
            result = json.loads(lines[-1])
            measured = told(result)
            if not done.returncode:
                keep(name, result)
        print(
            f"| {claim} | {bar} | {measured} | {'no' if done.returncode else 'yes'} |", flush=True
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:2] or ["30"])))
