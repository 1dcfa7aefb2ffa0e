"""`aegisops token` and `aegisops console`: development access to the API and its console."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aegisops.cli import output, runs

if TYPE_CHECKING:
    from aegisops.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(token)
    app.command()(console)


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


def console(
    *,
    subject: Annotated[str, typer.Option(help="Who signs in; an id, not a name.")] = "dev",
    role: Annotated[str, typer.Option(help="viewer, operator, engineer or admin.")] = "operator",
    hours: Annotated[float, typer.Option(help="How long the sign-in lasts.", min=0.01)] = 8.0,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser here.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The address as JSON.")] = False,
) -> None:
    """Print a link to the console of the stack that runs here; who follows it is signed in.

    The token stands in the link's fragment, which browsers never send; the console takes it out of
    the address at once. Treat the link like the token: it is for development.
    """
    import webbrowser

    settings = runs.settings(None)
    link = console_link(settings, subject, role, round(hours * 3600))
    if json:
        output.as_json({"url": link, "expires_in": round(hours * 3600), "role": role})
    else:
        typer.echo(link)
    if open_:
        webbrowser.open(link)


def console_link(
    settings: Settings, subject: str = "dev", role: str = "operator", seconds: int = 8 * 3600
) -> str:
    """The console's address with a fresh development token in its fragment."""
    from aegisops.tokens import mint

    minted = mint(settings, subject, role, lifetime_seconds=seconds)
    return f"http://{settings.api.host}:{settings.api.port}/#token={minted}"
