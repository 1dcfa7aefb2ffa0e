"""`aegisops doctor`: does this computer have what the product needs, and is its set-up sound?"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from aegisops.cli import output, runs

MIN_DISK_GB = 2.0
MIN_MEMORY_GB = 4.0


@dataclass(frozen=True)
class Finding:
    """One checked thing: `ok`, `warn` (works, with a limit) or `fail` (will not work)."""

    check: str
    status: str
    detail: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Check Python, ports, redis-server, browser, settings, disk and memory; say what to do."""
    findings = [finding for check in CHECKS for finding in check()]
    if json:
        output.as_json([finding.__dict__ for finding in findings])
    else:
        mark = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]fail[/]"}
        rows = [(mark[f.status], f.check, f.detail) for f in findings]
        output.results.print(output.table("aegisops doctor", ("", "Check", "Finding"), rows))
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = "" if fits else "; install 3.11, 3.12 or 3.13"
    yield Finding("python", "ok" if fits else "fail", f"{version} at {sys.executable}{advice}")


def _packages() -> Iterator[Finding]:
    from importlib.util import find_spec

    wanted = ("polars", "deltalake", "confluent_kafka", "quixstreams", "xgboost", "dagster")
    missing = [name for name in wanted if find_spec(name) is None]
    detail = f"missing: {', '.join(missing)}; run `make setup`" if missing else "all installed"
    yield Finding("packages", "fail" if missing else "ok", detail)


def _redis() -> Iterator[Finding]:
    from aegisops.embedded import redis_server
    from aegisops.errors import AegisError

    try:
        yield Finding("redis-server", "ok", str(redis_server.find_binary()))
    except AegisError as error:
        yield Finding("redis-server", "fail", str(error))


def _browser() -> Iterator[Finding]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    absent = "none; only the screenshots and browser tests need it (apt-get install chromium)"
    yield Finding("browser", "ok" if found else "warn", found or absent)


def _settings() -> Iterator[Finding]:
    from pydantic import ValidationError

    from aegisops.settings import Settings

    unknown = unknown_variables()
    for name in unknown:
        yield Finding("settings", "fail", f"{name} is not a setting; see docs/runbook.md")
    try:
        Settings()
    except ValidationError as error:
        for problem in error.errors():
            where = "__".join(str(part) for part in problem["loc"]).upper()
            yield Finding("settings", "fail", f"AEGIS_{where}: {problem['msg']}")
    else:
        if not unknown:
            count = sum(name.startswith(runs.PREFIX) for name in os.environ)
            yield Finding("settings", "ok", f"{count} AEGIS_ variables set, all known")


def known_variables() -> set[str]:
    """Every AEGIS_ variable the settings declare."""
    from pydantic import BaseModel

    from aegisops.settings import Settings

    known: set[str] = set()
    for name, declared in Settings.model_fields.items():
        inner = declared.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            known |= {f"AEGIS_{name}__{field}".upper() for field in inner.model_fields}
        else:
            known.add(f"AEGIS_{name}".upper())
    return known


def unknown_variables() -> list[str]:
    """AEGIS_ variables in the environment that no setting reads, for example misspelt ones."""
    known = known_variables()
    return sorted(n for n in os.environ if n.startswith(runs.PREFIX) and n not in known)


def _ports() -> Iterator[Finding]:
    from aegisops.cli.ports import is_free, listeners
    from aegisops.errors import ConfigurationError
    from aegisops.settings import Settings

    if runs.is_running(runs.base_dir()):
        yield Finding("ports", "ok", "in use by the stack that runs here")
        return
    try:
        wanted = listeners(Settings())
    except (ConfigurationError, ValueError):
        return  # _settings has said what is wrong
    for listener in wanted:
        name = f"port {listener.port}"
        if is_free(listener.port):
            yield Finding(name, "ok", f"free for {listener.what}")
        else:
            detail = f"taken; {listener.what} takes the next free one, or set {listener.variable}"
            yield Finding(name, "warn", detail)


def _disk() -> Iterator[Finding]:
    folder = runs.base_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    enough = free >= MIN_DISK_GB
    advice = "" if enough else f"; at least {MIN_DISK_GB:.0f} GB are needed, set AEGIS_DATA_DIR"
    yield Finding("disk", "ok" if enough else "fail", f"{free:.1f} GB free at {folder}{advice}")


def _memory() -> Iterator[Finding]:
    information = Path("/proc/meminfo")
    if not information.exists():
        return
    line = next(x for x in information.read_text().splitlines() if x.startswith("MemAvailable"))
    free = int(line.split()[1]) / 1e6
    enough = free >= MIN_MEMORY_GB
    advice = "" if enough else f"; the demo takes up to {MIN_MEMORY_GB:.0f} GB"
    yield Finding("memory", "ok" if enough else "warn", f"{free:.1f} GB available{advice}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _redis,
    _browser,
    _settings,
    _ports,
    _disk,
    _memory,
)
