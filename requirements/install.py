"""Makes .venv and installs one lock file into it. Standard library only: nothing else exists yet.

    python3 requirements/install.py runtime|dev

The lock's hashes are always enforced. uv does the work when its pinned wheel can be installed,
else pip, which only takes longer. A stamp inside .venv makes the next call return at once; the
dev lock contains the runtime lock, so a dev environment also serves the demo.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
VENV = Path(os.environ.get("AEGISOPS_VENV", ROOT / ".venv"))
PYTHON = VENV / "bin" / "python"
OLDEST, NEWEST = (3, 11), (3, 13)

ENTRY_POINT = """#!{python}
import sys

# Images often set PYTHONDONTWRITEBYTECODE; every command would then compile its imports again.
sys.dont_write_bytecode = False

from aegisops.cli import app

sys.exit(app())
"""


def main(lock: str) -> int:
    """Install `requirements/<lock>.txt`; 0 when the environment is ready."""
    wanted = _digest(lock)
    stamp = VENV / ".installed"
    ready = [_digest("dev"), wanted]  # dev contains runtime
    if PYTHON.exists() and stamp.exists() and stamp.read_text() in ready:
        return 0
    started = time.monotonic()
    _say(f"installing requirements/{lock}.txt into {VENV.name} (first time: a minute or two)")
    stamp.unlink(missing_ok=True)
    _make_venv()
    if not _install_with_uv(lock):
        _say("uv is not usable here; installing with pip, which takes longer")
        _run(
            *(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--require-hashes", "--no-deps", "-r", LOCKS / f"{lock}.txt"),
        )
    _link_project()
    stamp.write_text(wanted)
    _say(f"environment ready in {time.monotonic() - started:.0f} s")
    return 0


def _digest(lock: str) -> str:
    content = (LOCKS / f"{lock}.txt").read_bytes() + Path(__file__).read_bytes()
    return hashlib.sha256(content).hexdigest()


def _make_venv() -> None:
    if PYTHON.exists() and _runs(PYTHON, "-c", "import pip"):
        return
    if VENV.exists():
        _say(f"{VENV.name} is incomplete (interrupted earlier?); making it again")
        shutil.rmtree(VENV)
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except (OSError, subprocess.CalledProcessError):
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(
            f"{sys.executable} cannot make a virtual environment. On Debian and Ubuntu: "
            f"apt-get install python3-venv; then run the same command again."
        )


def _install_with_uv(lock: str) -> bool:
    """Whether uv brought the environment to exactly the lock's state."""
    home = VENV / "uv"
    uv = home / "bin" / "uv"
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if not uv.exists() and not _runs(
        *pip, "--require-hashes", "--target", home, "-r", LOCKS / "uv.txt"
    ):
        return False
    return _runs(
        *(uv, "pip", "sync", "--no-config", "--require-hashes", "--python", PYTHON),
        *("--quiet", LOCKS / f"{lock}.txt"),
        environment=_uv_environment(),
    )


def _uv_environment() -> dict[str, str]:
    """Pip's settings of where packages come from, in uv's words: uv does not read pip's."""
    environment = dict(os.environ)
    for ours, theirs in (
        ("UV_DEFAULT_INDEX", "index-url"),
        ("UV_INDEX", "extra-index-url"),
        ("UV_FIND_LINKS", "find-links"),
        ("SSL_CERT_FILE", "cert"),
    ):
        value = _pip_setting(theirs)
        if value and ours not in environment:
            environment[ours] = value
    environment.setdefault("UV_HTTP_TIMEOUT", "120")
    environment.setdefault("UV_LINK_MODE", "hardlink")
    return environment


def _pip_setting(name: str) -> str:
    variable = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if variable:
        return variable
    for section in ("install", "global"):
        answer = subprocess.run(
            [PYTHON, "-m", "pip", "config", "get", f"{section}.{name}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode == 0:
            return answer.stdout.strip()
    return ""


def _link_project() -> None:
    """Put the checkout on the path and `aegisops` into bin.

    A path file instead of an editable install: no build back end, no build isolation, no network.
    """
    library = next((VENV / "lib").glob("python3*/site-packages"))
    (library / "aegisops.pth").write_text(f"{ROOT}\n")
    script = VENV / "bin" / "aegisops"
    script.write_text(ENTRY_POINT.format(python=PYTHON))
    script.chmod(0o755)


def _runs(*command: object, environment: dict[str, str] | None = None) -> bool:
    return subprocess.run([str(c) for c in command], env=environment, check=False).returncode == 0


def _run(*command: object) -> None:
    if not _runs(*command):
        sys.exit("installation failed; the lines above say why. Run the same command to try again.")


def _say(text: str) -> None:
    sys.stderr.write(f"setup: {text}\n")


if __name__ == "__main__":
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"AegisOps needs Python 3.11, 3.12 or 3.13; {sys.executable} is {found}. "
            "Install one of them, or name it: make demo PYTHON=/path/to/python3.12"
        )
    if len(sys.argv) != 2 or sys.argv[1] not in {"runtime", "dev"}:  # noqa: PLR2004 - program and lock
        sys.exit("usage: python3 requirements/install.py runtime|dev")
    sys.exit(main(sys.argv[1]))
