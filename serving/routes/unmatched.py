"""Paths of the API that no route answers: 405 with the methods that there are, else 404.

Without it a page of the console would answer GET on a path that only takes POST.
"""

from __future__ import annotations

import re
from functools import cache

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.routing import compile_path

from serving.problem import Problem

router = APIRouter(include_in_schema=False)

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


@router.api_route("/api/{rest:path}", methods=_METHODS)
async def unmatched(request: Request) -> Response:
    """Never a success."""
    path = request.url.path
    allowed = sorted(
        method.upper()
        for template, operations in request.app.openapi()["paths"].items()
        if _pattern(template).match(path)
        for method in operations
    )
    if allowed and request.method not in allowed:
        listed = ", ".join(allowed)
        raise Problem("method-not-allowed", f"{path[:200]} takes {listed}.", {"Allow": listed})
    raise Problem("not-found", f"There is no {path[:200]} here.")


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return compile_path(template)[0]
