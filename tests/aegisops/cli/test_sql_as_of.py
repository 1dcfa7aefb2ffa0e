"""`aegisops sql --as-of` reads the lake as it was, by version, by time, and says what it cannot."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from typer.testing import CliRunner

from aegisops.cli import app
from aegisops.lake import Lake
from aegisops.schemas.tables import MACHINES


def register(lake, *ids):
    lake.append(
        MACHINES,
        pl.DataFrame(
            {
                "machine_id": ids,
                "machine_class": "cnc_spindle",
                "site": "north",
                "area": "milling",
                "attributes": "{}",
                "registered_at": datetime(2026, 1, 1, tzinfo=UTC),
            }
        ),
    )


@pytest.fixture
def lake(tmp_path):
    """Two machines, then, in a second commit, a third."""
    made = Lake(str(tmp_path / "lake"))
    register(made, "m-1", "m-2")
    register(made, "m-3")
    return made


def machines(tmp_path, *as_of):
    options = [option for text in as_of for option in ("--as-of", text)]
    statement = "SELECT machine_id FROM bronze.machines ORDER BY 1"
    command = ["sql", "-c", statement, "--json", "--data-dir", str(tmp_path), *options]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    return [row["machine_id"] for row in json.loads(answer.stdout)]


def test_a_version_is_read_as_it_was(lake, tmp_path):
    latest = lake.version(MACHINES)
    assert machines(tmp_path) == ["m-1", "m-2", "m-3"]
    assert machines(tmp_path, f"bronze/machines={latest - 1}") == ["m-1", "m-2"]


def test_a_time_is_read_as_it_was_and_a_version_beside_it_wins(lake, tmp_path):
    latest = lake.version(MACHINES)
    entries = {e["version"]: e["timestamp"] for e in lake.open(MACHINES).history()}
    earlier = datetime.fromtimestamp(entries[latest - 1] / 1000, UTC)
    text = earlier.isoformat(timespec="milliseconds")
    expected = ["m-1", "m-2"]
    if entries[latest] > entries[latest - 1]:  # commits of one millisecond are one time
        assert machines(tmp_path, text) == expected
    assert machines(tmp_path, text, f"bronze/machines={latest}") == ["m-1", "m-2", "m-3"]


def test_what_is_neither_time_nor_version_is_told(lake, tmp_path):
    answer = CliRunner().invoke(
        app, ["sql", "-c", "SELECT 1", "--data-dir", str(tmp_path), "--as-of", "yesterday"]
    )
    assert answer.exit_code == 2
    assert "neither a time" in answer.output
