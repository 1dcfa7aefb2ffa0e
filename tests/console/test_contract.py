"""The console is made for the API that is here."""

import json
import subprocess
import sys
from pathlib import Path

DASHBOARD = Path(__file__).resolve().parents[2] / "dashboard"


def test_the_clients_document_is_the_apis(tmp_path):
    """When this fails: `make client`, then `make console-test`."""
    now = tmp_path / "openapi.json"
    subprocess.run([sys.executable, DASHBOARD / "dump_openapi.py", now], check=True)
    assert now.read_text() == (DASHBOARD / "openapi.json").read_text()


def test_the_lock_names_no_registry():
    lock = json.loads((DASHBOARD / "package-lock.json").read_text())
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)
