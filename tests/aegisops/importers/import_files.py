"""Small folders of customer data for the importer tests."""

from pathlib import Path
from textwrap import dedent

CLASS = """
name = "pump"
title = "Test pump"
horizon = "24h"
step = "1h"
stale_after = "3h"
[channels.temperature]
unit = "°C"
period = "1h"
limits = [-40, 200]
[channels.pressure]
unit = "bar"
period = "1h"
limits = [0, 40]
[events]
service = { type = "maintenance" }
[attributes]
age = { unit = "years" }
model = { values = ["small", "large"] }
[windows]
3h = "1h"
[statistics]
temperature = ["mean_3h"]
pressure = ["mean_3h"]
service = ["time_since"]
[failure_modes.seal]
title = "Seal failure"
action = "Replace the seal."
"""

MAPPING = """
name = "pumps"
machine_class = "pump.toml"
site = "north"
[machine]
column = "pump"
[clock]
time = "when"
timezone = "UTC"
[[readings]]
files = "readings.csv"
[readings.channels]
temperature = { column = "temp_f", unit = "degF" }
pressure = { column = "p", unit = "bar" }
[[events]]
files = "failures.csv"
type = "failure"
code_column = "mode"
[machines]
files = "pumps.csv"
attributes = { age = "age", model = "size" }
"""

READINGS = """\
when,pump,temp_f,p
2026-01-01 00:00,A,212,3.5
2026-01-01 01:00,A,32,3.25
2026-01-01 00:00,B,50,
"""
FAILURES = """\
when,pump,mode
2026-01-01T01:30:00,A,seal
"""
PUMPS = """\
pump,age,size
A,3,small
B,7.5,large
"""


def folder(path: Path, **changed: str) -> Path:
    """A complete import that is valid; keyword arguments replace a file by its stem."""
    files = {
        "pump.toml": CLASS,
        "mapping.toml": MAPPING,
        "readings.csv": READINGS,
        "failures.csv": FAILURES,
        "pumps.csv": PUMPS,
    }
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(dedent(changed.get(name.partition(".")[0], text)))
    return path
