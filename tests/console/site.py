"""A whole site: broker, Redis, feature worker, lake writer, API, alarm engine, simulator.

Everything is the product's own process; only the model is a small one made for the tests (its risk
follows the vibration), because training takes longer than all tests of the console together.
"""

import os
import re
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import httpx
import numpy as np
import polars as pl

from aegisops.bus import Publisher
from aegisops.cli.stack import Stack
from aegisops.lake import Lake
from aegisops.machines import load_class, load_classes
from aegisops.names import READINGS_TOPIC
from aegisops.online_store import FeatureVector, Machine, OnlineStore, connect
from aegisops.schemas.tables import MACHINES
from aegisops.settings import AlarmSettings, ApiSettings, Settings, StreamSettings
from aegisops.simulator.fleet import FleetPlan
from aegisops.simulator.loading import load_history
from aegisops.simulator.publishing import Defect, request
from aegisops.tokens import mint
from tests.serving.conftest import promote, write_bundle

SPINDLE = load_class("cnc_spindle")
QUICK = "quick_spindle"
SIMULATED = 6
AWAY_HOURS = 5.0
PATIENCE = 60.0
SOUND = {
    "vibration_rms_5m": 2.0,
    "vibration_rms_1h": 2.0,
    "vibration_kurtosis_1h": 3.0,
    "temperature_mean_1h": 45.0,
    "temperature_rate_of_change_1h": 0.0,
    "power_deviation_1h": 0.0,
}


