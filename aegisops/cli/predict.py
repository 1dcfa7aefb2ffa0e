"""`aegisops predict`: ask about machines, at the running API or over a kept data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aegisops.cli import output, runs


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(predict)


def predict(
    machines: Annotated[list[str] | None, typer.Argument(help="Machine ids.")] = None,
    everyone: Annotated[
        bool, typer.Option("--all", help="The whole fleet, riskiest first.")
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(help="now, latest, or a UTC time. Default: now; latest with --data-dir."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Ask over this kept data folder; starts the API on it for the moment."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The API's answers as JSON.")] = False,
) -> None:
    """Failure probability, reasons and recommended action of machines."""
    if not machines and not everyone:
        raise typer.BadParameter("name at least one machine, or --all", param_hint="MACHINES")
    if data_dir is None or runs.is_running(data_dir.absolute()):
        answers = _ask(runs.settings(data_dir), machines, at or "now")
    else:
        from aegisops.cli.stack import serving_only

        with serving_only(data_dir.absolute()) as settings:
            answers = _ask(settings, machines, at or "latest")
    if json:
        output.as_json(answers)
        return
    output.results.print(output.predictions_table("Failure risk", answers))
    for answer in answers:
        if answer.get("detail"):
            output.note(f"{answer['machine_id']}: {answer['detail']}")


def _ask(settings: Any, machines: list[str] | None, at: str) -> list[dict[str, Any]]:  # noqa: ANN401 - lazy import
    from aegisops.cli.api import Api

    api = Api(settings)
    if not machines:
        return api.predict_fleet(all=True, at=at)
    return [api.post("/predict", {"machine_id": machine, "at": at}) for machine in machines]
