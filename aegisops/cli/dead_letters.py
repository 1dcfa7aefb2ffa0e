"""`aegisops dlq`: what was refused, and why; and sending it again after a fix."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aegisops.cli import output, runs

if TYPE_CHECKING:
    import polars as pl

    from aegisops.dead_letter_replay import Plan
    from aegisops.lake import Lake
    from aegisops.settings import Settings

LEFT = 1
"""Exit code of a replay that left selected letters where they are."""
SHOWN_BYTES = 512

Reason = Annotated[str | None, typer.Option(help="Only this reason.")]
Machine = Annotated[str | None, typer.Option(help="Only this machine.")]
Since = Annotated[str | None, typer.Option(help="Only what arrived since this UTC time.")]
DataDir = Annotated[Path | None, typer.Option(help="Data folder.")]
_PLACE = "topic/partition/offset, or with /index, as `list` shows it."


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Messages and readings that were refused.")
    group.command("list")(list_letters)
    group.command("show")(show)
    group.command("replay")(replay)
    app.add_typer(group, name="dlq")


def list_letters(
    *,
    reason: Reason = None,
    machine: Machine = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest rows to show.")] = 20,
    data_dir: DataDir = None,
    json: Annotated[bool, typer.Option("--json", help="Counts and rows as JSON.")] = False,
) -> None:
    """Count refused messages by reason and show the newest, with their place in Kafka."""
    import polars as pl

    from aegisops import dead_letters
    from aegisops.lake import Lake

    lake = Lake(runs.settings(data_dir).lake_root)
    letters = dead_letters.select(lake, reason=reason, machine=machine, since=_time(since))
    counts = letters.group_by("reason").len("rows").sort("rows", descending=True).collect()
    newest = (
        letters.sort("_ingested_at", descending=True)
        .head(limit)
        .select(
            *("_ingested_at", "reason", "machine_id", "channel", "detail"),
            at=pl.format("{}/{}/{}", "_topic", "_partition", "_offset"),
            index="_index",
            bytes=pl.col("raw").bin.size(),
            replayed="replayed",
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
        "Index",
        "Bytes",
        "Replayed",
    )
    output.results.print(output.table(f"Newest {newest.height}", headings, rows))


def show(
    place: Annotated[str, typer.Argument(help=_PLACE)],
    *,
    data_dir: DataDir = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, with all bytes.")] = False,
) -> None:
    """Show one message's letters and its content: decoded where it decodes, else in hex."""
    from aegisops import dead_letters
    from aegisops.errors import AegisError, Permanent
    from aegisops.lake import Lake
    from aegisops.schema_registry import SchemaRegistry

    settings = runs.settings(data_dir)
    where = dead_letters.Place.parse(place)
    lake = Lake(settings.lake_root)
    letters = dead_letters.select(lake, places=[where]).sort(dead_letters.PLACE).collect()
    if letters.is_empty():
        raise Permanent(f"no dead letter at {place}; `aegisops dlq list` shows the places")
    if letters["_topic"].n_unique() > 1:
        full = ", ".join(letters["_topic"].unique().sort())
        raise Permanent(f"{place}: several topics of that name: {full}; give the whole name")
    first = letters.row(0, named=True)
    content, why = None, None
    with SchemaRegistry(settings) as registry:
        try:
            content = dead_letters.decode(
                first["_topic"], first["raw"], first["schema_id"], registry.schema
            )
        except AegisError as error:
            why = str(error)
    rows = letters.drop("raw").to_dicts()
    if json:
        output.as_json(
            {"letters": rows, "message": content, "undecoded": why, "raw": first["raw"].hex()}
        )
        return
    for row in rows:
        output.results.rule(style="dim")
        for name, value in row.items():
            if value is not None:
                output.results.print(f"{name:>13}  {value}", markup=False)
    output.results.rule("message", style="dim")
    if content is not None:
        output.as_json(content)
        return
    output.note(f"not decoded: {why}")
    raw = first["raw"]
    output.results.print(raw[:SHOWN_BYTES].hex(" "), markup=False)
    if len(raw) > SHOWN_BYTES:
        output.note(f"first {SHOWN_BYTES} of {len(raw):,} bytes; --json has all")


