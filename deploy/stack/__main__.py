"""`python -m deploy.stack`: start everything, check it, stay until Ctrl-C (--once: stop again)."""

from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.request import Request, urlopen

import psutil
from rich.console import Console
from rich.table import Table

from aegisops import bus
from aegisops.embedded.kafka_server import KafkaServer, Login
from aegisops.embedded.processes import Processes
from aegisops.errors import AegisError, ConfigurationError
from aegisops.settings import Settings
from aegisops.tokens import mint
from deploy.stack import apps, services
from deploy.stack.kafka_users import make_users
from deploy.stack.layout import LOOPBACK, Layout

READY_SECONDS = 60.0
MACHINE_CLASS = "cnc_spindle"
console = Console(stderr=True, highlight=False)


class NativeStack:
    """Everything of deploy/compose.yaml, as processes. A context manager that stops it all."""

    def __init__(self, layout: Layout, pager_url: str) -> None:
        self.layout = layout
        self._pager_url = pager_url
        self._open = ExitStack()
        logs = layout.folder("logs")
        self.services = self._open.enter_context(Processes(logs))
        self.apps = self._open.enter_context(Processes(logs))
        self.kafka = KafkaServer(
            layout.folder("kafka"),
            layout.port("kafka"),
            login=Login(
                layout.authority.issue("kafka").both,
                layout.authority.certificate,
                "aegisops",
                layout.secret("kafka-aegisops"),
            ),
        )
        self.settings: Settings | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.apps.stop()
        self.services.stop()
        self.kafka.stop()
        self._open.close()

    def start_services(self) -> None:
        """Every server under the apps, each ready."""
        layout = self.layout
        replicas = [layout.port(f"api-{n}") for n in range(apps.API_REPLICAS)]
        children = [
            services.redis(layout),
            services.mosquitto(layout),
            services.postgres(layout),
            services.nginx(layout, replicas),
            services.alertmanager(layout, self._pager_url),
            services.prometheus(layout, apps.targets(layout)),
        ]
        for child in children:
            self.services.start(child)
        self.kafka.start()
        for child in children:
            self.services.wait_ready(child.name, READY_SECONDS)
        services.make_databases(layout)
        kafka = self.kafka.settings
        bus.ensure_topics(kafka)
        make_users(kafka, layout)
        cluster = bus.cluster_id(kafka)
        self.settings = apps.base_settings(layout, kafka.model_copy(update={"cluster_id": cluster}))

    def start_apps(self) -> None:
        """AegisOps' own processes, each ready."""
        settings = self._settings()
        children = [apps.child(app, settings, self.layout) for app in apps.apps(self.layout)]
        for child in children:
            self.apps.start(child)
        for child in children:
            self.apps.wait_ready(child.name, READY_SECONDS)

    def start_dagster(self) -> None:
        """UI and daemon; they take seconds and nobody waits for them."""
        for child in apps.dagster(self._settings(), self.layout):
            self.apps.start(child)

    def run(self, *words: str) -> None:
        """Run a command of AegisOps over this stack. Raises `ConfigurationError` when it fails."""
        environment = apps.environment_of(self._settings())
        environment["DAGSTER_HOME"] = str(apps.dagster_home(self.layout))
        done = subprocess.run(
            [sys.executable, "-m", *words], env=os.environ | environment, check=False
        )
        if done.returncode:
            raise ConfigurationError(f"{' '.join(words[:3])} failed; the lines above say why")

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the API the way its users do: through the proxy, over TLS 1.3, with a token."""
        settings = self._settings()
        context = ssl.create_default_context(cafile=str(self.layout.authority.certificate))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        request = Request(
            f"https://{LOOPBACK}:{self.layout.port('https')}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "authorization": f"Bearer {mint(settings, 'stack', 'engineer')}",
                "content-type": "application/json",
            },
        )
        with urlopen(request, timeout=10, context=context) as answer:  # noqa: S310 - https
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def memory_mb(self) -> dict[str, float]:
        """Name → resident megabytes, children included."""
        pids = self.services.pids() | self.apps.pids()
        return {name: _rss_mb(pid) for name, pid in pids.items()}

    def _settings(self) -> Settings:
        assert self.settings is not None, "start_services first"  # noqa: S101
        return self.settings


def main() -> int:
    """Exit code 0 after an orderly stop, 2 when something cannot start."""
    options = _parser().parse_args()
    if packages := services.missing():
        console.print(f"not installed: {', '.join(packages)}; apt install {' '.join(packages)}")
        return 2
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with NativeStack(Layout(options.folder), options.pager_url) as stack:
            _start(stack, options)
            if not options.once:
                console.print("running; Ctrl-C stops everything")
                stopped.wait()
    except AegisError as error:
        console.print(f"[red]{error}[/red]")
        return 2
    return 0


def _start(stack: NativeStack, options: argparse.Namespace) -> None:
    with _step("servers: Kafka, Redis, mosquitto, PostgreSQL, nginx, Prometheus, Alertmanager"):
        stack.start_services()
    with _step(f"history: {options.machines} machines, {options.days:g} days"):
        words = ["--machines", str(options.machines), "--days", str(options.days)]
        stack.run("aegisops.cli", "simulate", *words)
    with _step("AegisOps: registry, lake writer, feature workers, API replicas, alarm engine"):
        stack.start_apps()
    with _step("assets, over PostgreSQL"):
        stack.run("aegisops_assets.materialize", "--job", "everything", "--class", MACHINE_CLASS)
    stack.start_dagster()
    status = stack.ask("/api/v1/system/status")
    table = Table("process", "MB", title=f"the API says: {status['status']}")
    memory = stack.memory_mb()
    for name, size in sorted(memory.items()):
        table.add_row(name, f"{size:.0f}")
    table.add_row("together", f"{sum(memory.values()):.0f}")
    console.print(table)
    console.print(f"API: https://{LOOPBACK}:{stack.layout.port('https')}/")


def _rss_mb(pid: int) -> float:
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        return sum(p.memory_info().rss for p in family) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


@contextmanager
def _step(what: str) -> Iterator[None]:
    begun = time.monotonic()
    console.print(f"[dim]{what}[/dim]")
    yield
    console.print(f"  {time.monotonic() - begun:.1f} s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make stack", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".aegis/stack"))
    parser.add_argument("--once", action="store_true", help="stop after the check")
    parser.add_argument("--machines", type=int, default=20)
    parser.add_argument("--days", type=float, default=21)
    parser.add_argument("--pager-url", default="http://127.0.0.1:9/v2/enqueue")
    return parser


if __name__ == "__main__":
    sys.exit(main())
