"""Where the files that are not Python are: workspace, Dagster settings, SQL, Kafka's pom.xml.

In a checkout they lie at its top; a wheel carries copies beside this module (see setup.py). Nothing
else looks for them by a path of its own.
"""

from __future__ import annotations

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
_INSTALLED = Path(__file__).resolve().parent / "project"

ROOT = _CHECKOUT if (_CHECKOUT / "workspace.yaml").is_file() else _INSTALLED
WORKSPACE = ROOT / "workspace.yaml"
DAGSTER_SETTINGS = ROOT / "dagster.yaml"
SQL_VIEWS = ROOT / "sql" / "views"
KAFKA = ROOT / "deploy" / "kafka"