def replay(
    places: Annotated[list[str] | None, typer.Argument(help=_PLACE)] = None,
    *,
    reason: Reason = None,
    machine: Machine = None,
    since: Since = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Also what was, or may have been, sent before: may repeat readings."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
    data_dir: DataDir = None,
    json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Send refused readings to their topic again, after the cause was put right.

    Each letter travels at most once however often this is called, and readings of the same message
    that were good the first time stay at home. Exit code 1 when something selected was left.
    """
    from aegisops import dead_letter_replay, dead_letters
    from aegisops.bus import Producer
    from aegisops.errors import ConfigurationError
    from aegisops.lake import Lake

    if not places and reason is None and machine is None:
        raise ConfigurationError("say what was put right: places, --reason or --machine")
    settings = runs.settings(data_dir)
    lake = Lake(settings.lake_root)
    turn = dead_letter_replay.turn(lake)
    letters = dead_letters.select(
        lake,
        reason=reason,
        machine=machine,
        since=_time(since),
        places=[dead_letters.Place.parse(place) for place in places or ()],
    ).collect()
    planned = _plan(settings, lake, letters, turn, again=again)
    acknowledged = 0
    if planned.messages and not dry_run:
        _require_topics(settings, planned)
        acknowledged = dead_letter_replay.send(
            lake, planned, Producer(settings.kafka), clock=lambda: datetime.now(UTC)
        )
    result = dead_letter_replay.as_json(planned) | {"acknowledged": acknowledged}
    if json:
        output.as_json(result)
    else:
        _tell(result, dry_run=dry_run)
    if planned.unreadable or planned.unconfirmed:
        raise typer.Exit(LEFT)


def _plan(
    settings: Settings,
    lake: Lake,
    letters: pl.DataFrame,
    turn: int,
    *,
    again: bool,
) -> Plan:
    from aegisops import dead_letter_replay, names
    from aegisops.machines import load_classes
    from aegisops.schema_registry import SchemaRegistry
    from aegisops.schemas import avro

    with SchemaRegistry(settings) as registry:
        return dead_letter_replay.plan(
            letters,
            turn,
            writer_schema=registry.schema,
            schema_id=lambda topic: registry.register(
                names.subject(topic), avro.contract(topic).text
            ),
            is_capture=dead_letter_replay.captures(lake, load_classes(settings.classes_dir)),
            again=again,
        )


def _require_topics(settings: Settings, planned: Plan) -> None:
    """Ask the broker before anything is recorded: one that is away must not cost an attempt."""
    from aegisops import bus
    from aegisops.errors import Permanent

    for topic in sorted({message.topic for message in planned.messages}):
        if not bus.watermarks(settings.kafka, topic):
            raise Permanent(f"Kafka has no topic {topic}; start the stack first: aegisops up")


def _tell(result: dict[str, Any], *, dry_run: bool) -> None:
    if dry_run:
        output.say(f"would send {result['letters']:,} letters in {result['messages']:,} messages")
    else:
        output.say(f"sent {result['acknowledged']:,} letters in {result['messages']:,} messages")
    if result["sent_before"]:
        output.say(f"{result['sent_before']:,} were sent before")
    if result["unconfirmed"]:
        output.fail(
            f"{result['unconfirmed']:,} may have been sent by a replay that was killed; look for "
            "them in the lake, then --again"
        )
    for left in result["unreadable"]:
        output.fail(f"{left['source']} still cannot be read: {left['why']}")


def _time(text: str | None) -> datetime | None:
    return None if text is None else output.utc_time(text, "--since")
