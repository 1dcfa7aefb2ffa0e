"""`aegisops drift`: has the fleet's data changed? The newest report of each class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aegisops.cli import output, runs

if TYPE_CHECKING:
    import polars as pl


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(drift)


def drift(
    *,
    machine_class: Annotated[
        str | None, typer.Option("--machine-class", help="Only this class.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Steady features too.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="All rows as JSON.")] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Print the newest drift report: what moved, how far, on which machines.

    Reports are made by the Dagster job `drift`, every night.
    """
    import polars as pl

    from aegisops.errors import Permanent
    from aegisops.lake import Lake
    from aegisops.schemas.tables import DRIFT

    settings = runs.settings(data_dir)
    rows = Lake(settings.lake_root).scan(DRIFT)
    if machine_class is not None:
        rows = rows.filter(pl.col("machine_class") == machine_class)
    newest = (
        rows.filter(pl.col("checked_at") == pl.col("checked_at").max().over("machine_class"))
        .sort("machine_class", "kind", (-pl.col("value") / pl.col("threshold")), "feature")
        .collect()
    )
    if newest.is_empty():
        raise Permanent("there is no drift report yet; run the job `drift` in Dagster")
    reports = newest.partition_by("machine_class", maintain_order=True)
    pages = [
        settings.drift_reports_dir / r["machine_class"][0] / f"{r['report'][0]}.html"
        for r in reports
    ]
    if json:
        output.as_json(newest.to_dicts())
    else:
        for report, page in zip(reports, pages, strict=True):
            _print(report, page, every=every)
    if show:
        for page in filter(Path.exists, pages):
            typer.launch(page.as_uri(), wait=True)


def _print(report: pl.DataFrame, page: Path, *, every: bool) -> None:
    first = report.row(0, named=True)
    shown = [r for r in report.iter_rows(named=True) if every or r["verdict"] in _NOTABLE]
    counts = dict(report["verdict"].value_counts().iter_rows())
    output.say(
        f"[bold]{first['machine_class']}[/], checked {first['checked_at']:%Y-%m-%d %H:%M}, window "
        f"{first['current_from']:%Y-%m-%d %H:%M} to {first['current_until']:%Y-%m-%d %H:%M}: "
        + ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))
    )
    if shown:
        columns = ("Kind", "Feature", "Index", "Threshold", "Verdict", "Machines", "In doubt")
        output.results.print(output.table("", columns, map(_cells, shown)))
    if page.exists():
        output.say(f"page: {page}")
    else:
        output.say(f"file: {page.with_suffix('.json')}")


_NOTABLE = {"drifted", "context"}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    numbers = ("–" if row[name] is None else f"{row[name]:.2f}" for name in ("value", "threshold"))
    lists = (", ".join(row[name]) for name in ("machines", "doubtful_modes"))
    return (row["kind"], row["feature"], *numbers, row["verdict"], *lists)
