"""Model servers a user would pick instead, each in a virtual environment of its own.

They get the same booster file on the same core and do bare inference: no token, no feature read, no
explanation, no audit. The environments are made at first use under .aegis/bench and never touch the
project's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from aegisops.embedded.ports import free_port
from benchmarks.harness.stack import SERVER_CORE, other_cores, rows

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".aegis" / "bench"
XGBOOST = "xgboost-cpu==3.2.0"
READY_SECONDS = 120.0


@dataclass(frozen=True)
class Peer:
    """One server: what to install, what to prepare in its folder, how to start and to ask it."""

    name: str
    packages: tuple[str, ...]
    prepare: Callable[[Path, Path, int], None]
    """(folder, booster, port)"""
    command: Callable[[Path, int], list[str]]
    """(folder, port) → arguments after the environment's bin folder."""
    path: str
    body: Callable[[list[float]], object]
    bare_packages: tuple[str, ...] = ()
    """Installed without what they would pull in."""


@contextlib.contextmanager
def running(peer: Peer, booster: Path) -> Iterator[tuple[str, list[str]]]:
    """A started peer on the server's core: its URL and request bodies."""
    home = _environment(peer)
    with tempfile.TemporaryDirectory() as text, tempfile.TemporaryFile("w+") as log:
        folder, port = Path(text), free_port()
        peer.prepare(folder, booster, port)
        program, *arguments = peer.command(folder, port)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}
        environment |= {"BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment |= {"PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
        os.sched_setaffinity(0, {SERVER_CORE})  # the child inherits it, and its workers
        try:
            server = subprocess.Popen(
                [home / "bin" / program, *arguments],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.sched_setaffinity(0, other_cores())
        url = f"http://127.0.0.1:{port}{peer.path}"
        bodies = [json.dumps(peer.body(row)) for row in rows(100, seed=2).tolist()]
        try:
            _wait(url, bodies[0], server, log)
            yield url, bodies
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, 15)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, 9)
                server.wait()


def _environment(peer: Peer) -> Path:
    home = ENVIRONMENTS / peer.name
    done = home / "complete.json"
    wanted = json.dumps([*peer.packages, *peer.bare_packages])
    if done.exists() and done.read_text() == wanted:
        return home
    uv = ROOT / ".venv" / "uv" / "bin" / "uv"
    print(f"installing {peer.name} into {home} …", file=sys.stderr)
    install = [uv, "pip", "install", "-q", "--python", home / "bin" / "python"]
    for command in (
        [uv, "venv", "-q", "--clear", "--python", sys.executable, home],
        [*install, *peer.packages],
        [*install, "--no-deps", *peer.bare_packages] if peer.bare_packages else ["true"],
    ):
        subprocess.run(command, check=True)
    done.write_text(wanted)
    return home


def _wait(url: str, body: str, server: subprocess.Popen[bytes], log: object) -> None:
    until = time.monotonic() + READY_SECONDS
    request = Request(url, body.encode(), {"Content-Type": "application/json"})
    said = "nothing"
    while server.poll() is None and time.monotonic() < until:
        try:
            with urlopen(request, timeout=10) as answer:
                if answer.status == 200:
                    return
        except HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
        except OSError as error:
            said = str(error)
        time.sleep(0.2)
    log.seek(0)  # type: ignore[attr-defined]
    sys.exit(f"{url} does not answer ({said}):\n{log.read()[-2000:]}")  # type: ignore[attr-defined]


# --- MLServer -------------------------------------------------------------------------------------


def _mlserver(folder: Path, booster: Path, port: int) -> None:
    settings = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings |= {"host": "127.0.0.1", "debug": False, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model.ubj").write_bytes(booster.read_bytes())
    model = {"name": "failure", "implementation": "mlserver_xgboost.XGBoostModel"}
    (folder / "model-settings.json").write_text(
        json.dumps(model | {"parameters": {"uri": "./model.ubj"}})
    )


# --- MLflow ---------------------------------------------------------------------------------------

_SAVE = """
import sys, xgboost, mlflow.xgboost
booster = xgboost.Booster(); booster.load_model(sys.argv[1])
booster.feature_names = None
mlflow.xgboost.save_model(booster, sys.argv[2], pip_requirements=["xgboost-cpu"])
"""


def _mlflow(folder: Path, booster: Path, port: int) -> None:  # noqa: ARG001 - as the others
    python = ENVIRONMENTS / "mlflow" / "bin" / "python"
    subprocess.run([python, "-c", _SAVE, booster, folder / "model"], check=True, cwd=folder)


# --- BentoML --------------------------------------------------------------------------------------

_SERVICE = """
import bentoml, numpy as np, xgboost

@bentoml.service(workers=1)
class Failure:
    def __init__(self):
        self.booster = xgboost.Booster()
        self.booster.load_model("model.ubj")
        self.booster.set_param({"nthread": 1})

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> list[float]:
        data = np.asarray(rows, dtype=np.float32)
        return self.booster.inplace_predict(data, validate_features=False).tolist()
"""


def _bentoml(folder: Path, booster: Path, port: int) -> None:  # noqa: ARG001 - as the others
    (folder / "service.py").write_text(_SERVICE)
    (folder / "model.ubj").write_bytes(booster.read_bytes())


ALL = (
    Peer(
        "mlserver",
        ("mlserver==1.7.1", "scikit-learn", XGBOOST),
        _mlserver,
        lambda folder, _: ["mlserver", "start", str(folder)],
        "/v2/models/failure/infer",
        lambda row: {
            "inputs": [
                {"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row},
            ]
        },
        ("mlserver-xgboost==1.7.1",),
    ),
    Peer(
        "mlflow",
        ("mlflow==3.17.2", XGBOOST),
        _mlflow,
        lambda _, port: [
            *("mlflow", "models", "serve", "-m", "model", "--env-manager", "local"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        ],
        "/invocations",
        lambda row: {"inputs": [row]},
    ),
    Peer(
        "bentoml",
        ("bentoml==1.4.39", XGBOOST),
        _bentoml,
        lambda _, port: ["bentoml", "serve", "service:Failure", "--port", str(port)],
        "/predict",
        lambda row: {"rows": [row]},
    ),
)
