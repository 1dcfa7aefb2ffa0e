"""Claim: at 5× overload accepted requests keep p99 ≤ 3× the unloaded one, the rest get 429.

What the API can do is measured first (16 connections, closed loop). Then requests arrive at five
times that rate whether or not the earlier ones are answered (open loop, 384 keep-alive connections
that are reused as they become free): a closed loop cannot overload anything. "Unloaded" is an open
loop at half of what it can do. Memory stays flat.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.load import wrk
from benchmarks.harness.stack import Api, other_cores, serving

SECONDS, OVERLOAD, CONNECTIONS = 10.0, 5.0, 384
BAR_RATIO, BAR_GROWTH_MB = 3.0, 20.0


@dataclass
class Seen:
    """Answers of one phase."""

    accepted_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    other: int = 0
    skipped: int = 0
    """Requests that found no free connection: not sent, though due."""

    def p99(self) -> float:
        """Ms of the accepted requests."""
        return statistics.quantiles(self.accepted_ms, n=100)[98]


class Client(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, idle: list[Client], seen: list[Seen]) -> None:
        self._idle, self._seen = idle, seen
        self._buffer = b""
        self._began = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for a request."""
        self.transport = transport  # type: ignore[assignment]
        self._idle.append(self)

    def ask(self, request: bytes) -> None:
        """Send one."""
        self._began = time.perf_counter()
        self.transport.write(request)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        """Note the answer when it is complete."""
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        length = int(lowered.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self._buffer = b""
        took, seen = (time.perf_counter() - self._began) * 1e3, self._seen[0]
        if head[9:12] == b"200":
            seen.accepted_ms.append(took)
        elif head[9:12] == b"429":
            seen.refused_ms.append(took)
            seen.without_retry_after += b"\r\nretry-after:" not in lowered
        else:
            seen.other += 1
        self._idle.append(self)


async def connect(api: Api, idle: list[Client], seen: list[Seen]) -> None:
    """Open all connections; each adds itself to `idle` and its answers to `seen[0]`."""
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Client(idle, seen), "127.0.0.1", api.settings.api.port)


def requests_of(api: Api) -> list[bytes]:
    """One request per machine."""
    head = (
        "POST /api/v1/predict HTTP/1.1\r\nHost: bench\r\n"
        f"Authorization: Bearer {api.token}\r\nContent-Type: application/json\r\n"
    )
    bodies = [json.dumps({"machine_id": machine}) for machine in api.machines]
    return [f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode() for body in bodies]


async def phase(
    idle: list[Client], seen: list[Seen], requests: list[bytes], rate: float, seconds: float
) -> Seen:
    """Requests due every 1/rate seconds, from free connections."""
    seen[0] = mine = Seen()
    begun, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - begun) < seconds:
        due = int(now * rate)
        while sent < due:
            if idle:
                idle.pop().ask(requests[sent % len(requests)])
            else:
                mine.skipped += 1
            sent += 1
        await asyncio.sleep(0.001)
    await asyncio.sleep(1.5)
    return mine


async def measure(api: Api, capacity: float) -> dict[str, object]:
    idle: list[Client] = []
    seen = [Seen()]
    await connect(api, idle, seen)
    requests = requests_of(api)
    calm = await phase(idle, seen, requests, capacity / 2, SECONDS)
    before = api.rss_mb()
    loaded = await phase(idle, seen, requests, capacity * OVERLOAD, SECONDS)
    growth = api.rss_mb() - before
    for client in idle:
        client.transport.close()  # type: ignore[union-attr]
    ratio = loaded.p99() / calm.p99()
    return {
        "capacity_per_second": round(capacity),
        "offered_per_second": round(capacity * OVERLOAD),
        "sent_per_second": round((len(loaded.accepted_ms) + len(loaded.refused_ms)) / SECONDS),
        "accepted_per_second": round(len(loaded.accepted_ms) / SECONDS),
        "refused": len(loaded.refused_ms),
        "refused_p99_ms": round(statistics.quantiles(loaded.refused_ms, n=100)[98], 1)
        if len(loaded.refused_ms) > 1
        else None,
        "refused_without_retry_after": loaded.without_retry_after,
        "other_answers": loaded.other + calm.other,
        "unloaded_p99_ms": round(calm.p99(), 1),
        "accepted_p99_ms": round(loaded.p99(), 1),
        "p99_ratio": round(ratio, 2),
        "memory_growth_mb": round(growth, 1),
        "met": ratio <= BAR_RATIO
        and growth <= BAR_GROWTH_MB
        and bool(loaded.refused_ms)
        and not loaded.without_retry_after
        and not loaded.other + calm.other + len(calm.refused_ms),
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as api:
        bodies = [json.dumps({"machine_id": machine}) for machine in api.machines]
        headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
        found = [
            wrk(
                f"{api.url}/api/v1/predict",
                bodies,
                headers,
                connections=16,
                seconds=4,
                cores=other_cores(),
            )
            for _ in range(2)
        ]
        result = asyncio.run(measure(api, found[-1].per_second))
    print(json.dumps(result))
    return int(not result["met"])


if __name__ == "__main__":
    sys.exit(main())
