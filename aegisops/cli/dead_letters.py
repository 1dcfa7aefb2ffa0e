"""`aegisops dlq`: what was refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import output, runs


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Messages and readings that were refused.")
    group.command("list")(list_letters)
    app.add_typer(group, name="dlq")


def list_letters(
    *,
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest rows to show.")] = 20,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Counts and rows as JSON.")] = False,
) -> None:
    """Count refused messages by reason and show the newest, with their place in Kafka."""
    import polars as pl

    from aegisops.lake import Lake
    from aegisops.schemas.tables import DEAD_LETTERS

    letters = Lake(runs.settings(data_dir).lake_root).scan(DEAD_LETTERS)
    if reason is not None:
        letters = letters.filter(pl.col("reason") == reason)
    counts = letters.group_by("reason").len("rows").sort("rows", descending=True).collect()
    newest = (
        letters.sort("_ingested_at", descending=True)
        .head(limit)
        .select(
            *("_ingested_at", "reason", "machine_id", "channel", "detail"),
            at=pl.format("{}/{}/{}", "_topic", "_partition", "_offset"),
            bytes=pl.col("raw").bin.size(),
        )
        .collect()
    )
    if json:
        output.as_json({"counts": dict(counts.iter_rows()), "newest": newest.to_dicts()})
        return
    if counts.is_empty():
        output.say("nothing was refused")
        return
    output.results.print(
        output.table(
            "Refused, by reason", ("Reason", "Rows"), [(r, f"{n:,}") for r, n in counts.iter_rows()]
        )
    )
    rows = [["" if value is None else str(value) for value in row] for row in newest.iter_rows()]
    headings = (
        "Arrived",
        "Reason",
        "Machine",
        "Channel",
        "Detail",
        "Topic/partition/offset",
        "Bytes",
    )
    output.results.print(output.table(f"Newest {newest.height}", headings, rows))
