"""`aegisops up`, `down` and `status`: the system over your own lake, in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Annotated, Any

import typer

from aegisops.cli import output, runs

START_SECONDS = 120.0
STOP_SECONDS = 60.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status):
        app.command()(command)


def up(
    *,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="URLs as JSON.")] = False,
) -> None:
    """Start the system over the lake of AEGIS_DATA_DIR and keep its data.

    Embedded services start too, unless AEGIS_KAFKA__IN_MEMORY=false names real ones. A lake with a
    simulated fleet (`aegisops simulate`) gets live readings.
    """
    base = runs.base_dir()
    if foreground:
        _serve(base)
        return
    base.joinpath("logs").mkdir(parents=True, exist_ok=True)
    with base.joinpath("logs", "stack.log").open("ab") as log:
        if runs.is_running(base):
            with runs.hold(base):
                pass  # raises, and says who runs
        child = subprocess.Popen(
            [sys.executable, "-m", "aegisops.cli", "up", "--foreground"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    run = _wait_until_ready(base, child)
    if json:
        output.as_json({"pid": run.pid, "urls": run.urls, "data_dir": run.data_dir})
    else:
        for name, url in run.urls.items():
            output.say(f"{name}: {url}")
        output.note("stop with `aegisops down`")


def _serve(base: Any) -> None:  # noqa: ANN401 - a Path; pathlib is not needed at start
    from aegisops.cli.stack import Stack
    from aegisops.lake import Lake
    from aegisops.settings import Settings
    from aegisops.simulator.loading import plan_in

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with runs.hold(base), Stack(Settings(data_dir=base)) as stack:
        for line in stack.moved:
            output.note(line)
        run = runs.Run(os.getpid(), "up", str(base), {})
        run.save(base)
        stack.start_services()
        run.environment, run.urls = runs.as_environment(stack.settings), stack.urls
        stack.start_lake_writer()
        stack.start_feature_worker()
        if plan_in(Lake(stack.settings.lake_root)) is not None:
            stack.start_simulator()
        stack.start_api()
        stack.start_alarm_engine()
        stack.start_dagster()
        stack.start_dagster_daemon()
        stack.wait_for_api()
        stack.wait_for_dagster()
        run.processes, run.ready = stack.pids(), True
        run.save(base)
        output.note(f"ready: {run.urls}")
        stopped.wait()


def _wait_until_ready(base: Any, child: subprocess.Popen[bytes]) -> runs.Run:  # noqa: ANN401
    from aegisops.errors import Permanent, ServiceUnavailable

    log = base / "logs" / "stack.log"
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        run = runs.load(base)
        if run is not None and run.pid == child.pid and run.ready:
            return run
        if child.poll() is not None:
            lines = log.read_text(errors="replace").splitlines()
            raise Permanent("\n".join(["the system did not start; its log ends:", *lines[-8:]]))
        time.sleep(0.2)
    raise ServiceUnavailable(f"not ready after {START_SECONDS:g} s; see {log}")


def down(
    json: Annotated[bool, typer.Option("--json", help="Result as JSON.")] = False,
) -> None:
    """Stop what runs here (`up` or `demo`), cleanly."""
    base = runs.base_dir()
    run = runs.load(base)
    was_running = run is not None and runs.is_running(base)
    if run is not None and was_running:
        os.kill(run.pid, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while runs.is_running(base):
            if time.monotonic() > until:
                output.fail(f"process {run.pid} has not stopped after {STOP_SECONDS:g} s")
                raise typer.Exit(1)
            time.sleep(0.1)
    if json:
        output.as_json({"stopped": was_running})
    else:
        output.say("stopped" if was_running else "nothing runs here")


def status(
    *,
    url: Annotated[str | None, typer.Option(help="Only print this URL: API or Dagster.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """What runs here, where, and how every part is. Exit code 3 when nothing runs."""
    base = runs.base_dir()
    run = runs.load(base)
    if run is None or not runs.is_running(base):
        if json:
            output.as_json({"running": False, "last": run.__dict__ if run else None})
        else:
            output.say("nothing runs here; start with `aegisops demo` or `aegisops up`")
        raise typer.Exit(3)
    if url is not None:
        if url not in run.urls:
            raise typer.BadParameter(f"one of {', '.join(run.urls)}", param_hint="--url")
        typer.echo(run.urls[url])
        return
    told: dict[str, Any] = _api_status() if run.ready else {"status": "starting"}
    report: dict[str, Any] = {"running": True, **run.__dict__, "api": told, "lake": _lake_rows()}
    if json:
        output.as_json(report)
        return
    rows = [("stack", f"aegisops {run.kind}, process {run.pid}, since {run.started_at}")]
    rows += [(name, address) for name, address in run.urls.items()]
    rows += [(name, f"process {pid}") for name, pid in run.processes.items()]
    rows.append(("API says", str(told.get("status"))))
    for model in told.get("models", []):
        version = model.get("version") or "none, limit rules answer"
        rows.append((f"model {model['machine_class']}", version))
    rows += [(name, f"version {version}") for name, version in report["lake"].items()]
    output.results.print(output.table("", ("Part", "State"), rows))


def _api_status() -> dict[str, Any]:
    from aegisops.cli.api import Api
    from aegisops.errors import AegisError

    try:
        answer: dict[str, Any] = Api(runs.settings(), role="viewer", timeout=5).get(
            "/system/status"
        )
    except AegisError as error:
        return {"status": "away", "detail": str(error)}
    return answer


def _lake_rows() -> dict[str, int]:
    from aegisops.lake import Lake
    from aegisops.schemas.tables import TABLES

    lake = Lake(runs.settings().lake_root)
    found = {name: lake.version(table) for name, table in TABLES.items()}
    return {name: version for name, version in found.items() if version >= 0}
