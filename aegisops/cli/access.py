"""`aegisops token`: a development access token for the prediction API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import output, runs


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(token)


def token(
    *,
    subject: Annotated[str, typer.Option(help="Who the token is for; an id, not a name.")] = "dev",
    role: Annotated[str, typer.Option(help="viewer, operator, engineer or admin.")] = "operator",
    hours: Annotated[float, typer.Option(help="Lifetime.", min=0.01)] = 8.0,
    site: Annotated[list[str] | None, typer.Option(help="Only these plants (repeatable).")] = None,
    area: Annotated[list[str] | None, typer.Option(help="Only these areas (repeatable).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder with the key.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Token and expiry as JSON.")] = False,
) -> None:
    """Mint an access token with the development key of the running (or last) stack.

    Example: curl -H "Authorization: Bearer $(aegisops token)" …
    """
    from aegisops.tokens import mint

    settings = runs.settings(data_dir)
    seconds = round(hours * 3600)
    minted = mint(settings, subject, role, lifetime_seconds=seconds, sites=site, areas=area)
    if json:
        output.as_json({"token": minted, "expires_in": seconds, "role": role, "subject": subject})
    else:
        typer.echo(minted)
