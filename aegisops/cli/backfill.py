"""`aegisops backfill`: tiles and features of a span made again from bronze."""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from aegisops.cli import output, runs


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(backfill)


def backfill(
    *,
    first: Annotated[str, typer.Option("--from", help="First day (UTC), such as 2026-01-31.")],
    last: Annotated[str, typer.Option("--to", help="Last day (UTC), included.")],
    anew: Annotated[
        bool, typer.Option("--anew", help="Do not go on where a broken-off run stopped.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Result as JSON.")] = False,
) -> None:
    """Make silver/tiles and gold/features of a span of days again from bronze.

    Repeating it changes nothing; a run that was broken off goes on where it stopped. Features
    behind the span are written again too, because lifetime statistics carry corrections forward.
    Example: aegisops backfill --from 2026-01-01 --to 2026-01-31
    """
    begin, end = output.utc_time(first, "--from").date(), output.utc_time(last, "--to").date()
    settings = runs.settings(data_dir)
    command = [sys.executable, "-m", "aegisops_assets.backfill", f"--from={begin}"]
    command += [f"--to={end}", *(["--anew"] if anew else [])]
    result: dict[str, Any] = {}
    with (
        output.steps() as progress,
        subprocess.Popen(
            command,
            env=os.environ | runs.as_environment(settings),
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        task = progress.add_task("backfill", total=1.0, note="")
        assert child.stdout is not None  # noqa: S101 - it was asked for
        for line in child.stdout:
            result = jsonlib.loads(line)
            if "share" in result:
                progress.update(task, completed=result["share"], note=result["what"])
        code = child.wait()
        if not code:
            progress.update(task, completed=1.0, note="done")
    if code:
        output.fail("the backfill failed; the lines above say why. Run it again: it goes on there")
        raise typer.Exit(code)
    if json:
        output.as_json(result)
    else:
        output.say(
            f"{result['first']} to {result['last']}: {result['days']:,} days with readings, "
            f"{result['tiles']:,} tiles, {result['features']:,} feature vectors"
        )