class Site:
    """Started by `start`, stopped by `stop`; every method talks to the running processes."""

    def __init__(self, folder):
        classes = folder / "classes"
        classes.mkdir(parents=True)
        (classes / f"{QUICK}.toml").write_text(_quick_spindle())
        self.quick = load_class(classes / f"{QUICK}.toml")
        settings = Settings(
            data_dir=folder,
            classes_dir=classes,
            api=ApiSettings(model_poll_seconds=0.2, telemetry_clients_per_subject=200),
            alarms=AlarmSettings(port=0, risk_seconds=3.0, evaluate_seconds=0.5, fleet_seconds=0.5),
            stream=StreamSettings(
                lake_commit_seconds=1.0, lake_metrics_port=0, feature_metrics_port=0
            ),
        )
        self.stack = Stack(settings)
        self.sequence = 0

    @property
    def settings(self):
        return self.stack.settings

    @property
    def url(self):
        return self.stack.urls["API"]

    def start(self, *, simulated=SIMULATED):
        for machine_class in load_classes(self.settings.classes_dir).values():
            if machine_class.name in {SPINDLE.name, QUICK}:
                write_bundle(self.settings, machine_class)
                promote(self.settings, "1", machine_class)
        self.stack.start_services()
        if simulated:
            self._write_history(simulated)
        self.stack.start_lake_writer()
        self.stack.start_feature_worker()
        self.stack.start_api()
        self.stack.start_alarm_engine()
        self.stack.wait_for_api()
        self.client = connect(self.settings.redis)
        self.store = OnlineStore(self.client)
        self.http = httpx.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {self.token()}"},
            timeout=20,
        )
        self.until(lambda: self.http.get("/api/v1/alarms").status_code == 200, "the alarm engine")

    def stop(self):
        if hasattr(self, "http"):
            self.http.close()
            self.client.close()
        self.stack.stop()

    def token(self, subject="operator-1", role="operator", **more):
        return mint(self.settings, subject, role, **more)

    def address(self, path="/", **claims):
        """Of a page, signed in by the fragment."""
        return f"{self.url}{path}#token={self.token(**claims)}"

    def register(self, *machine_ids, area="Hall B", owner="mechanics-north"):
        self.store.register(
            [Machine(m, QUICK, "Plant 1", area, {"owner": owner}) for m in machine_ids]
        )

    def enrol(self, machine_id):
        """Register the machine in the lake as well, from where the stream applications know it."""
        self.register(machine_id)
        row = {
            "machine_id": machine_id,
            "machine_class": QUICK,
            "site": "Plant 1",
            "area": "Hall B",
            "attributes": "{}",
            "registered_at": datetime.now(UTC),
        }
        Lake(self.settings.lake_root).append(MACHINES, pl.DataFrame([row]))

    def feel(self, *machine_ids, age=1.0, coverage=1.0, **features):
        """Write what the feature worker would have written for these machines."""
        values = SOUND | features
        vector = np.array([values.get(name, 1.0) for name in self.quick.vector])
        ts = round((time.time() - age) * 1e6)
        self.store.write_features(
            [FeatureVector(m, self.quick.feature_set, ts, vector, coverage) for m in machine_ids],
            {self.quick.feature_set: self.quick.vector},
        )

    def forget(self, *machine_ids):
        for machine_id in machine_ids:
            self.client.delete(f"machine:{machine_id}", f"feat:{machine_id}", f"raw:{machine_id}")
            self.client.srem("machines", machine_id)

    def send(self, machine_id, channel, values, *, quality=0):
        """Readings of one channel through Kafka, a message each; their times are now and after."""
        now = time.time_ns() // 1_000
        with Publisher(self.settings) as publisher:
            for i, value in enumerate(values):
                self.sequence += 1
                block = {
                    "channel": channel,
                    "start_us": now + i * 1_000,
                    "period_us": None,
                    "quality": quality,
                    "values": [float(value)],
                }
                record = {
                    "machine_id": machine_id,
                    "seq": self.sequence,
                    "sent_at": now,
                    "blocks": [block],
                }
                publisher.publish(READINGS_TOPIC, machine_id, record)
            publisher.flush()

    def simulate(self, machine_id, *, hours=AWAY_HOURS - 0.5):
        """Start the simulator; a bearing of the machine begins to fail as it comes back on line.

        The fleet was off line for some hours. It sends what it has measured meanwhile 600 times as
        fast as it happened, so that hours of a growing defect pass in half a minute.
        """
        self.stack.start_simulator()
        log = self.settings.data_dir / "logs" / "simulator.log"
        self.until(lambda: log.exists() and "machines live" in log.read_text(), "the simulator")
        request(self.settings.data_dir, Defect(machine_id, "bearing_wear", hours))

    def _write_history(self, machines):
        end = datetime.now(UTC) - timedelta(hours=AWAY_HOURS)
        plan = FleetPlan.ending(end, machines=machines, days=1)
        load_history(Lake(self.settings.lake_root), plan)

    def predict(self, *machine_ids):
        asked = {"machine_ids": list(machine_ids)} if machine_ids else {"all": True}
        answer = self.http.post("/api/v1/predict/batch", json=asked)
        answer.raise_for_status()
        return answer.json()

    def alarms(self, machine_id=None, **query):
        found = self.http.get("/api/v1/alarms", params=query).json()["alarms"]
        return [a for a in found if machine_id in {None, a["machine_id"]}]

    @contextmanager
    def api_frozen(self):
        """The API neither answers nor hangs up: what a cut network cable looks like."""
        pid = self.stack.pids()["api"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill_api(self):
        """The supervisor starts it again."""
        os.kill(self.stack.pids()["api"], signal.SIGKILL)

    def until(self, condition, what, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while True:
            try:
                if found := condition():
                    return found
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"{what} did not come in {patience:g} s"
            time.sleep(0.05)


def _quick_spindle():
    """The spindle's class under another name, whose alarms do not wait: tests would wait too."""
    text = (files("aegisops.machines") / "classes" / f"{SPINDLE.name}.toml").read_text()
    text = text.replace(f'name = "{SPINDLE.name}"', f'name = "{QUICK}"')
    return re.sub(r'^(on|off)_delay = ".*"', r'\1_delay = "1s"', text, flags=re.MULTILINE)
