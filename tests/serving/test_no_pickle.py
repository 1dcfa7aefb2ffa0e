"""Loading and asking a model never unpickles: pickle runs whatever its file says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aegisops.settings import Settings
from tests.serving.conftest import write_bundle

PROGRAM = """
import sys

seen = []


def hook(event, arguments):
    if event == "pickle.find_class":
        seen.append(f"unpickled {arguments}")
    if event == "open" and str(arguments[0]).endswith((".pkl", ".pickle", ".joblib", ".skops")):
        seen.append(f"opened {arguments[0]}")


sys.addaudithook(hook)
from serving.lean_imports import import_xgboost_alone

import_xgboost_alone()
from pathlib import Path

from serving.service import _load_warm

bundle = _load_warm(Path(sys.argv[1]))
assert bundle.forest is not None
heavy = ("joblib", "cloudpickle", "dill", "skops", "sklearn")
seen += [name for name in heavy if name in sys.modules]
if sys.argv[2] == "sabotage":
    import pickle

    pickle.loads(pickle.dumps(Path))
print(seen)
"""


@pytest.mark.parametrize("sabotage", [False, True])
def test_the_model_path_never_unpickles_and_the_watch_would_see_it(
    settings: Settings, sabotage: bool
) -> None:
    folder = write_bundle(settings, forest=True)
    assert {path.suffix for path in folder.iterdir()} <= {".ubj", ".json", ".npz", ".sig", ".pub"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, "sabotage" if sabotage else "-"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert ("unpickled" in done.stdout) is sabotage
    assert sabotage or done.stdout.strip() == "[]"
