"""From a value beyond its setpoint in Redis to the alarm on a WebSocket, over real processes.

python benchmarks/alarm_latency.py [alarms]

Real Redis, `python -m serving.alarm_engine` and `python -m serving`; no Kafka (records wait in the
outboxes). The class has no delay, so what is measured is ours: the wait for the engine's next
round (evaluated once a second), the round, the way to the client. Two figures: from the write of
the value, and from the transition (`raised_at`) to the client. Bar: raised → visible within 1 s.
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

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BAR_SECONDS = 1.0


def classes(folder: Path) -> Path:
    """The spindle without delays, under its own name."""
    from aegisops.machines.loader import SHIPPED

    text = (SHIPPED / "cnc_spindle.toml").read_text()
    folder.mkdir()
    lines = [line for line in text.splitlines() if not line.startswith(("on_delay", "off_delay"))]
    (folder / "cnc_spindle.toml").write_text("\n".join(lines))
    return folder


async def measure(settings, alarms: int) -> dict[str, object]:
    from aegisops.machines import load_class
    from aegisops.names import TELEMETRY_CHANNEL
    from aegisops.online_store import FeatureVector, Machine, OnlineStore, connect
    from aegisops.tokens import mint

    spindle = load_class("cnc_spindle")
    store, bell = OnlineStore.from_settings(settings.redis), connect(settings.redis)
    ids = [f"m-{i}" for i in range(alarms)]
    store.register(Machine(m, "cnc_spindle", "S", "A", {}) for m in ids)

    def write(machine_id: str, rms: float) -> float:
        vector = np.full(len(spindle.vector), 2.0)
        vector[spindle.vector.index("vibration_rms_1h")] = rms
        now = time.time()
        found = FeatureVector(machine_id, spindle.feature_set, round(now * 1e6), vector, 1.0)
        store.write_features([found], {spindle.feature_set: spindle.vector})
        row = {"machine_id": machine_id}
        bell.publish(TELEMETRY_CHANNEL, json.dumps({"at": round(now * 1e6), "machines": [row]}))
        return now

    for machine_id in ids:
        write(machine_id, 2.0)
    url = f"ws://127.0.0.1:{settings.api.port}/api/v1/telemetry"
    headers = {"Authorization": f"Bearer {mint(settings, 'bench', 'viewer')}"}
    from_value, from_raise = [], []
    socket = await connected(url, headers)
    async with socket:
        await socket.send(json.dumps({"kinds": ["alarms"]}))
        while json.loads(await socket.recv())["type"] != "hello":
            pass
        await asyncio.sleep(5)  # the engine knows the fleet
        for n, machine_id in enumerate(ids):
            await asyncio.sleep(0.1 + 0.037 * (n % 27))  # anywhere between two rounds
            written = write(machine_id, 9.0)
            seen = False
            while not seen:
                async with asyncio.timeout(20):
                    message = json.loads(await socket.recv())
                for row in message.get("machines", ()):
                    if (row["machine_id"], row["definition_id"]) == (machine_id, "vibration_high"):
                        now = time.time()
                        raised = np.datetime64(row["raised_at"].removesuffix("Z"), "ms")
                        from_raise.append(now - raised.astype(int) / 1e3)
                        from_value.append(now - written)
                        seen = True
    from_value.sort()
    from_raise.sort()
    return {
        "alarms": alarms,
        "raised_to_visible_p50_ms": round(from_raise[alarms // 2] * 1e3, 1),
        "raised_to_visible_max_ms": round(from_raise[-1] * 1e3, 1),
        "value_to_visible_p50_ms": round(from_value[alarms // 2] * 1e3, 1),
        "value_to_visible_max_ms": round(from_value[-1] * 1e3, 1),
    }


async def connected(url: str, headers: dict[str, str]):
    """A WebSocket, as soon as the API listens."""
    from websockets.asyncio.client import connect

    deadline = time.monotonic() + 90
    while True:
        try:
            return await connect(url, additional_headers=headers)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


def main() -> int:
    from aegisops.cli import runs
    from aegisops.embedded.ports import free_port
    from aegisops.embedded.redis_server import RedisServer
    from aegisops.settings import RedisSettings, RegistrySettings, Settings

    alarms = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(log=Path(folder) / "redis.log") as redis,
    ):
        base = Settings(
            data_dir=Path(folder),
            classes_dir=classes(Path(folder) / "classes"),
            redis=RedisSettings(url=redis.url),
            registry=RegistrySettings(url=f"http://127.0.0.1:{free_port()}"),
        )
        settings = base.model_copy(
            update={
                "api": base.api.model_copy(update={"port": free_port()}),
                # The journal's tail needs a broker: the engine waits for it in vain, then goes on.
                "alarms": base.alarms.model_copy(update={"port": 0}),
            }
        )
        with (Path(folder) / "log").open("wb") as log:
            children = [
                subprocess.Popen(
                    [sys.executable, "-m", module],
                    env=os.environ | runs.as_environment(settings),
                    stdout=log,
                    stderr=log,
                )
                for module in ("serving.alarm_engine", "serving")
            ]
            try:
                wait_for_engine(settings)
                result = asyncio.run(measure(settings, alarms))
            finally:
                for child in children:
                    child.terminate()
                for child in children:
                    child.wait(30)
    print(json.dumps(result))
    return 0 if result["raised_to_visible_max_ms"] <= BAR_SECONDS * 1e3 else 1


def wait_for_engine(settings) -> None:
    """Put the epoch in place: there is no journal to restore from."""
    from aegisops.names import ALARMS_EPOCH_KEY
    from aegisops.online_store import connect

    client = connect(settings.redis)
    client.set(ALARMS_EPOCH_KEY, "bench")
    client.close()


if __name__ == "__main__":
    sys.exit(main())
