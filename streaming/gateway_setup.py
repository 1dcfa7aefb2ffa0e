"""Setting a gateway up: check a mapping file, draft one from a server, make the certificate.

Run with `python -m streaming.gateway_setup check|browse|certificate`; people use
`aegisops gateway …`. Nothing here runs while the gateway does.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson
import polars as pl
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from aegisops.certificates import Identity, identity
from aegisops.errors import AegisError, ConfigurationError, Retryable
from aegisops.importers.registration import register
from aegisops.lake import Lake
from aegisops.machines import load_classes
from aegisops.schemas.tables import MACHINES
from aegisops.settings import Settings
from streaming.mapping import Mqtt, OpcUa, load_mapping, targets
from streaming.sources import mqtt, opcua


@dataclass(slots=True)
class Report:
    """What a mapping file says, and what is wrong with it."""

    gateway: str
    sources: list[dict[str, object]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """The gateway would not start, or would not get these values."""
    warnings: list[str] = field(default_factory=list)
    """It would start; look at these first."""
    registered: int = 0
    """Machines registered just now."""


def check(settings: Settings, path: Path, *, is_registering: bool = False) -> Report:
    """Read the file as the gateway would, connecting nowhere.

    With `is_registering` the mapping's machines are registered in bronze/machines, with empty site
    and area, unless they are. Raises `ConfigurationError` when the file cannot be read at all.
    """
    mapping = load_mapping(path)
    classes = load_classes(settings.classes_dir)
    report = Report(mapping.gateway)
    machines: dict[str, str] = {}
    sources: tuple[OpcUa | Mqtt, ...] = (*mapping.opcua, *mapping.mqtt)
    for source in sources:
        report.problems += _access(source)
        try:
            found = targets(source, classes)
        except ConfigurationError as error:
            report.problems.append(str(error))
            continue
        machines |= {m: group.machine_class for group in source.machines for m in group.ids}
        report.sources.append(
            {
                "name": source.name,
                "at": source.endpoint if isinstance(source, OpcUa) else source.host,
                "places": len(found),
                "machines": len({t.machine_id for ts in found.values() for t in ts}),
            }
        )
        if isinstance(source, OpcUa):
            report.warnings += _opcua_warnings(source, settings.gateway_pki)
        elif not source.tls:
            report.warnings.append(f"{source.name}: tls = false sends values as everyone can read")
    lake = Lake(settings.lake_root)
    if is_registering and not report.problems:
        report.registered = _register(lake, machines)
    report.warnings += _unregistered(lake, machines)
    return report


def _access(source: OpcUa | Mqtt) -> list[str]:
    """What the connection needs and has not."""
    problems = []
    if source.user is not None and (source.password_env or "") not in os.environ:
        problems.append(
            f'{source.name}: user needs password_env = "NAME" and that variable in the environment'
        )
    if isinstance(source, Mqtt) and source.tls:
        try:
            mqtt.tls_context(source)
        except ConfigurationError as error:
            problems.append(str(error))
    return problems


def _opcua_warnings(source: OpcUa, pki: Path) -> Iterable[str]:
    if source.security_mode == "None":
        yield f'{source.name}: security_mode = "None" neither signs nor encrypts nor checks anybody'
    elif not any((pki / "trusted").glob("*.*")):
        yield (
            f"{source.name}: no certificate is trusted yet; put the server's into "
            f"{pki / 'trusted'} (after the first refused connection it lies in …/rejected)"
        )


def _register(lake: Lake, machines: dict[str, str]) -> int:
    known = set(lake.scan(MACHINES).select("machine_id").collect()["machine_id"])
    new = {m: c for m, c in machines.items() if m not in known}
    rows = pl.DataFrame(
        {"machine_id": list(new), "machine_class": list(new.values())},
        schema={"machine_id": pl.String, "machine_class": pl.String},
    ).with_columns(site=pl.lit(""), area=pl.lit(""), attributes=pl.lit("{}"))
    return register(lake, rows, round(time.time() * 1e6)) if new else 0


def _unregistered(lake: Lake, machines: dict[str, str]) -> list[str]:
    rows = lake.scan(MACHINES).sort("registered_at").select("machine_id", "machine_class").collect()
    known = dict(rows.iter_rows())
    new = [m for m in machines if m not in known]
    other = [m for m, c in machines.items() if known.get(m, c) != c]
    warnings = []
    if new:
        warnings.append(
            f"{len(new)} machines are not registered in {lake.root} ({', '.join(new[:5])}"
            f"{' …' if len(new) > 5 else ''}): their readings become dead letters; "  # noqa: PLR2004
            "`aegisops gateway check --register` registers them"
        )
    if other:
        warnings.append(
            f"registered with another class than the mapping's: {', '.join(sorted(other)[:5])}"
        )
    return warnings


def draft(name: str, endpoint: str, variables: Sequence[tuple[str, str, str]], mode: str) -> str:
    """A mapping file with every variable of a server, to be thinned out by a person."""
    lines = [
        "# Drafted from what the server shows. Keep what is a channel of your machine class, name",
        "# it as the class does, give the unit the device sends, and write {machine} for the id",
        "# where several machines are alike.",
        'gateway = "gateway-1"',
        "",
        "[[opcua]]",
        f'name = "{name}"',
        f'endpoint = "{endpoint}"',
        f'security_mode = "{mode}"',
    ]
    by_parent: dict[str, list[tuple[str, str, str]]] = {}
    for node, path, kind in variables:
        by_parent.setdefault(path.rpartition("/")[0], []).append((node, path, kind))
    for parent, found in by_parent.items():
        machine = re.sub(r"[^A-Za-z0-9._-]", "-", parent.rpartition("/")[2]) or "machine-1"
        lines += ["", f"# {parent}", "[[opcua.machines]]", 'class = "cnc_spindle"']
        lines += [f'ids = ["{machine}"]', "[opcua.machines.channels]"]
        for node, path, kind in found:
            channel = re.sub(r"[^a-z0-9_]+", "_", path.rpartition("/")[2].lower()).strip("_")
            quoted = orjson.dumps(node).decode()
            lines.append(f'{channel or "channel"} = {{ node = {quoted}, unit = "" }}  # {kind}')
    return "\n".join(lines) + "\n"


async def _browse(settings: Settings, endpoint: str, mode: str) -> list[tuple[str, str, str]]:
    pki = settings.gateway_pki
    source = OpcUa.model_validate(
        {
            "name": "browse",
            "endpoint": endpoint,
            "security_mode": mode,
            "machines": [
                {"class": "-", "ids": ["-"], "channels": {"-": {"node": "i=1", "unit": "1"}}}
            ],
        }
    )
    client = await opcua.client_of(source, _own(settings), pki / "trusted")
    async with client:
        return await opcua.browse(client)


def _own(settings: Settings) -> Identity:
    return identity(settings.gateway_pki / "own", "gateway")


def _thumbprint(certificate: Path) -> str:
    der = x509.load_der_x509_certificate(certificate.read_bytes())
    return der.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - what OPC UA calls a thumbprint


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 fine, 2 something must be mended, 75 try again later."""
    parser = argparse.ArgumentParser(prog="python -m streaming.gateway_setup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check")
    checking.add_argument("mapping", type=Path)
    checking.add_argument("--register", action="store_true")
    checking.add_argument("--json", action="store_true")
    browsing = commands.add_parser("browse")
    browsing.add_argument("endpoint")
    browsing.add_argument("--mode", default="SignAndEncrypt")
    commands.add_parser("certificate")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    logging.getLogger("asyncuagds").setLevel(logging.CRITICAL)
    settings = Settings()
    try:
        if options.command == "check":
            report = check(settings, options.mapping, is_registering=options.register)
            _say(orjson.dumps(asdict(report)).decode() if options.json else _text(report))
            return 2 if report.problems else 0
        if options.command == "browse":
            found = asyncio.run(_browse(settings, options.endpoint, options.mode))
            _say(draft("server-1", options.endpoint, found, options.mode))
            return 0
        own = _own(settings)
        _say(f"{own.certificate}\nURI {own.uri}\nthumbprint {_thumbprint(own.certificate)}")
    except AegisError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a message for people
        return 75 if isinstance(error, Retryable) else 2
    except (OSError, TimeoutError) as error:
        print(f"no answer: {error or type(error).__name__}", file=sys.stderr)  # noqa: T201
        return 75
    return 0


def _text(report: Report) -> str:
    lines = [f"gateway {report.gateway}"]
    lines += [
        f"  {s['name']}: {s['places']} nodes or topics of {s['machines']} machines at {s['at']}"
        for s in report.sources
    ]
    lines += [f"registered {report.registered} machines"] if report.registered else []
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines += [f"wrong: {problem}" for problem in report.problems]
    return "\n".join([*lines, "" if report.problems else "the mapping can be used"]).strip()


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the result of a command


if __name__ == "__main__":
    sys.exit(main())
