"""Claim: at 70 % load for 30 minutes neither memory, nor file descriptors, nor p99 grow.

python benchmarks/soak.py [minutes]    # default 30

What the API can do is measured first (16 connections). Then requests arrive at 70 % of that rate,
open loop. Every minute (every tenth of a shorter run) is one sample. The first fifth is warm-up;
growth is the difference of the medians of the last and the first third of the rest.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.load import wrk
from benchmarks.harness.stack import Api, other_cores, serving
from benchmarks.overload import Client, Seen, connect, phase, requests_of

LOAD = 0.7
BAR_GROWTH_MB, BAR_DESCRIPTORS, BAR_P99_RATIO = 10.0, 5.0, 1.5


async def measure(api: Api, capacity: float, minutes: float) -> list[dict[str, float]]:
    """One sample per minute, or per tenth of a short run."""
    seconds = min(60.0, minutes * 6)
    idle: list[Client] = []
    seen = [Seen()]
    await connect(api, idle, seen)
    samples = []
    for _ in range(round(minutes * 60 / seconds)):
        part = await phase(idle, seen, requests_of(api), capacity * LOAD, seconds)
        samples.append(
            {
                "p99_ms": round(part.p99(), 2),
                "accepted": len(part.accepted_ms),
                "refused": len(part.refused_ms) + part.other,
                "rss_mb": round(api.rss_mb(), 1),
                "descriptors": api.descriptors(),
            }
        )
        print(json.dumps(samples[-1]), file=sys.stderr, flush=True)
    return samples


def growth(samples: list[dict[str, float]], name: str) -> tuple[float, float]:
    """Medians of the first and of the last third behind the warm-up."""
    rest = [sample[name] for sample in samples[len(samples) // 5 :]]
    third = max(1, len(rest) // 3)
    return statistics.median(rest[:third]), statistics.median(rest[-third:])


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as api:
        bodies = [json.dumps({"machine_id": machine}) for machine in api.machines]
        headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
        url = f"{api.url}/api/v1/predict"
        for seconds in (2, 5):
            load = wrk(url, bodies, headers, connections=16, seconds=seconds, cores=other_cores())
        samples = asyncio.run(measure(api, load.per_second, minutes))
    memory, descriptors, p99 = (growth(samples, n) for n in ("rss_mb", "descriptors", "p99_ms"))
    refused = sum(sample["refused"] for sample in samples)
    result = {
        "minutes": minutes,
        "capacity_per_second": round(load.per_second),
        "answered": sum(sample["accepted"] for sample in samples),
        "refused": refused,
        "rss_mb": memory,
        "descriptors": descriptors,
        "p99_ms": p99,
        "met": memory[1] - memory[0] <= BAR_GROWTH_MB
        and descriptors[1] - descriptors[0] <= BAR_DESCRIPTORS
        and p99[1] <= p99[0] * BAR_P99_RATIO,
    }
    print(json.dumps(result))
    return int(not result["met"])


if __name__ == "__main__":
    sys.exit(main())
