"""AegisOps' own processes on the stack: who is there, how many, with which settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from aegisops import project_files
from aegisops.cli import runs
from aegisops.embedded.processes import Child
from aegisops.settings import KafkaSettings, Settings
from deploy.stack.kafka_users import settings_of
from deploy.stack.layout import LOOPBACK, Layout

API_REPLICAS = 2
FEATURE_WORKERS = 2


@dataclass(frozen=True, slots=True)
class App:
    """One process: its name is unique on the stack, its instance tells replicas apart."""

    name: str
    module: str
    instance: str = "0"
    metrics_port: str | None = None
    """Name of the port with its metrics."""
    kafka_user: str = ""
    words: tuple[str, ...] = ()
    """Arguments of the module."""


def apps(layout: Layout) -> list[App]:
    """Every process; the simulated plant writes the gateway's mapping file."""
    mapping = layout.folder("data") / "simulator" / "mapping.toml"
    plant = f"{LOOPBACK}:{layout.port('plant')}"
    workers = [
        App(
            f"feature-worker-{n}",
            "streaming.feature_worker",
            str(n),
            f"feature-worker-{n}",
            kafka_user="feature-worker",
        )
        for n in range(FEATURE_WORKERS)
    ]
    replicas = [
        App(f"api-{n}", "serving", str(n), f"api-{n}", kafka_user="api")
        for n in range(API_REPLICAS)
    ]
    return [
        App("schema-registry", "aegisops.embedded.schema_registry"),
        App(
            "lake-writer",
            "streaming.lake_writer",
            metrics_port="lake-writer",
            kafka_user="lake-writer",
        ),
        *workers,
        *replicas,
        App(
            "gateway",
            "streaming.gateway",
            metrics_port="gateway",
            kafka_user="gateway",
            words=(str(mapping), "--patience", "60"),
        ),
        App("simulator", "aegisops.simulator.live", words=("--opcua", plant)),
        App("alarm-engine", "serving.alarm_engine", "0", "alarm-engine", kafka_user="alarm-engine"),
    ]


def base_settings(layout: Layout, kafka: KafkaSettings) -> Settings:
    """What all of them share."""
    base = Settings(data_dir=layout.folder("data"))
    authority = layout.authority.certificate
    redis = f"rediss://{{user}}:{{password}}@{LOOPBACK}:{layout.port('redis')}/0"
    return base.model_copy(
        update={
            "kafka": kafka,
            "redis": base.redis.model_copy(
                update={
                    "url": redis.format(user="worker", password=layout.secret("redis-worker"))
                    + f"?ssl_ca_certs={authority}"
                }
            ),
            "registry": base.registry.model_copy(
                update={"url": f"http://{LOOPBACK}:{layout.port('schema-registry')}"}
            ),
            "mlflow": base.mlflow.model_copy(update={"tracking_uri": _database(layout, "mlflow")}),
        }
    )


def child(app: App, settings: Settings, layout: Layout) -> Child:
    """The process of one app with its own ports and, for the API, its own Redis user."""
    own = settings
    port = layout.port(app.metrics_port or app.name)
    stream = own.stream.model_copy(
        update={
            "instance": app.instance,
            "lake_metrics_port": port,
            "feature_metrics_port": port,
        }
    )
    own = own.model_copy(update={"stream": stream})
    if app.kafka_user:
        kafka = settings_of(app.kafka_user, settings.kafka, layout)
        own = own.model_copy(update={"kafka": kafka})
    if app.module == "streaming.gateway":
        own = own.model_copy(
            update={"gateway": own.gateway.model_copy(update={"metrics_port": port})}
        )
    if app.module == "serving.alarm_engine":
        own = own.model_copy(update={"alarms": own.alarms.model_copy(update={"port": port})})
    if app.module.startswith("serving"):
        url = own.redis.url.replace("worker:", "api:", 1).replace(
            layout.secret("redis-worker"), layout.secret("redis-api")
        )
        own = own.model_copy(
            update={
                "api": own.api.model_copy(update={"port": port}),
                "redis": own.redis.model_copy(update={"url": url}),
            }
        )
    command = [sys.executable, "-m", app.module, *app.words]
    ready = (
        None if app.module == "aegisops.simulator.live" else _answers(_address(app, port, settings))
    )
    return Child(app.name, command, environment_of(own), ready)


def dagster(settings: Settings, layout: Layout) -> list[Child]:
    """Dagster's UI and daemon, over PostgreSQL."""
    home = dagster_home(layout)
    environment = environment_of(settings) | {"DAGSTER_HOME": str(home)}
    bin_folder = Path(sys.executable).parent
    workspace = ["-w", str(project_files.WORKSPACE)]
    port = layout.port("dagster")
    web = [str(bin_folder / "dagster-webserver"), "-h", LOOPBACK, "-p", str(port), *workspace]
    daemon = [str(bin_folder / "dagster-daemon"), "run", *workspace]
    ready = _answers(f"http://{LOOPBACK}:{port}/server_info")
    return [
        Child("dagster", ["nice", *web], environment, ready),
        Child("dagster-daemon", ["nice", *daemon], environment),
    ]


def dagster_home(layout: Layout) -> Path:
    """DAGSTER_HOME whose runs, events and schedules are in PostgreSQL."""
    home = layout.folder("dagster")
    text = project_files.DAGSTER_SETTINGS.read_text()
    url = _database(layout, "dagster")
    (home / "dagster.yaml").touch(mode=0o600)
    (home / "dagster.yaml").write_text(
        f"{text}\nstorage: {json.dumps({'postgres': {'postgres_url': url}})}\n"
    )
    return home


def environment_of(settings: Settings) -> dict[str, str]:
    """AEGIS_ variables of a process, and what keeps libraries quiet."""
    return runs.as_environment(settings) | {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


def _database(layout: Layout, name: str) -> str:
    # The driver is named: Dagster speaks psycopg2, and SQLAlchemy would take another by default.
    password = layout.secret(f"postgres-{name}")
    where = f"{LOOPBACK}:{layout.port('postgres')}/{name}"
    return (
        f"postgresql+psycopg2://{name}:{password}@{where}"
        f"?sslmode=verify-full&sslrootcert={layout.authority.certificate}"
    )


def _address(app: App, port: int, settings: Settings) -> str:
    """What answers when the process is ready."""
    if app.module == "aegisops.embedded.schema_registry":
        return f"{settings.registry.url}/subjects"
    path = "metrics" if app.module.startswith("streaming") else "readyz"
    return f"http://{LOOPBACK}:{port}/{path}"


def _answers(address: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            with urlopen(address, timeout=1) as answer:  # noqa: S310 - http on loopback
                return bool(answer.status < 400)  # noqa: PLR2004
        except OSError:
            return False

    return ask


def targets(layout: Layout) -> Mapping[str, list[int]]:
    """Prometheus job → ports."""
    jobs: dict[str, list[int]] = {}
    for app in apps(layout):
        if app.metrics_port:
            jobs.setdefault(app.module, []).append(layout.port(app.metrics_port))
    return jobs
