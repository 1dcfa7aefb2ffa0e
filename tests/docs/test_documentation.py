"""What exists is documented, and what is documented exists."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def command_names() -> list[str]:
    from aegisops.cli import app

    def walk(group, prefix):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, f"{prefix} {name}")
            else:
                yield f"{prefix} {name}"

    return list(walk(get_command(app), "aegisops"))


def make_targets() -> list[str]:
    return re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def setting_names() -> list[str]:
    from aegisops.cli.doctor import known_variables

    return sorted(known_variables())


def table_names() -> list[str]:
    from aegisops.schemas.tables import TABLES

    return sorted(TABLES)


@pytest.mark.parametrize("command", command_names())
def test_every_command_is_documented(command):
    assert f"{command}" in TEXT


@pytest.mark.parametrize("target", make_targets())
def test_every_make_target_is_documented(target):
    assert f"make {target}" in TEXT


@pytest.mark.parametrize("variable", setting_names())
def test_every_setting_is_documented(variable):
    assert f"`{variable}`" in TEXT


@pytest.mark.parametrize("table", table_names())
def test_every_table_is_documented(table):
    assert f"`{table}`" in TEXT


def test_no_document_names_a_command_that_does_not_exist():
    known = {name.split()[1] for name in command_names()}
    named = set(re.findall(r"`aegisops ([a-z][a-z-]*)", TEXT))
    named |= set(re.findall(r"^\s*(?:\.venv/bin/)?aegisops ([a-z][a-z-]*)", TEXT, re.MULTILINE))
    assert named - known == set()


def test_no_document_names_a_make_target_that_does_not_exist():
    assert set(re.findall(r"`make ([a-z-]+)", TEXT)) - set(make_targets()) == set()


def test_no_document_names_a_setting_that_does_not_exist():
    named = set(re.findall(r"\bAEGIS_[A-Z_]+[A-Z]\b", TEXT))
    of_the_tests = {"AEGIS_REQUIRE_KAFKA"}
    assert named - set(setting_names()) - of_the_tests == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_resolves(document):
    targets = [t for t in LINK.findall(document.read_text()) if not re.match(r"[a-z]+:|#", t)]
    missing = [t for t in targets if not (document.parent / t.split("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_document_carries_an_unfinished_passage(document):
    left = re.findall(
        r"TODO|FIXME|XXX|TBD|lorem ipsum|coming soon", document.read_text(), re.IGNORECASE
    )
    assert left == []


def test_every_decision_is_listed():
    listed = (ROOT / "docs/adr/README.md").read_text()
    assert [p.name for p in sorted((ROOT / "docs/adr").glob("0*.md")) if p.name not in listed] == []


def test_the_readme_shows_both_commands():
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme


def test_the_locks_name_no_index_host():
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"https?://|--(extra-)?index-url", lock.read_text()), lock.name


def test_the_dev_lock_contains_the_runtime_lock():
    def pins(name):
        return set(
            re.findall(
                r"^(\S+==\S+)", (ROOT / f"requirements/{name}.txt").read_text(), re.MULTILINE
            )
        )

    assert pins("runtime") - pins("dev") == set()


def test_every_declared_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = (ROOT / "requirements/runtime.txt").read_text()
    names = [re.split(r"[<>=\[;! ]", d)[0] for d in project["dependencies"]]
    assert [
        n for n in names if not re.search(rf"^{re.escape(n)}(\[\S+\])?==", lock, re.MULTILINE)
    ] == []
