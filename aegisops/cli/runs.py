"""Who runs here: one stack per base folder, held by a file lock and described by run.json.

The lock belongs to the process that starts the services and dies with it, so a killed run never
blocks the next one. run.json stays behind after a stop: later commands find the lake through it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aegisops.errors import Permanent

if TYPE_CHECKING:
    from aegisops.settings import Settings

STATE_FILE = "run.json"
LOCK_FILE = "run.lock"
PREFIX = "AEGIS_"


class AlreadyRunning(Permanent):
    """Another process holds this base folder."""


@dataclass
class Run:
    """The running, or the last, stack of a base folder."""

    pid: int
    kind: str
    """`demo` or `up`."""
    data_dir: str
    environment: dict[str, str]
    """AEGIS_ variables of every process of the stack."""
    urls: dict[str, str] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    ready: bool = False

    def save(self, base: Path) -> None:
        """Write run.json, whole or not at all."""
        base.mkdir(parents=True, exist_ok=True)
        half = base / f".{STATE_FILE}.{os.getpid()}"
        half.write_text(json.dumps(asdict(self), indent=2))
        half.replace(base / STATE_FILE)


def base_dir() -> Path:
    """Folder of lock and state: AEGIS_DATA_DIR, or `.aegis` here."""
    return Path(os.environ.get("AEGIS_DATA_DIR", ".aegis")).absolute()


def load(base: Path) -> Run | None:
    """The running or last run of `base`; None when there never was one."""
    try:
        return Run(**json.loads((base / STATE_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_running(base: Path) -> bool:
    """Whether a live process holds the lock of `base`."""
    try:
        with (base / LOCK_FILE).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def hold(base: Path) -> Iterator[None]:
    """Be the one stack of `base`. Raises `AlreadyRunning`, saying who runs and how to stop it."""
    base.mkdir(parents=True, exist_ok=True)
    with (base / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(_who(base)) from None
        os.set_inheritable(file.fileno(), False)
        yield


def _who(base: Path) -> str:
    run = load(base)
    if run is None:
        return f"another aegisops is starting in {base}; wait for it or stop it with Ctrl-C there"
    where = f" – API: {run.urls['API']}" if "API" in run.urls else ""
    return (
        f"`aegisops {run.kind}` already runs here (process {run.pid}, since "
        f"{run.started_at}{where}). "
        "Stop it with Ctrl-C in its terminal or with `aegisops down`; "
        "for a second one beside it set AEGIS_DATA_DIR to another folder."
    )


def settings(data_dir: Path | None = None) -> Settings:
    """Settings of the stack that runs here, else of the last one, else of the environment.

    With `data_dir`: that folder, and the environment's settings for everything else.
    """
    from aegisops.settings import Settings

    if data_dir is not None:
        return Settings(data_dir=data_dir)
    run = load(base_dir())
    if run is not None:
        for name in [n for n in os.environ if n.startswith(PREFIX)]:
            del os.environ[name]
        os.environ.update(run.environment)
    return Settings()


def as_environment(settings: Settings) -> dict[str, str]:
    """AEGIS_ variables that give another process the same settings."""
    variables: dict[str, str] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict) and prefix != f"{PREFIX}KAFKA__OPTIONS":
            for name, inner in value.items():
                separator = "" if prefix == PREFIX else "__"
                walk(f"{prefix}{separator}{name.upper()}", inner)
        elif isinstance(value, dict):
            if value:
                variables[prefix] = json.dumps(value)
        elif value is not None and not str(value).startswith("**"):
            variables[prefix] = str(value)

    walk(PREFIX, settings.model_dump(mode="python"))
    password = settings.signing.key_password
    if password is not None:
        variables[f"{PREFIX}SIGNING__KEY_PASSWORD"] = password.get_secret_value()
    return variables
