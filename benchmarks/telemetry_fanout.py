"""Live telemetry: N clients × updates a second from one hub on one core; memory; a stalled client.

python benchmarks/telemetry_fanout.py [clients] [updates_per_second] [seconds]

Server and clients are two processes on two cores, joined by real sockets (SSE, uvicorn). The claim
is the server's: every quick client gets every update, the server's memory does not grow, and one
client that never reads changes neither. Latency is from publishing to the client's read.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

P99_BAR_MS = 100.0
GROWTH_BAR_MB = 20.0
MACHINES = 10


def serve(clients: int) -> None:
    """A uvicorn with the hub and the product's own event stream; POST starts the publishing."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from serving.routes.telemetry import EventStream
    from serving.telemetry import Hub, Kind, Message, Subscription, message

    os.sched_setaffinity(0, {0})  # the claim is of one core
    hub = Hub(clients=clients + 10, per_subject=clients + 10, queue=64)
    machines = [f"m-{i}" for i in range(MACHINES)]
    publishing: set[asyncio.Task[None]] = set()

    async def telemetry(_: Request):
        subscription = hub.subscribe("bench", machines)
        return EventStream(subscription, messages(subscription))

    async def messages(subscription: Subscription):
        yield message("hello")
        while (each := await subscription.next()) is not None:
            yield each

    async def publish(rate: int, seconds: float) -> None:
        rows = [["spindle_power", 1_772_420_927_000_000, 9.125, 0]] * 3
        begin, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
        for n in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + n / rate - loop.time()))
            parts = {
                m: orjson.dumps({"machine_id": m, "batches": [{"readings": rows}]})
                for m in machines
            }
            hub.publish(Kind.READINGS, parts, position=f"{n}-bench", sent=time.monotonic())
        hub.broadcast(Message("end", b"{}"))

    async def start(request: Request):
        asked = await request.json()
        task = asyncio.create_task(publish(asked["rate"], asked["seconds"]))
        publishing.add(task)
        return JSONResponse({"clients": len(hub)})

    async def count(_: Request):
        return JSONResponse({"clients": len(hub)})

    app = Starlette(
        routes=[
            Route("/telemetry", telemetry),
            Route("/publish", start, methods=["POST"]),
            Route("/clients", count),
        ]
    )

    uvicorn.run(
        app, port=int(os.environ["PORT"]), loop="uvloop", http="httptools", log_level="critical"
    )


async def one(port: int, latencies: list[float], ends: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(b"GET /telemetry HTTP/1.1\r\nHost: a\r\n\r\n")
    got = 0
    async for line in reader:
        if line.startswith(b"data: {") and (at := line.find(b'"sent":')) > 0:
            got += 1
            latencies.append(time.monotonic() - float(line[at + 7 : line.index(b",", at)]))
        elif line.startswith(b"event: end"):
            break
    ends.append(got)
    writer.close()


async def measure(
    pid: int, port: int, clients: int, rate: int, seconds: float
) -> dict[str, object]:
    import httpx

    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, timeout=30) as api:
        for _ in range(400):
            try:
                await api.get("/clients")
                break
            except httpx.TransportError:
                await asyncio.sleep(0.05)
        _, stalled = await asyncio.open_connection("127.0.0.1", port, limit=1)
        stalled.write(b"GET /telemetry HTTP/1.1\r\nHost: a\r\n\r\n")
        latencies: list[float] = []
        ends: list[int] = []
        tasks = [asyncio.create_task(one(port, latencies, ends)) for _ in range(clients)]
        while (await api.get("/clients")).json()["clients"] < clients + 1:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        asked = await api.post("/publish", json={"rate": rate, "seconds": seconds})
        asked.raise_for_status()
        await asyncio.sleep(min(2.0, seconds / 3))
        early, cpu, at = rss(pid), cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(seconds * 0.5)
        cores = (cpu_seconds(pid) - cpu) / (time.monotonic() - at)
        late = rss(pid)
        async with asyncio.timeout(seconds * 4 + 30):
            await asyncio.gather(*tasks)
        stalled.transport.abort()
    latencies.sort()
    expected = int(rate * seconds)
    return {
        "clients": clients,
        "updates_per_second": rate,
        "seconds": seconds,
        "delivered_share": sum(ends) / (expected * clients),
        "latency_p50_ms": round(latencies[len(latencies) // 2] * 1e3, 2),
        "latency_p99_ms": round(latencies[len(latencies) * 99 // 100] * 1e3, 2),
        "server_cores": round(cores, 2),
        "server_rss_mb": round(late, 1),
        "server_growth_mb": round(late - early, 1),
    }


def rss(pid: int) -> float:
    """Resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    if os.environ.get("PORT"):
        serve(int(sys.argv[1]))
        return 0
    from aegisops.embedded.ports import free_port

    os.sched_setaffinity(0, set(range(1, os.cpu_count() or 2)) or {0})
    clients, rate = (int(x) for x in (sys.argv[1:3] or ("500", "50")))
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 10.0
    port = free_port()
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [sys.executable, __file__, str(clients)],
            env=os.environ | {"PORT": str(port)},
            stdout=log,
            stderr=log,
        )
        try:
            result = asyncio.run(measure(server.pid, port, clients, rate, seconds))
        finally:
            server.terminate()
            server.wait(20)
    print(json.dumps(result))
    is_met = (
        result["delivered_share"] == 1.0
        and result["latency_p99_ms"] <= P99_BAR_MS
        and result["server_growth_mb"] <= GROWTH_BAR_MB
    )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
