"""The `aegisops` command: what people type. Wires the parts; holds no logic of its own.

Modules are imported at every start, also for `--help`, so they import only the standard library,
typer and rich at the top; everything else sits inside the command that needs it.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from aegisops.cli import (
    access,
    alarms,
    audit,
    backfill,
    dead_letters,
    demo,
    doctor,
    drift,
    evaluate,
    gateway,
    importing,
    kafka,
    models,
    output,
    predict,
    replay,
    run,
    simulate,
    sql,
    stack_commands,
)


class _Commands(TyperGroup):
    """Turns the product's own errors into one message and an exit code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - click's own signature
        from aegisops.errors import AegisError, Retryable

        try:
            return super().invoke(ctx)
        except AegisError as error:
            output.fail(str(error))
            raise typer.Exit(75 if isinstance(error, Retryable) else 2) from error


app = typer.Typer(
    cls=_Commands,
    name="aegisops",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
    help="Real-time predictive maintenance: sensor streams to explained, auditable predictions.\n\n"
    "Settings come from AEGIS_ environment variables; see docs/runbook.md.",
)


def _version(*, show: bool) -> None:
    if show:
        from aegisops import __version__

        output.say(f"aegisops {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=lambda value: _version(show=value), is_eager=True
    ),
) -> None:
    pass


for _module in (
    demo,
    stack_commands,
    simulate,
    importing,
    evaluate,
    predict,
    alarms,
    models,
    access,
    sql,
    doctor,
    dead_letters,
    audit,
    drift,
    kafka,
    run,
    backfill,
    replay,
    gateway,
):
    _module.register(app)
