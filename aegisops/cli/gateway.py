"""`aegisops gateway`: a plant's OPC UA servers and MQTT brokers to Kafka; how to set that up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import runs

group = typer.Typer(no_args_is_help=True, help="The sensor gateway: OPC UA and MQTT to Kafka.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="gateway")


@group.command()
def run(
    mapping: Annotated[Path | None, typer.Argument(help="Else AEGIS_GATEWAY__MAPPING.")] = None,
) -> None:
    """Run the gateway until Ctrl-C: sources → spool on disk → Kafka."""
    _call("streaming.gateway", *([str(mapping)] if mapping else []))


@group.command()
def check(
    mapping: Annotated[Path, typer.Argument(help="The mapping file.")],
    *,
    register_machines: Annotated[
        bool, typer.Option("--register", help="Register its machines in the lake.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Say what a mapping file means and everything that is wrong with it; connects nowhere."""
    options = ["--register"] * register_machines + ["--json"] * json
    _call("streaming.gateway_setup", "check", str(mapping), *options)


@group.command()
def browse(
    endpoint: Annotated[str, typer.Argument(help="opc.tcp://host:port")],
    mode: Annotated[
        str, typer.Option(help="SignAndEncrypt, Sign, or None (no security).")
    ] = "SignAndEncrypt",
) -> None:
    """Draft a mapping file from the variables that an OPC UA server shows."""
    _call("streaming.gateway_setup", "browse", endpoint, "--mode", mode)


@group.command()
def certificate() -> None:
    """Where the gateway's own OPC UA certificate is, for the servers to trust; made if absent."""
    _call("streaming.gateway_setup", "certificate")


def _call(module: str, *words: str) -> None:
    """The apps do not import one another: run it as a process of its own."""
    environment = os.environ | runs.as_environment(runs.settings())
    command = [sys.executable, "-m", module, *words]
    try:
        code = subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:  # the child got it too, and has ended in order
        code = 0
    raise typer.Exit(code)
