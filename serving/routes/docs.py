"""The API's reference page and the meaning of each problem, without anything from the internet."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from serving.problem import BASE, KINDS, Problem
from serving.routes.http import as_json

router = APIRouter(include_in_schema=False)

_PAGES = Path(__file__).parent.parent / "pages"
_FILES = {"docs.css": "text/css", "docs.js": "text/javascript"}


@router.get("/api/docs")
async def page() -> Response:
    """The reference, drawn from /openapi.json by a small script."""
    return FileResponse(_PAGES / "docs.html", media_type="text/html")


@router.get("/api/docs/{name}")
async def asset(name: str) -> Response:
    """The page's script and style."""
    if name not in _FILES:
        raise Problem("not-found", f"There is no {name!r} here.")
    return FileResponse(_PAGES / name, media_type=_FILES[name])


@router.get("/api/problems/{name}")
async def problem_kind(name: str) -> Response:
    """What a problem's `type` means and what to do about it."""
    kind = KINDS.get(name)
    if kind is None:
        raise Problem("not-found", f"There is no problem {name!r}.")
    return as_json(
        {"type": BASE + name, "title": kind.title, "status": kind.status, "remedy": kind.remedy}
    )
