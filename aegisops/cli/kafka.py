"""`aegisops kafka`: one real Kafka node on this computer, until Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import output


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(kafka)


def kafka(
    *,
    folder: Annotated[
        Path, typer.Option(help="Data, configuration and log of the node; kept.")
    ] = Path(".aegis/kafka/node"),
    port: Annotated[int, typer.Option(help="Port for clients.", min=1, max=65_535)] = 9092,
    heap: Annotated[int, typer.Option(help="Java heap, MB.", min=128)] = 256,
) -> None:
    """Run one real Apache Kafka node on loopback (Java 17 and Maven, no Docker) until Ctrl-C.

    Example: aegisops kafka --port 9092
    """
    from aegisops.embedded import kafka_server
    from aegisops.errors import ServiceUnavailable

    if not kafka_server.jars_folder().is_dir():
        output.note("Maven fetches Kafka's jars, about 45 MB, once …")
    with kafka_server.KafkaServer(folder, port, heap_mb=heap) as server:
        output.say(f"Kafka answers at {server.bootstrap}; its data and log are in {folder}.")
        output.say("To use it, set where the applications start:\n")
        typer.echo("export AEGIS_KAFKA__IN_MEMORY=false")
        typer.echo(f"export AEGIS_KAFKA__BOOTSTRAP={server.bootstrap}")
        typer.echo("")
        output.note("Ctrl-C stops it and keeps the data.")
        try:
            code = server.wait()
        except KeyboardInterrupt:
            return
        raise ServiceUnavailable(
            f"Kafka ended by itself with exit code {code}; see {server.log_path}"
        )
