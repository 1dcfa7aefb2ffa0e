"""`/`: the console's built files. A path that is no API path and no file is a page.

The build puts them into serving/console (see dashboard/README.md). Names under /assets carry a hash
of their content and may be kept for ever; everything else is asked for again.
"""

from __future__ import annotations

import gzip
import mimetypes
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.problem import Problem

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent.parent / "console"
NOT_PAGES = ("api", "livez", "readyz", "metrics", "openapi.json")
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_COMPRESSED = {".css", ".html", ".js", ".json", ".map", ".svg", ".webmanifest"}
_NOT_BUILT = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>AegisOps</title>
<h1>The console has not been built</h1>
<p>The API runs; its reference is at <a href="/api/docs">/api/docs</a>.</p>
<p>To build the console run <code>make console</code> in the project's folder, then reload.</p>
</html>"""


@router.get("/{path:path}")
async def file(path: str, request: Request) -> Response:
    """A built file, or the page that finds its own way by the path."""
    first = path.partition("/")[0]
    if first in NOT_PAGES:
        raise Problem("not-found", f"There is no /{path[:200]} here.")
    folder: Path = request.app.state.console_folder
    wanted = _inside(folder, path)
    if wanted is not None and wanted.is_file():
        return _sent(wanted, request, is_asset=first == "assets")
    # Ids in a page's path may hold dots: only assets and files of the root can be missing.
    if first == "assets" or ("/" not in path and "." in path):
        raise Problem("not-found", f"There is no /{path[:200]} here.")
    page = folder / "index.html"
    if not page.is_file():
        return Response(_NOT_BUILT, status_code=503, media_type="text/html")
    return _sent(page, request, is_asset=False)


def _inside(folder: Path, path: str) -> Path | None:
    """The file of that path; None for a path that leads out of the folder or is none."""
    if not path or "\0" in path:
        return None
    found = (folder / path).resolve()
    return found if found.is_relative_to(folder.resolve()) else None


def _sent(path: Path, request: Request, *, is_asset: bool) -> Response:
    stat = path.stat()
    tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    headers = {
        "Cache-Control": _FOR_EVER if is_asset else _ASK_AGAIN,
        "ETag": tag,
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    content = _read(path, stat.st_mtime_ns)
    if path.suffix in _COMPRESSED and "gzip" in request.headers.get("accept-encoding", ""):
        content = _gzipped(path, stat.st_mtime_ns)
        headers["Content-Encoding"] = "gzip"
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Response(content, headers=headers, media_type=kind)


@lru_cache(maxsize=64)
def _read(path: Path, _changed: int) -> bytes:
    return path.read_bytes()


@lru_cache(maxsize=64)
def _gzipped(path: Path, changed: int) -> bytes:
    return gzip.compress(_read(path, changed), mtime=0)
