"""One running stack: embedded services and the apps around them, in the order they depend.

Children are started from the main thread only: the kernel ends a child with the *thread* that
started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from urllib.request import urlopen

from aegisops import project_files
from aegisops.cli import runs
from aegisops.cli.ports import with_free_ports
from aegisops.errors import ServiceUnavailable

if TYPE_CHECKING:
    from aegisops.embedded.processes import Processes
    from aegisops.settings import Settings

READY_SECONDS = 90.0
DRAIN_SECONDS = 15.0
UI_GRACE_SECONDS = 2.0
LOOPBACK = "127.0.0.1"


class Stack:
    """Broker in this process, everything else as children. A context manager that stops it all.

    Data services and writers outlive the apps in front of them, so that what an app said last
    still reaches the lake.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing starts yet. `moved` then says which ports had to change."""
        from aegisops.embedded.processes import Processes

        self.settings, self.moved = with_free_ports(settings)
        logs = settings.data_dir.absolute() / "logs"
        self._behind = Processes(logs)
        self._front = Processes(logs)
        self._ui = Processes(logs)
        self._broker = contextlib.ExitStack()
        self._writes_to_lake = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def urls(self) -> dict[str, str]:
        """Where people look."""
        host = self.settings.api.host
        return {
            "API": f"http://{host}:{self.settings.api.port}",
            "Dagster": f"http://{LOOPBACK}:{self.settings.dagster.port}",
        }

    def pids(self) -> dict[str, int]:
        """Name → process id of every child that lives."""
        return self._behind.pids() | self._front.pids() | self._ui.pids()

    def start_services(self, *, redis: bool = True) -> None:
        """Broker with its topics, Redis and the schema registry; ready when this returns.

        With AEGIS_KAFKA__IN_MEMORY=false the configured services are used instead.
        """
        if not self.settings.kafka.in_memory:
            from aegisops.bus import ensure_topics

            ensure_topics(self.settings.kafka)
            return
        from aegisops import names
        from aegisops.embedded import redis_server
        from aegisops.embedded.broker import InMemoryBroker

        registry = urlsplit(self.settings.registry.url)
        redis_port = urlsplit(self.settings.redis.url).port or 0
        self._start(
            self._behind,
            "schema-registry",
            [sys.executable, "-m", "aegisops.embedded.schema_registry"],
            _answers(f"{registry.scheme}://{registry.netloc}/subjects"),
        )
        if redis:
            self._start(
                self._behind,
                "redis",
                redis_server.command(redis_port),
                lambda: redis_server.answers(redis_port),
            )
        broker = self._broker.enter_context(InMemoryBroker())
        for topic in names.TOPICS:
            broker.create_topic(topic, names.PARTITIONS)
        kafka = self.settings.kafka.model_copy(
            update={"bootstrap": broker.bootstrap, "cluster_id": broker.incarnation}
        )
        self.settings = self.settings.model_copy(update={"kafka": kafka})
        if redis:
            self._behind.wait_ready("redis", READY_SECONDS)
        self._behind.wait_ready("schema-registry", READY_SECONDS)

    def start_lake_writer(self) -> None:
        """Kafka → Delta."""
        self._writes_to_lake = True
        self._module(self._behind, "lake-writer", "streaming.lake_writer")

    def start_feature_worker(self) -> None:
        """Kafka → Redis."""
        self._module(self._behind, "feature-worker", "streaming.feature_worker")

    def start_api(self, program: Sequence[str] = ("serving",)) -> None:
        """The prediction API; ready when `wait_for_api` returns.

        `program`: the module that is the API, with its arguments.
        """
        command = [sys.executable, "-m", *program]
        self._start(self._front, "api", command, _answers(f"{self.urls['API']}/readyz"))

    def start_alarm_engine(self) -> None:
        """Limits, data and risks → alarms."""
        self._module(self._front, "alarm-engine", "serving.alarm_engine")

    def start_simulator(self) -> None:
        """The simulated fleet that the lake holds, as an OPC UA server, and the gateway to it.

        The gateway outlives the simulator, so that what was shown last gets to Kafka.
        """
        from aegisops.embedded.ports import free_port

        # Where `simulator.plant` writes it; importing that here would cost the start a second.
        mapping = str(self.settings.data_dir.absolute() / "simulator" / "mapping.toml")
        Path(mapping).unlink(missing_ok=True)  # names the port of an earlier run
        self._module(self._front, "gateway", "streaming.gateway", None, mapping, "--patience", "60")
        where = f"{LOOPBACK}:{free_port()}"
        self._module(self._front, "simulator", "aegisops.simulator.live", None, "--opcua", where)

    def start_dagster(self) -> None:
        """The Dagster UI over this data folder."""
        port = self.settings.dagster.port
        ready = _answers(f"{self.urls['Dagster']}/server_info")
        self._dagster("dagster", "dagster-webserver", ["-h", LOOPBACK, "-p", str(port)], ready)

    def start_dagster_daemon(self) -> None:
        """Dagster's sensors, schedules and run queue."""
        self._dagster("dagster-daemon", "dagster-daemon", ["run"], None)

    def _dagster(
        self, name: str, program: str, arguments: list[str], ready: Callable[[], bool] | None
    ) -> None:
        home = prepare_dagster_home(self.settings)
        path = str(Path(sys.executable).with_name(program))
        workspace = ["-w", str(project_files.WORKSPACE)]
        # Low priority: readings and answers come before pictures and retraining.
        command = ["nice", "-n", "15", path, *arguments, *workspace]
        self._start(self._ui, name, command, ready, {"DAGSTER_HOME": str(home)})

    def wait_for_api(self) -> None:
        """Return when the API answers. Raises with the end of its log."""
        self._front.wait_ready("api", READY_SECONDS)

    def wait_for_dagster(self) -> None:
        """Return when the UI answers. Raises with the end of its log."""
        self._ui.wait_ready("dagster", READY_SECONDS)

    def stop(self) -> None:
        """Stop apps, let the lake writer take what is in Kafka, then stop the rest."""
        # The UI takes seconds to end and has nothing to hand over.
        ui = threading.Thread(target=self._ui.stop, kwargs={"grace": UI_GRACE_SECONDS})
        ui.start()
        self._front.stop()
        if (
            self._writes_to_lake
            and self.settings.kafka.in_memory
            and self.pids().get("lake-writer")
        ):
            self._drain()
        self._behind.stop()
        self._broker.close()
        ui.join()

    def _drain(self) -> None:
        """The in-memory broker forgets: wait, not for ever, until the lake has everything."""
        from aegisops import names
        from aegisops.bus import lag

        until = time.monotonic() + DRAIN_SECONDS
        with contextlib.suppress(ServiceUnavailable):
            while time.monotonic() < until:
                behind = sum(
                    sum(lag(self.settings.kafka, names.LAKE_WRITER_APP, topic).values())
                    for topic in names.TOPICS
                )
                if not behind:
                    return
                time.sleep(0.2)

    def _module(
        self, group: Processes, name: str, module: str, url: str | None = None, *words: str
    ) -> None:
        command = [sys.executable, "-m", module, *words]
        self._start(group, name, command, _answers(url) if url else None)

    def _start(
        self,
        group: Processes,
        name: str,
        command: list[str],
        ready: Callable[[], bool] | None = None,
        extra: dict[str, str] | None = None,
    ) -> None:
        from aegisops.embedded.processes import Child

        environment = self.environment | (extra or {})
        group.start(Child(name, command, environment, ready, restarts_as="AEGIS_STREAM__RESTARTS"))

    @property
    def environment(self) -> dict[str, str]:
        """What every child gets."""
        return child_environment(self.settings)


