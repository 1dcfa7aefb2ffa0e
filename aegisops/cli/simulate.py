"""`aegisops simulate`: a simulated fleet's history, its live readings, and faults on request."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import output, runs


def register(app: typer.Typer) -> None:
    """Add the command and its one sub-command."""
    group = typer.Typer(invoke_without_command=True, callback=simulate)
    group.command()(fault)
    app.add_typer(group, name="simulate")


def simulate(  # noqa: PLR0917 - options of a command
    ctx: typer.Context,
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
    if ctx.invoked_subcommand is not None:
        return
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


def fault(  # noqa: PLR0917 - options of a command
    machine: Annotated[str, typer.Argument(help="Machine id, for example spindle-003.")],
    mode: Annotated[
        str, typer.Option(help="Failure mode; its first letters are enough, as in `bearing`.")
    ] = "bearing_wear",
    hours: Annotated[float, typer.Option(help="Hours of use from here to the failure.")] = 6.0,
    speed: Annotated[
        float, typer.Option(help="The machine lives so many times faster until it is repaired.")
    ] = 60.0,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder of the running one.")] = None,
    json: Annotated[bool, typer.Option("--json", help="What was asked for, as JSON.")] = False,
) -> None:
    """Start a defect on a machine of the live simulator (of `demo`, `up` or `simulate --live`).

    Six hours at 60 times the speed are six minutes: the machine's readings come every second on
    the real clock, the defect grows, the machine fails, is repaired, and runs on as before.
    """
    from dataclasses import asdict

    from aegisops.errors import ConfigurationError, UnknownMachine
    from aegisops.lake import Lake
    from aegisops.simulator.fleet import MODES, fleet_of
    from aegisops.simulator.live_fleet import MOST_SPEED
    from aegisops.simulator.loading import plan_in
    from aegisops.simulator.publishing import Defect, request

    settings = runs.settings(data_dir)
    named = [m for m in MODES if m.startswith(mode)]
    if len(named) != 1:
        raise ConfigurationError(f"no failure mode {mode!r}; choose one of {', '.join(MODES)}")
    if not 1 <= speed <= MOST_SPEED or hours <= 0:
        raise ConfigurationError(f"--speed goes from 1 to {MOST_SPEED:g}, --hours above 0")
    plan = plan_in(Lake(settings.lake_root))
    if plan is None:
        raise ConfigurationError(
            f"{settings.lake_root} holds no simulated fleet; start one with `aegisops demo`"
        )
    if machine not in {m.machine_id for m in fleet_of(plan)}:
        raise UnknownMachine(machine)
    defect = Defect(machine, named[0], hours, speed)
    request(settings.data_dir, defect)
    if json:
        output.as_json(asdict(defect))
    else:
        output.say(f"{machine}: {named[0]} fails in about {hours * 60 / speed:.0f} minutes of use")
