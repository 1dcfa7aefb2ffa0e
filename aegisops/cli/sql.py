"""`aegisops sql`: DuckDB with every table and view of the lake in place."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aegisops.cli import output, runs

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from aegisops.warehouse import Warehouse

PROMPT, CONTINUED = "aegis> ", "  ...> "
SHOWN_ROWS = 100
WIDEST = 40
_GUIDE = """Tables: bronze.readings, gold.features, … Views: risk_ranking, audit_trail, …
End a statement with ;   .tables lists everything   .read FILE runs a file   .quit leaves"""
_TABLES = """
SELECT if(schema_name = 'main', '', schema_name || '.') || view_name AS name
FROM duckdb_views() WHERE NOT internal ORDER BY schema_name <> 'main', name"""


class Format(StrEnum):
    """How rows are printed or written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sql)


def sql(
    *,
    command: Annotated[
        str | None, typer.Option("--command", "-c", help="SQL to run; its last result is shown.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="File of SQL to run.", exists=True)
    ] = None,
    format: Annotated[Format, typer.Option(help="Form of the result.")] = Format.TABLE,  # noqa: A002 - the option's name
    json: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the result (parquet needs it).")
    ] = None,
    script: Annotated[
        bool, typer.Option("--script", help="Print the views as SQL for `duckdb -init FILE`.")
    ] = False,
    as_of: Annotated[
        list[str] | None,
        typer.Option(
            "--as-of",
            help="Read the lake as it was: a time (2026-03-01T12:00, UTC unless it says otherwise) "
            "or TABLE=VERSION (gold/features=12); can be repeated.",
            metavar="TIME|TABLE=VERSION",
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
) -> None:
    """Query the lake in DuckDB: interactively, or one command.

    Reads a snapshot of every table as of the start, or as of `--as-of`; nothing is written to the
    lake. Old versions can be read until maintenance deletes them, after seven days.
    """
    from aegisops.machines import load_classes
    from aegisops.warehouse import Warehouse

    settings = runs.settings(data_dir)
    warehouse = Warehouse(settings.lake_root, load_classes(settings.classes_dir))
    pinned = _pinned(warehouse, as_of or [])
    if script:
        typer.echo(warehouse.script(pinned))
        return
    chosen = Format.JSON if json else format
    text = command if file is None else file.read_text()
    if text is None:
        _converse(warehouse.connect(pinned))
        return
    if chosen is Format.PARQUET and to is None:
        raise typer.BadParameter("parquet needs --output FILE", param_hint="--format")
    _give(warehouse.run(text, pinned), chosen, to)


def _pinned(warehouse: Warehouse, wanted: list[str]) -> dict[str, int]:
    """Table versions that `--as-of` asks for; a version beside a time overrides it."""
    from datetime import UTC, datetime

    versions: dict[str, int] = {}
    for text in sorted(wanted, key=lambda text: "=" in text):
        name, is_version, number = text.partition("=")
        try:
            if is_version:
                versions[name.replace(".", "/")] = int(number)
                continue
            time = datetime.fromisoformat(text)
        except ValueError as error:
            raise typer.BadParameter(
                f"{text!r} is neither a time such as 2026-03-01T12:00 nor TABLE=VERSION",
                param_hint="--as-of",
            ) from error
        versions |= warehouse.versions_at(time if time.tzinfo else time.replace(tzinfo=UTC))
    return versions


def _give(rows: pl.DataFrame, form: Format, to: Path | None) -> None:
    if form is Format.TABLE and to is None:
        _show(rows)
        return
    form = Format.CSV if form is Format.TABLE else form
    target = to if to is not None else sys.stdout.buffer
    if form is Format.PARQUET:
        rows.write_parquet(target)
    elif form is Format.JSON:
        content = _plain(rows).write_json().encode() + b"\n"
        if to is not None:
            to.write_bytes(content)
        else:
            sys.stdout.buffer.write(content)
    else:
        _flat(rows).write_csv(target)
    if to is not None:
        output.note(f"{rows.height:,} rows → {to}")


def _plain(rows: pl.DataFrame) -> pl.DataFrame:
    """JSON numbers for DuckDB's decimals, which would come out as text."""
    import polars.selectors as cs

    return rows.with_columns(cs.decimal().cast(float))


def _flat(rows: pl.DataFrame) -> pl.DataFrame:
    """CSV has no lists and no bytes: write them as text."""
    import polars as pl

    def text(value: object) -> str | None:
        return (
            None
            if value is None
            else str(value.to_list() if isinstance(value, pl.Series) else value)
        )

    nested = [name for name, kind in rows.schema.items() if kind.is_nested() or kind == pl.Binary]
    return rows.with_columns(
        pl.Series(name, [text(value) for value in rows[name]], dtype=pl.String) for name in nested
    )


def _show(rows: pl.DataFrame) -> None:
    cells = [[_cell(value) for value in row] for row in rows.head(SHOWN_ROWS).iter_rows()]
    longest = [max(map(len, column)) for column in zip(rows.columns, *cells, strict=True)]
    if sum(min(width, WIDEST) + 3 for width in longest) < output.results.width:
        output.results.print(output.table("", rows.columns, cells))
    else:  # one block a row, when they do not fit beside each other
        name_width = max(map(len, rows.columns))
        for row in cells:
            output.results.rule(style="dim")
            for name, cell in zip(rows.columns, row, strict=True):
                output.results.print(f"{name:>{name_width}}  {cell}", markup=False)
    hidden = rows.height - SHOWN_ROWS
    output.note(f"{rows.height:,} rows" + (f", first {SHOWN_ROWS} shown" if hidden > 0 else ""))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _converse(connection: duckdb.DuckDBPyConnection) -> None:
    """Read statements until the end of input; a wrong one is reported and the talk goes on."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() a history and line editing
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        output.note(_GUIDE)
    pending = ""
    while True:
        try:
            line = input((CONTINUED if pending else PROMPT) if is_terminal else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            pending = ""
            typer.echo()
            continue
        if not pending and line.strip() in {".quit", ".exit", "quit", "exit"}:
            return
        if not pending and line.strip() == ".tables":
            _run(connection, _TABLES)
        elif not pending and line.strip().startswith(".read "):
            _read(connection, Path(line.strip().removeprefix(".read ").strip()))
        else:
            pending = f"{pending}\n{line}".strip()
            if pending.endswith(";"):
                _run(connection, pending)
                pending = ""
    if pending:
        _run(connection, pending)


def _read(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    try:
        text = path.read_text()
    except OSError as error:
        output.fail(f"{path}: {error.strerror}")
        return
    _run(connection, text)


def _run(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    import duckdb

    try:
        answer = connection.sql(text)
        if answer is not None:
            _show(answer.pl())
    except duckdb.Error as error:
        output.fail(str(error))
