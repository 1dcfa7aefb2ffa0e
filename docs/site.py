"""What the documentation site has beyond docs/. A hook of MkDocs; see mkdocs.yml.

The repository's own pages, every file that a page links to, and references written from the code.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

if TYPE_CHECKING:
    import click

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {"README.md": "index.md"}  # all others lie under source/, as they do in the repository
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated and what lies outside docs/."""
    for name, write in REFERENCES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=write()))
    for source in _outside():
        text = (ROOT / source).read_text()
        if source.suffix != ".md":
            text = f"# {source.name}\n\n`{source}`\n\n````{_language(source)}\n{text}\n````\n"
        files.append(File.generated(config, _address(source), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point every relative link at its page of the site."""
    here = PurePosixPath(page.file.src_uri)
    origin = _origin(here)

    def site_link(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match.group()
        found = PurePosixPath(os.path.normpath(origin.parent / path))
        address = os.path.relpath(_address(found), here.parent)
        return f"{before}{address}{hash_}{anchor}{after}"

    return LINK.sub(site_link, markdown)


def _outside() -> Iterator[PurePosixPath]:
    """Files outside docs/ that the site shows: its own pages and what pages link to."""
    waiting = [PurePosixPath("README.md"), PurePosixPath("CHANGELOG.md")]
    waiting += [PurePosixPath(path.relative_to(ROOT)) for path in sorted(DOCS.rglob("*.md"))]
    seen = set(waiting)
    for source in waiting:
        if source.parts[0] != "docs":
            yield source
        if source.suffix != ".md":
            continue
        for _, target, _ in LINK.findall((ROOT / source).read_text()):
            path = target.partition("#")[0]
            found = PurePosixPath(os.path.normpath(source.parent / path))
            if path and found not in seen and (ROOT / found).is_file():
                seen.add(found)
                if found.parts[0] != "docs":
                    waiting.append(found)


def _address(source: PurePosixPath) -> str:
    """Where a file of the repository is on the site."""
    if source.parts[0] == "docs":
        return str(source.relative_to("docs"))
    if not (ROOT / source).is_file():  # a folder: the page that speaks of it
        return PAGES["README.md"]
    text = str(source)
    return PAGES.get(text, f"source/{text}" + ("" if text.endswith(".md") else ".md"))


def _origin(here: PurePosixPath) -> PurePosixPath:
    """The repository's file behind a page."""
    if str(here) in PAGES.values():
        return PurePosixPath("README.md")
    if here.parts[0] == "source":
        return here.relative_to("source")
    return "docs" / here


def _language(source: PurePosixPath) -> str:
    return {".py": "python", ".toml": "toml", ".sql": "sql", ".yaml": "yaml"}.get(source.suffix, "")


def _tables() -> str:
    from aegisops.schemas.tables import TABLES

    text = "# Tables\n\nEvery Delta table; written from `aegisops/schemas/tables.py`. "
    text += "Times are UTC microseconds. `key` columns are unique together.\n"
    for table in TABLES.values():
        text += f"\n## {table.name}\n\n{table.doc}\n\n"
        if table.partition_by:
            text += f"Partitioned by {', '.join(table.partition_by)}.\n\n"
        rows = [
            (
                f"`{name}`" + (" key" if name in table.keys else ""),
                str(column.type) + (", may be null" if column.nullable else ""),
                column.doc + _range(column.low, column.high),
            )
            for name, column in table.columns.items()
        ]
        text += _grid(("column", "type", "meaning"), rows)
    return text


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f" (≥ {low:g})"
    return f" (≤ {high:g})" if low is None else f" ({low:g}–{high:g})"


def _commands() -> str:
    from typer.main import get_command

    from aegisops.cli import app

    text = "# Commands\n\nWritten from the command line itself; `--help` shows the same.\n"
    for name, command in _walk(get_command(app), "aegisops"):
        text += f"\n## {name}\n\n{(command.help or '').strip()}\n\n"
        rows = []
        for parameter in command.params:
            names = ", ".join(f"`{option}`" for option in parameter.opts)
            rows.append((names, str(getattr(parameter, "help", None) or "")))
        text += _grid(("option", "meaning"), rows) if rows else ""
    return text


def _walk(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _api() -> str:
    document = json.loads((ROOT / "dashboard" / "openapi.json").read_text())
    paths: Mapping[str, Mapping[str, Any]] = document["paths"]
    rows = [
        (f"`{method.upper()} {path}`", (call.get("summary") or "").strip("."))
        for path, calls in paths.items()
        for method, call in calls.items()
    ]
    return (
        "# API\n\nThe contract is the OpenAPI document of a running API: `/api/openapi.json`, "
        "and `/api/docs` to try it. Its calls:\n\n" + _grid(("call", "what it answers"), rows)
    )


def _grid(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |\n"

    return line(head) + "|" + "---|" * len(head) + "\n" + "".join(map(line, rows))


REFERENCES: Mapping[str, Callable[[], str]] = {
    "tables": _tables,
    "commands": _commands,
    "api": _api,
}
