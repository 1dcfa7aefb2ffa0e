"""The alarm engine's round: 10,000 machines with fresh features, judged once a second on one core.

python benchmarks/alarm_evaluation.py [machines] [rounds]

Real Redis and the engine's own code; each round 1 machine in 60 has a new vector, as with readings
once a minute, and some alarms turn. Bar: p99 of a round at most half of its interval of 1 s.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BAR_SECONDS = 0.5


class NoJournal:
    """Nothing happened before."""

    def states(self, **_: object) -> dict:
        """No alarm."""
        return {}


class NoKafka:
    """A broker that takes everything at once."""

    def prepare(self):
        """Nothing to do."""

    def publish(self, _topic, _key, _value, done):
        """Delivered."""
        done(None)

    def poll(self):
        """Nothing to do."""

    def close(self):
        """Nothing to do."""


async def measure(redis_url: str, folder: Path, machines: int, rounds: int) -> dict[str, object]:
    from aegisops.machines import load_class
    from aegisops.names import TELEMETRY_CHANNEL
    from aegisops.online_store import FeatureVector, Machine, OnlineStore, connect
    from aegisops.settings import RedisSettings, Settings
    from serving.alarm_engine.engine import AlarmEngine
    from serving.alarm_engine.metrics import EngineMetrics
    from serving.service import build

    spindle = load_class("cnc_spindle")
    settings = Settings(data_dir=folder, redis=RedisSettings(url=redis_url))
    store, bell = OnlineStore.from_settings(settings.redis), connect(settings.redis)
    ids = [f"m-{i:05}" for i in range(machines)]
    store.register(Machine(i, "cnc_spindle", "S", f"A{n % 40}", {}) for n, i in enumerate(ids))
    rng = np.random.default_rng(7)
    column = spindle.vector.index("vibration_rms_1h")

    def write(some):
        ts = round(time.time() * 1e6)
        vectors = np.zeros((len(some), len(spindle.vector)))
        vectors[:, :] = rng.normal(1.5, 0.2, vectors.shape)
        vectors[:, column] = np.where(rng.random(len(some)) < 0.01, 9.0, 2.0)
        store.write_features(
            (
                FeatureVector(m, spindle.feature_set, ts, v, 1.0)
                for m, v in zip(some, vectors, strict=True)
            ),
            {spindle.feature_set: spindle.vector},
        )
        rows = [{"machine_id": m} for m in some]
        bell.publish(TELEMETRY_CHANNEL, json.dumps({"at": ts, "machines": rows}))

    write(ids)
    service = build(settings, publisher=NoKafka())
    engine = AlarmEngine(
        service,
        NoJournal(),
        EngineMetrics(service.metrics.registry),
        settings=settings.alarms,
        clock=time.time,
    )
    listening = asyncio.create_task(engine.listen())
    await engine.evaluate()
    seconds, raised = [], 0
    for n in range(rounds):
        begun = time.perf_counter()
        write(ids[n % 60 :: 60])
        writing = time.perf_counter() - begun
        await asyncio.sleep(max(0.0, 1.0 - writing - (seconds[-1] if seconds else 0)))
        begun = time.perf_counter()
        await engine.evaluate()
        seconds.append(time.perf_counter() - begun)
        raised = sum(a.occurrence for a in engine.known.values())
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await engine.stop()
    await service.stop()
    seconds.sort()
    return {
        "machines": machines,
        "entries": len(spindle.alarms),
        "rounds": rounds,
        "alarms_raised": raised,
        "round_p50_ms": round(seconds[len(seconds) // 2] * 1e3, 1),
        "round_p99_ms": round(seconds[min(len(seconds) - 1, len(seconds) * 99 // 100)] * 1e3, 1),
    }


def main() -> int:
    from aegisops.embedded.redis_server import RedisServer

    machines, rounds = (int(x) for x in (sys.argv[1:3] or ("10000", "60")))
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(log=Path(folder) / "redis.log") as redis,
    ):
        result = asyncio.run(measure(redis.url, Path(folder), machines, rounds))
    print(json.dumps(result))
    return 0 if result["round_p99_ms"] <= BAR_SECONDS * 1e3 and result["alarms_raised"] else 1


if __name__ == "__main__":
    sys.exit(main())
