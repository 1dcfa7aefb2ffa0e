"""wrk as a subprocess: closed-loop load over keep-alive connections, figures back as numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SCRIPT = """
local bodies, at = {%(bodies)s}, 0
local sent = {}
function init(args)
  wrk.method = "POST"
  for i, body in ipairs(bodies) do sent[i] = wrk.format(nil, nil, nil, body) end
end
function request()
  at = at %% #sent + 1
  return sent[at]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%%d,"seconds":%%f,"p50_ms":%%f,"p99_ms":%%f,"p999_ms":%%f,"max_ms":%%f,' ..
    '"refused":%%d,"broken":%%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw. `refused`: answers with another status than 2xx or 3xx."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    refused: int
    broken: int

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return (self.requests - self.refused) / self.seconds


def wrk(
    url: str,
    bodies: Sequence[str],
    headers: Mapping[str, str],
    *,
    connections: int,
    seconds: float,
    cores: set[int],
) -> Load:
    """POST `bodies` in turn for `seconds` from one thread on `cores`."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; on Debian or Ubuntu: apt-get install wrk")
    quoted = ",".join(f"[==[{body}]==]" for body in bodies)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % {"bodies": quoted})
        script.flush()
        options = [word for k, v in headers.items() for word in ("-H", f"{k}: {v}")]
        done = subprocess.run(
            [
                "wrk",
                "-t1",
                f"-c{connections}",
                f"-d{seconds:g}s",
                "--timeout",
                "30s",
                "-s",
                script.name,
                *options,
                url,
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    return Load(**json.loads(done.stdout.strip().splitlines()[-1]))
