"""The notebooks of the documentation run from top to bottom, on a small fleet."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, finished, monkeypatch):
    platform, _ = finished
    monkeypatch.setenv("AEGIS_DATA_DIR", str(platform.settings.data_dir))
    monkeypatch.setenv("AEGIS_CLASSES_DIR", str(platform.settings.classes_dir))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": Path(__file__).parents[2]}}
    ).execute()
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "in the evidence" in printed
