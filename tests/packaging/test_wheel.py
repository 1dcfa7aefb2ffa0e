"""What `pip install` of the wheel gives a person: a command that finds all its files."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from what git would commit, so that no stray file helps."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist)]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`aegisops` of a new environment that has the wheel and, by reference, its dependencies."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    site = next((home / "lib").glob("python3*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Only the libraries: this checkout's own path file is left out on purpose.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "python"


def run(python, *arguments, cwd):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AEGIS_", "PYTHON"))}
    return subprocess.run(
        [python, "-m", "aegisops.cli", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_wheel_carries_every_file_that_the_code_opens(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"workspace.yaml", "dagster.yaml", "deploy/kafka/pom.xml"}
    expected |= {f"sql/views/{path.name}" for path in (ROOT / "sql" / "views").glob("*.sql")}
    assert {f"aegisops/project/{name}" for name in expected} <= names
    assert {"aegisops/schemas/readings.avsc", "aegisops/machines/classes/cnc_spindle.toml"} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_an_installed_command_answers_sql_with_the_views(installed, tmp_path):
    answer = run(
        installed,
        *("sql", "--data-dir", str(tmp_path), "--format", "json"),
        *("-c", "SELECT count(*) AS views FROM duckdb_views() WHERE view_name = 'risk_ranking'"),
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)[0]["views"] == 1


def test_the_installed_code_is_not_this_checkout(installed, tmp_path):
    where = subprocess.run(
        [installed, "-c", "from aegisops import project_files as p; print(p.WORKSPACE)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert Path(where).is_file()
    assert ROOT not in Path(where).parents
