"""Claim: a shadow model that raises or sleeps changes neither the answers nor the p99.

The same load on four APIs: without a shadow, with a healthy one, with one that raises at every
call, and with one that sleeps a second at every call. Answers
about the same vectors must be the same numbers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.load import wrk
from benchmarks.harness.stack import Api, other_cores, serving

SECONDS, CONNECTIONS = 8.0, 4
BAR_RATIO = 1.5
KINDS = ("none", "healthy", "raises", "sleeps")


def probabilities(api: Api) -> list[float]:
    """What it says of every machine."""
    body = json.dumps({"machine_ids": api.machines}).encode()
    headers = {"Authorization": f"Bearer {api.token}", "Accept": "application/json"}
    with urlopen(Request(f"{api.url}/api/v1/predict/batch", body, headers)) as answer:
        return [row["probability"] for row in json.load(answer)]


def main() -> int:
    p99, rates, said = {}, {}, {}
    for kind in KINDS:
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(
                Path(folder),
                shadow=kind != "none",
                program=("benchmarks.harness.api_with_shadow", kind)
                if kind in {"raises", "sleeps"}
                else ("serving",),
            ) as api,
        ):
            bodies = [json.dumps({"machine_id": machine}) for machine in api.machines]
            headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
            for seconds in (2.0, SECONDS):
                load = wrk(
                    f"{api.url}/api/v1/predict",
                    bodies,
                    headers,
                    connections=CONNECTIONS,
                    seconds=seconds,
                    cores=other_cores(),
                )
            p99[kind], rates[kind] = round(load.p99_ms, 2), round(load.per_second)
            said[kind] = probabilities(api)
    ratio = max(p99["raises"], p99["sleeps"]) / p99["none"]
    result = {
        "p99_ms": p99,
        "requests_per_second": rates,
        "p99_ratio": round(ratio, 2),
        "same_answers": all(said[kind] == said["none"] for kind in KINDS),
        "met": ratio <= BAR_RATIO and all(said[kind] == said["none"] for kind in KINDS),
    }
    print(json.dumps(result))
    return int(not result["met"])


if __name__ == "__main__":
    sys.exit(main())
