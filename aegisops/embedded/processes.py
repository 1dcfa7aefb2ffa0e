"""Child processes of one stack: start, wait until ready, restart after a crash, stop all.

A crash is ordinary: a child that ends is started again after a growing, jittered pause. No child
outlives the supervisor: on Linux the kernel ends it with its parent, and `stop` ends its whole
process group. Which children a stack has is not decided here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aegisops.errors import Permanent, ServiceUnavailable

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 30.0
"""A child that lived this long starts again without the pause of earlier crashes."""
GRACE_SECONDS = 20.0
_LEAST_GRACE_SECONDS = 0.2
_LAST_LINES = 12

# Linux: ask the kernel for SIGTERM when the starting thread ends (PR_SET_PDEATHSIG is 1), make sure
# that has not happened already, and become the child. A wrapper and no preexec_fn, because running
# Python between fork and exec is not safe beside threads (and a warning from Python 3.12 on).
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the supervisor is gone")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be run: {error}")
"""


@dataclass(frozen=True, slots=True)
class Child:
    """What to run, and how to know that it works."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's environment."""
    ready: Callable[[], bool] | None = None
    """Asked until it says True; a child without one is ready at once."""
    restart: bool = True
    restarts_as: str = ""
    """Environment variable that tells the child how often it was started again."""


@dataclass(slots=True)
class _Running:
    child: Child
    process: subprocess.Popen[bytes]
    started: float
    pause: float = FIRST_PAUSE
    due: float | None = None
    """When to start it again, after a crash."""
    restarts: int = 0


class Processes:
    """The children of one stack; a context manager that stops them all."""

    def __init__(self, log_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._log_dir = log_dir
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None
        log_dir.mkdir(parents=True, exist_ok=True)

    def start(self, child: Child) -> None:
        """Start a child; its output goes to `<log_dir>/<name>.log`, an earlier run's to `.log.1`.

        Call it from a thread that lives as long as the child shall.
        """
        with self._lock:
            if child.name in self._running:
                raise Permanent(f"{child.name} is already running")
            if self.log_path(child.name).exists():
                self.log_path(child.name).replace(self._log_dir / f"{child.name}.log.1")
            self._running[child.name] = _Running(child, self._spawn(child, 0), self._clock())
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="processes", daemon=True)
            self._watcher.start()

    def wait_ready(self, name: str, timeout: float = 60.0) -> None:
        """Return when the child is ready.

        Raises `Permanent` with the end of its log when it ended and is not to be restarted, and
        `ServiceUnavailable` when it is not ready in time.
        """
        ready = self._running[name].child.ready
        deadline = self._clock() + timeout
        while self._clock() < deadline:
            running = self._running[name]
            code = running.process.poll()
            if code is not None and (not running.child.restart or running.restarts > 1):
                raise Permanent(
                    f"{name} ended with exit code {code}; its log ends:\n{self.tail(name)}"
                )
            if code is None and (ready is None or ready()):
                return
            time.sleep(0.05)
        raise ServiceUnavailable(
            f"{name} is not ready after {timeout:g} s; its log {self.log_path(name)} ends:\n"
            f"{self.tail(name)}"
        )

    def log_path(self, name: str) -> Path:
        """Where a child's output goes."""
        return self._log_dir / f"{name}.log"

    def tail(self, name: str) -> str:
        """The last lines of a child's output."""
        try:
            text = self.log_path(name).read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-_LAST_LINES:])

    def pids(self) -> dict[str, int]:
        """Name → process id of the children that live."""
        with self._lock:
            return {n: r.process.pid for n, r in self._running.items() if r.process.poll() is None}

    def restarts(self) -> dict[str, int]:
        """Name → how often the child was started again."""
        with self._lock:
            return {n: r.restarts for n, r in self._running.items()}

    def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Stop all children, last started first, each before the next.

        SIGTERM first; what lives on when `grace` seconds for all have gone is killed, with
        everything it started. Safe to call twice.
        """
        self._stopping.set()
        with self._lock:
            deadline = self._clock() + grace
            for running in reversed(list(self._running.values())):
                _signal(running.process, signal.SIGTERM)
                try:
                    running.process.wait(max(deadline - self._clock(), _LEAST_GRACE_SECONDS))
                except subprocess.TimeoutExpired:
                    log.warning("%s did not stop in %g s and is killed", running.child.name, grace)
                _signal(running.process, signal.SIGKILL)
                running.process.wait()
            self._running.clear()
        self._stopped.set()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(0.2):
            with self._lock:
                for running in self._running.values():
                    if not self._stopping.is_set():
                        self._look_after(running)
        # The kernel would end the children that this thread started again with this thread, in no
        # order at all.
        self._stopped.wait()

    def _look_after(self, running: _Running) -> None:
        code = running.process.poll()
        if code is None or not running.child.restart:
            return
        now = self._clock()
        if running.due is None:
            if now - running.started > STEADY_SECONDS:
                running.pause = FIRST_PAUSE
            # Jitter, so that children that fell together do not come back together.
            running.due = now + running.pause * random.uniform(0.5, 1.5)  # noqa: S311 - not a secret
            running.pause = min(2 * running.pause, LONGEST_PAUSE)
            log.warning("%s ended with exit code %s", running.child.name, code)
        elif now >= running.due:
            running.restarts += 1
            running.process, running.started = self._spawn(running.child, running.restarts), now
            running.due = None

    def _spawn(self, child: Child, restarts: int) -> subprocess.Popen[bytes]:
        told = {child.restarts_as: str(restarts)} if child.restarts_as else {}
        with self.log_path(child.name).open("ab") as output:
            return subprocess.Popen(
                dying_with_parent(child.command),
                env={**os.environ, **child.env, **told},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """The command, such that on Linux its process gets SIGTERM when the calling thread ends."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
