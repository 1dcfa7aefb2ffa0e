"""`aegisops audit` and `aegisops replay-prediction`: the evidence behind every answer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aegisops.cli import output, runs

if TYPE_CHECKING:
    import polars as pl

FOUND = 1
"""Exit code when the log does not hold, or an answer cannot be had again."""


class Format(StrEnum):
    """How exported rows are written."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="The log of every answer: check and export it.")
    group.command("verify")(verify)
    group.command("export")(export)
    app.add_typer(group, name="audit")
    app.command("replay-prediction")(replay_prediction)


def verify(
    *,
    against: Annotated[
        Path | None,
        typer.Option(
            help="An earlier --json answer, kept elsewhere: also find a tail cut off since then.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Chains and faults as JSON.")] = False,
) -> None:
    """Walk the hash chain of every API instance; exit code 1 when a record does not hold.

    Finds records that were removed, altered, inserted or moved, and says which.
    """
    from dataclasses import asdict

    from aegisops import audit_log
    from aegisops.lake import Lake

    noted = [] if against is None else _noted(against)
    lake = Lake(runs.settings(data_dir).lake_root)
    heads, faults = audit_log.check(lake)
    faults += audit_log.against(lake, noted)
    if json:
        chains = [asdict(head) for head in heads]
        output.as_json(
            {"holds": not faults, "chains": chains, "faults": [asdict(f) for f in faults]}
        )
    else:
        if heads:
            rows = [(h.instance, f"{h.records:,}", f"{h.repeats:,}", h.digest) for h in heads]
            headings = ("Instance", "Records", "Delivered again", "Last digest")
            output.results.print(output.table("Chains", headings, rows))
        for f in faults:
            output.fail(
                f"{f.instance} record {f.chain_seq} ({f.prediction_id or '?'}): {f.problem}"
            )
        total = sum(h.records for h in heads)
        if not faults:
            output.say(f"all hold: {total:,} records, chains: {len(heads)}")
    if faults:
        raise typer.Exit(FOUND)


def _noted(path: Path) -> list[dict[str, Any]]:
    import json

    from aegisops.errors import ConfigurationError

    try:
        return [
            {
                "instance": str(c["instance"]),
                "chain_seq": int(c["chain_seq"]),
                "digest": c["digest"],
            }
            for c in json.loads(path.read_text())["chains"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: not an answer of `aegisops audit verify --json`: {error!r}"
        ) from error


def export(
    *,
    begin: Annotated[str, typer.Option("--from", help="First time, UTC, such as 2026-01-01.")],
    end: Annotated[str, typer.Option("--to", help="First time no longer wanted, UTC.")],
    to: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    machine: Annotated[
        list[str] | None, typer.Option(help="Only this machine; may be repeated.")
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Format | None, typer.Option(help="Default: by the file's ending, else csv.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
) -> None:
    """Write the answers of a span to a file, every row as it is stored.

    Parquet keeps the exact bits; csv and json write a missing input as null.
    """
    from aegisops import audit_log
    from aegisops.lake import Lake

    lake = Lake(runs.settings(data_dir).lake_root)
    rows = audit_log.between(
        lake, output.utc_time(begin, "--from"), output.utc_time(end, "--to"), machine or ()
    )
    endings = {f".{form}": form for form in Format}
    _write(rows, to, format or endings.get(to.suffix.lower(), Format.CSV))
    output.say(f"{rows.height:,} answers → {to}")


def _write(rows: pl.DataFrame, to: Path, form: Format) -> None:
    """The whole file or nothing."""
    import json

    import polars as pl

    to.parent.mkdir(parents=True, exist_ok=True)
    half = to.with_name(to.name + ".tmp")
    if form is Format.PARQUET:
        rows.write_parquet(half)
    else:
        # Neither form has a "not a number"; a missing input is null in both.
        rows = rows.with_columns(pl.col("vector").list.eval(pl.element().fill_nan(None)))
        if form is Format.CSV:
            vectors = [json.dumps(v.to_list()) for v in rows["vector"]]
            rows = rows.with_columns(vector=pl.Series(vectors, dtype=pl.String))
            rows.write_csv(half)
        else:
            rows.write_json(half)
    half.replace(to)


def replay_prediction(
    prediction_id: Annotated[str, typer.Argument(help="Id of the answer.")],
    *,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Then and now as JSON.")] = False,
) -> None:
    """Compute a logged answer again from its vector and its signed model; exit code 1 if not equal.

    The probability must agree bit for bit. Contributions and explanation are given anew.
    """
    from dataclasses import asdict

    from aegisops import audit_log, signing
    from aegisops.lake import Lake
    from aegisops.machines import load_classes
    from aegisops.recompute import recompute

    settings = runs.settings(data_dir)
    public = settings.signing.public_key or settings.keys_dir / signing.PUBLIC_KEY
    result = recompute(
        audit_log.record(Lake(settings.lake_root), prediction_id),
        settings.bundles_dir,
        lambda folder: signing.verify(folder, public),
        load_classes(settings.classes_dir),
    )
    if json:
        output.as_json({"equal": result.is_equal, **asdict(result)})
    else:
        now = result.computed or {}
        rows = [
            (name, repr(value), repr(now[name]) if now else "–")
            for name, value in result.logged.items()
        ]
        rows += [
            (f"contribution: {c['title']}", "", f"{c['contribution']:+.4f}  ({c['text']})")
            for c in result.contributions
        ]
        output.results.print(
            output.table(f"Answered by {result.served_by}", ("", "Then", "Now"), rows)
        )
        output.say(result.explanation)
        if not result.is_record_intact:
            output.fail("the record was altered; run: aegisops audit verify")
        if result.differences:
            output.fail(f"not equal: {', '.join(result.differences)}")
        if result.is_equal:
            output.say("equal" if result.computed else "the record is intact")
    if not result.is_equal:
        raise typer.Exit(FOUND)
