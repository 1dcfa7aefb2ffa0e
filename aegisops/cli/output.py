"""How the command line talks: stdout carries results, stderr carries progress and problems.

Also how it reads what is typed the same way everywhere, such as times.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.progress import Progress
    from rich.table import Table

results = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
progress_console = Console(stderr=True, highlight=False)

_RISK_STYLES = {"high": "bold red", "elevated": "yellow", "normal": "green", "unknown": "dim"}


def say(text: str) -> None:
    """One line of result on stdout."""
    results.print(text, soft_wrap=True)


def note(text: str) -> None:
    """One line about what is going on, on stderr."""
    progress_console.print(text, soft_wrap=True)


def fail(text: str) -> None:
    """A problem and what to do next, on stderr, never wrapped in mid-path."""
    progress_console.print("[bold red]Error:[/] ", end="")
    progress_console.print(text, markup=False, soft_wrap=True)


def as_json(value: object, path: Path | None = None) -> None:
    """`value` as indented JSON to `path` (whole file or nothing), or to stdout."""
    text = json.dumps(value, indent=2, default=str)
    if path is None or str(path) == "-":
        sys.stdout.write(text + "\n")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".tmp")
    half.write_text(text + "\n")
    half.replace(path)


def steps() -> Progress:
    """Progress of long steps; plain lines when stderr is no terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=progress_console,
        disable=not progress_console.is_terminal,
    )


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A Rich table of text cells."""
    from rich.table import Table as RichTable

    made = RichTable(title=title, title_justify="left", title_style="bold", expand=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def predictions_table(title: str, answers: Sequence[dict[str, Any]]) -> Table:
    """Machines with probability, risk, reasons and recommended action, worst first."""
    rows = []
    for answer in answers:
        risk = str(answer.get("risk", "unknown"))
        probability = answer.get("probability")
        rows.append(
            (
                str(answer["machine_id"]),
                "–" if probability is None else f"{probability:.1%}",
                f"[{_RISK_STYLES.get(risk, 'dim')}]{risk}[/]",
                str(answer.get("explanation") or ""),
                (answer.get("recommended_action") or {}).get("text") or "–",
            )
        )
    return table(title, ("Machine", "Probability", "Risk", "Why", "What to do"), rows)


def utc_time(text: str, option: str) -> datetime:
    """Aware UTC time of what was typed. Raises `ConfigurationError` naming the option."""
    from aegisops.errors import ConfigurationError

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} {text}: write a UTC time, such as 2026-01-31 or 2026-01-31T06:00"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
