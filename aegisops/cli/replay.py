"""`aegisops replay`: a span of bronze sent to a topic again, at N times its speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import output, runs


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    *,
    begin: Annotated[str, typer.Option("--from", help="UTC time, such as 2026-01-31T06:00.")],
    end: Annotated[str, typer.Option("--to", help="UTC time, not included.")],
    topic: Annotated[str, typer.Option(help="Kafka topic; made when it is missing.")],
    speed: Annotated[
        float, typer.Option(help="Times as fast as measured; 0 = as fast as Kafka takes.", min=0)
    ] = 1.0,
    machine: Annotated[
        list[str] | None, typer.Option(help="Only this machine; may be repeated.")
    ] = None,
    to_now: Annotated[
        bool, typer.Option("--to-now", help="Move the times so that the span ends as sending ends.")
    ] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Data folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Result as JSON.")] = False,
) -> None:
    """Send the readings of a span of bronze to a topic again: a rehearsal, or a load test.

    One message per machine and second of event time; events and refused readings do not travel.
    Example: aegisops replay --from 2026-01-31 --to 2026-02-01 --speed 60 --topic rehearsal
    """
    from aegisops import bronze_replay, bus, names
    from aegisops.errors import ConfigurationError
    from aegisops.lake import Lake
    from aegisops.schema_registry import SchemaRegistry
    from aegisops.schemas import avro

    if topic == names.READINGS_TOPIC and not to_now:
        raise ConfigurationError(
            f"{topic} feeds the lake: the same readings at the same times would be there twice. "
            "Choose another topic, or move the times with --to-now"
        )
    span = bronze_replay.Span(
        output.utc_time(begin, "--from"), output.utc_time(end, "--to"), tuple(machine or ())
    )
    settings = runs.settings(data_dir)
    if topic not in names.TOPICS:
        bus.ensure_topics(settings.kafka, [topic])
    with SchemaRegistry(settings) as registry, output.steps() as progress:
        schema_id = registry.register(
            names.subject(topic), avro.contract(names.READINGS_TOPIC).text
        )
        task = progress.add_task("replay", total=1.0, note="")
        sent = bronze_replay.send(
            bronze_replay.messages(Lake(settings.lake_root), span),
            bus.Producer(settings.kafka),
            topic=topic,
            schema_id=schema_id,
            span=span,
            speed=speed,
            to_now=to_now,
            tell=lambda share, count: progress.update(
                task, completed=share, note=f"{count:,} messages"
            ),
        )
    if json:
        output.as_json({"topic": topic, "messages": sent})
    else:
        output.say(f"sent {sent:,} messages to {topic}")
