"""`aegisops simulate`: a simulated fleet's history into a lake, or its live readings to Kafka."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import output, runs


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(  # noqa: PLR0917 - options of a command
    machines: Annotated[int, typer.Option(min=1, help="Machines in the fleet.")] = 20,
    days: Annotated[float, typer.Option(min=1, help="Days of history.")] = 21,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 7,
    live: Annotated[
        bool, typer.Option("--live", help="Send live readings that continue the lake's fleet.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Rows written, as JSON.")] = False,
) -> None:
    """Write a simulated fleet's history into the lake, once; with --live send its readings on.

    A second call with the same fleet completes what is missing; another fleet is refused.
    """
    settings = runs.settings(data_dir)
    if live:
        import os

        environment = os.environ | runs.as_environment(settings)
        command = [sys.executable, "-m", "aegisops.simulator.live"]
        raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
    from datetime import UTC, datetime

    from aegisops.lake import Lake
    from aegisops.simulator.fleet import FleetPlan
    from aegisops.simulator.loading import load_history, plan_in

    lake = Lake(settings.lake_root)
    plan = FleetPlan.ending(datetime.now(UTC), seed=seed, machines=machines, days=days)
    found = plan_in(lake)
    if found is not None and (found.seed, found.machines) == (seed, machines):
        plan = found  # complete the history that is there; its end is not ours to move
    with output.steps() as progress:
        task = progress.add_task("history", note="")
        loaded = load_history(
            lake, plan, lambda done, total: progress.update(task, completed=done, total=total)
        )
    if json:
        output.as_json({"rows": loaded.rows, "lake": settings.lake_root})
    else:
        for name, count in loaded.rows.items():
            output.say(f"{name}: {count:,} rows")
