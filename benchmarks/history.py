"""A year of one channel, as the console opens it: time and bytes of the HTTP answer.

A fleet of 200 machines × 12 series (4 channels, 8 features) with a year of gold/hourly, as the
asset writes it, and the last two days of tiles (10 s) and a day of 1 Hz readings of the machine
opened behind it. Answered by the API in a process of its own, over loopback.

python benchmarks/history.py [--machines 200]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import polars as pl

from aegisops.cli import runs
from aegisops.embedded import ports
from aegisops.embedded.redis_server import RedisServer
from aegisops.features import batch
from aegisops.lake import Lake
from aegisops.machines import load_class
from aegisops.schemas.tables import EVENTS, HOURLY, MACHINES, READINGS, TILES, WAVEFORMS
from aegisops.settings import ApiSettings, RedisSettings, Settings
from aegisops.tokens import mint

SERIES = [
    *(("channel", name) for name in ("cycles", "power", "temperature", "vibration")),
    *(("feature", name) for name in load_class("cnc_spindle").vector),
]
SECONDS_BAR, BYTES_BAR = 1.0, 300_000
POINTS = 1_000


def main(machines: int) -> int:
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        settings = Settings(
            data_dir=Path(folder),
            redis=RedisSettings(url=redis.url),
            api=ApiSettings(port=ports.free_port()),
        )
        end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        rows = fill(Lake(settings.lake_root), machines, end)
        result = measure(settings, machines, end) | {"machines": machines, "hourly_rows": rows}
    print(json.dumps(result))
    return int(result["p95_s"] > SECONDS_BAR or result["bytes"] > BYTES_BAR)


def fill(lake: Lake, machines: int, end: datetime) -> int:
    rng = np.random.default_rng(0)
    ids = [f"spindle-{i:03d}" for i in range(machines)]
    lake.append(
        MACHINES,
        pl.DataFrame({"machine_id": ids, "machine_class": "cnc_spindle", "site": "S", "area": "A",
                      "attributes": "{}", "registered_at": end}),
    )  # fmt: skip
    begin, rows = end - timedelta(days=365), 0
    series = pl.DataFrame({"machine_id": ids}).join(
        pl.DataFrame(SERIES, schema=["kind", "name"], orient="row"), how="cross"
    )
    hours = pl.datetime_range(begin, end - timedelta(days=2), "1h", eager=True, closed="left")
    for (month,), part in hours.to_frame("ts").group_by(
        pl.col("ts").dt.strftime("%Y-%m"), maintain_order=True
    ):
        frame = series.join(part, how="cross")
        values = rng.normal(40, 5, frame.height)
        frame = frame.with_columns(
            n=pl.lit(3_600.0), n_bad=pl.lit(1.0), mean=pl.Series(values),
            mean_square=pl.Series(values**2), min=pl.Series(values - 1), max=pl.Series(values + 1),
            month=pl.lit(month),
        )  # fmt: skip
        lake.append(HOURLY, frame)
        rows += frame.height
    one = readings(rng, end)
    lake.append(READINGS, one)
    nothing = [pl.from_arrow(t.schema.empty_table()) for t in (WAVEFORMS, EVENTS)]
    spindle = load_class("cnc_spindle")
    early = one.filter(pl.col("ts") < end - timedelta(days=1))
    tiles = batch.tiles_from_values(batch.values_from_bronze(early, *nothing, spindle), spindle)
    lake.append(TILES, tiles.with_columns(pl.col("tile_start").dt.date().alias("date")))
    return rows


def readings(rng: np.random.Generator, end: datetime) -> pl.DataFrame:
    """Three days of one channel at 1 Hz; the last has no tiles yet, the first is in the hours."""
    ts = pl.datetime_range(end - timedelta(days=3), end, "1s", eager=True, closed="left")
    return pl.DataFrame(
        {"machine_id": "spindle-007", "channel": "temperature", "ts": ts,
         "value": rng.normal(40, 5, len(ts)), "quality": 0, "seq": 0, "_topic": "bench",
         "_partition": 0, "_offset": np.arange(len(ts)), "_index": 0, "_ingested_at": end}
    )  # fmt: skip


def measure(settings: Settings, machines: int, end: datetime) -> dict[str, object]:
    environment = runs.as_environment(settings)
    api = subprocess.Popen(
        [sys.executable, "-m", "serving"], env=os.environ | environment, stderr=subprocess.DEVNULL
    )
    base = f"http://127.0.0.1:{settings.api.port}"
    headers = {"Authorization": f"Bearer {mint(settings, 'bench', 'viewer')}"}
    try:
        with httpx.Client(base_url=base, headers=headers, timeout=30) as client:
            wait(client, api)
            begin = end - timedelta(days=365)

            def ask(machine: str, name: str = "channel=temperature") -> tuple[float, int]:
                span = f"points={POINTS}&from={begin:%Y-%m-%dT%H:%M:%SZ}"
                address = f"/api/v1/machines/{machine}/history?{name}&{span}"
                started = time.perf_counter()
                answer = client.get(address)
                answer.raise_for_status()
                return time.perf_counter() - started, len(answer.content)

            cold, _ = ask("spindle-007")
            whole = [ask("spindle-007") for _ in range(15)]
            others = [
                ask(f"spindle-{i:03d}", "feature=vibration_rms_1h")
                for i in range(0, machines, machines // 10)
            ]
            seconds = [s for s, _ in whole + others]
            return {
                "p50_s": round(float(np.median(seconds)), 3),
                "p95_s": round(float(np.quantile(seconds, 0.95)), 3),
                "first_after_start_s": round(cold, 3),
                "bytes": max(size for _, size in whole + others),
                "points": POINTS,
            }
    finally:
        api.terminate()
        api.wait(20)


def wait(client: httpx.Client, api: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and api.poll() is None:
        try:
            if client.get("/livez").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the API did not start")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machines", type=int, default=200)
    sys.exit(main(parser.parse_args().machines))
