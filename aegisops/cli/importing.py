"""`aegisops import`: a folder of somebody's files into a lake, by a mapping file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import output, runs


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_folder)


def import_folder(
    folder: Annotated[Path, typer.Argument(help="Folder with the files.", exists=True)],
    *,
    machine_class: Annotated[str, typer.Option(help="Shipped class, or a .toml file.")],
    mapping: Annotated[
        Path | None, typer.Option(help="Mapping file; default: the shipped one of the class.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the files.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Rows as JSON.")] = False,
) -> None:
    """Register machines and append readings and events to bronze, in bulk and once.

    The whole folder is checked first: a wrong column, unit or line is named and nothing is written.
    """
    from aegisops.importers import load
    from aegisops.importers.bulk import append_history
    from aegisops.lake import Lake

    imported = load(folder, mapping, machine_class)
    for warning in imported.warnings:
        output.note(f"[yellow]note[/] {warning}")
    result = {
        "machines": imported.machines.height,
        "readings": imported.readings.height,
        "events": imported.events.height,
    }
    if not check:
        settings = runs.settings(data_dir)
        with output.steps() as progress:
            task = progress.add_task("import", note="")
            done = append_history(
                Lake(settings.lake_root),
                imported,
                time.time_ns() // 1_000,
                lambda what, n, of: progress.update(task, completed=n, total=of, note=what),
            )
        result |= {"added": done.readings + done.events, "rejected": done.rejected}
    if json:
        output.as_json(result)
    else:
        output.say(", ".join(f"{count:,} {what}" for what, count in result.items()))
