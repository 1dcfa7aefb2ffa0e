"""POST /predict past FastAPI's routing: the one question that is asked thousands of times a second.

Routing and dependency injection cost as much as reading the features. The same handler answers on
both ways, so the contract, the checks and the errors are the same; FastAPI keeps the route for the
OpenAPI document. Pure ASGI, behind the limits.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from aegisops.tokens import Role
from serving import problem
from serving.auth import authorise
from serving.routes import predict


class ShortCut:
    """Answers `path` itself and hands on everything else."""

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await predict.answer(request, await authorise(request, Role.OPERATOR))
        except Exception as error:  # noqa: BLE001 - every error is answered as a problem
            response = problem.response(request, error)
        await response(scope, receive, send)
