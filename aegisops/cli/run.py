"""`aegisops run`: one stream application under its supervisor, where no orchestrator does it."""

from __future__ import annotations

import signal
import sys
import threading
from enum import StrEnum
from typing import Annotated

import typer

from aegisops.cli import output, runs


class App(StrEnum):
    """What can be run alone."""

    LAKE_WRITER = "lake-writer"
    FEATURE_WORKER = "feature-worker"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    name: Annotated[App, typer.Argument(help="The application.")],
    *,
    grace: Annotated[
        float, typer.Option(help="Seconds it has for its last flush after SIGTERM.", min=1)
    ] = 30.0,
) -> None:
    """Run one stream application until SIGTERM or Ctrl-C; start it again whenever it ends.

    Restarts wait longer and longer, with jitter, up to 30 s. Settings come from AEGIS_ variables.
    Example: AEGIS_KAFKA__BOOTSTRAP=kafka:9092 aegisops run lake-writer
    """
    from aegisops.embedded.processes import Child, Processes

    settings = runs.settings()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with Processes(settings.data_dir.absolute() / "logs") as processes:
        module = f"streaming.{name.value.replace('-', '_')}"
        processes.start(
            Child(
                name.value,
                [sys.executable, "-m", module],
                runs.as_environment(settings),
                restarts_as="AEGIS_STREAM__RESTARTS",
            )
        )
        output.note(f"{name.value} runs; its log is {processes.log_path(name.value)}")
        stopped.wait()
        processes.stop(grace)