def child_environment(settings: Settings) -> dict[str, str]:
    """AEGIS_ variables of a child, and what keeps libraries quiet and quick."""
    return runs.as_environment(settings) | {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "",  # images set it; every start would compile all imports
    }


def run_child(
    command: list[str], environment: dict[str, str], allowed: tuple[int, ...] = (0,)
) -> None:
    """Run a step as a process of its own; it shows its progress on our stderr.

    Raises `typer.Exit` with its exit code when that is not `allowed`: it has said why.
    """
    import typer

    from aegisops.cli import output

    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode not in allowed:
        output.fail(f"{' '.join(command[1:4])} failed; the lines above say why")
        raise typer.Exit(done.returncode)


def materialize(settings: Settings, machine_class: str, job: str) -> dict[str, Any]:
    """Run a job of the Dagster assets over one class; what it made, asset by asset.

    No model is a result, not a failure: `no_model` says why (refused by its checks, or too few
    failures to learn from), and the limit rules answer. Raises `typer.Exit` when a step failed.
    """
    import typer

    result = settings.data_dir.absolute() / "logs" / f"{job}.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "aegisops_assets.materialize", "--job", job]
    home = {"DAGSTER_HOME": str(prepare_dagster_home(settings))}
    run_child(
        [*command, "--class", machine_class, "--json", str(result)],
        child_environment(settings) | home,
        allowed=(0, 1),
    )
    if not result.exists():
        raise typer.Exit(1)
    made: dict[str, Any] = json.loads(result.read_text())
    made["no_model"] = None if made["success"] else _why_no_model(made)
    if not made["success"] and made["no_model"] is None:
        raise typer.Exit(1)
    return made


def _why_no_model(made: dict[str, Any]) -> str | None:
    """The reason, when it lies in the data; None when something broke."""
    error = str(made.get("error", ""))
    if "TooFewFailures" in error:
        return error.partition("TooFewFailures:")[2].strip()
    checks: dict[str, str] = made["failed_checks"]
    is_refused = bool(checks) and all(name.startswith("ml/validation:") for name in checks)
    return "refused: " + "; ".join(checks.values()) if is_refused else None


def prepare_dagster_home(settings: Settings) -> Path:
    """DAGSTER_HOME under the data folder: configured, and its databases made.

    One process makes the databases before any other opens them: two that make them at once fail
    ("table already exists").
    """
    home = settings.data_dir.absolute() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(project_files.DAGSTER_SETTINGS.read_text())
    made = home / "databases-made"
    if made.exists():
        return home
    done = subprocess.run(
        [sys.executable, "-c", "import dagster; dagster.DagsterInstance.get().dispose()"],
        env=os.environ | child_environment(settings) | {"DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServiceUnavailable(f"Dagster cannot use {home}:\n{done.stderr[-2000:]}")
    made.touch()
    return home


def _answers(url: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            with urlopen(url, timeout=1) as answer:  # noqa: S310 - http on loopback
                return bool(answer.status < 400)  # noqa: PLR2004
        except OSError:
            return False

    return ask


@contextlib.contextmanager
def serving_only(data_dir: Path) -> Iterator[Settings]:
    """The API over a kept data folder, for the moment; features are computed from the lake."""
    from aegisops.settings import Settings

    classes = data_dir / "classes"
    base = Settings(data_dir=data_dir)
    if classes.is_dir() and base.classes_dir is None:
        base = base.model_copy(update={"classes_dir": classes})
    with runs.hold(data_dir), Stack(base) as stack:
        stack.start_services()
        stack.start_lake_writer()  # the answers' audit records belong into the kept lake
        stack.start_api()
        stack.wait_for_api()
        yield stack.settings
