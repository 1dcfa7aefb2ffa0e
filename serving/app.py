"""The ASGI application: routes, errors, limits and headers around a `Service`. Wiring only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from aegisops import __version__
from serving import alarm_contract, console_contract, problem
from serving.contract import (
    BatchRequest,
    FeedbackRequest,
    PredictRequest,
    ProblemDocument,
    TelemetryRequest,
)
from serving.headers import SecurityHeaders, console_policy
from serving.limits import Limits
from serving.routes import (
    alarms,
    console,
    docs,
    feedback,
    handover,
    history,
    machine_classes,
    machines,
    models,
    predict,
    predictions,
    sign_in,
    system,
    telemetry,
    unmatched,
    work_orders,
)
from serving.service import Service
from serving.short_cut import ShortCut

API = "/api/v1"
_DESCRIPTION = """Failure predictions for a machine fleet: calibrated, explained, audited.

Every call needs `Authorization: Bearer <token>` (roles viewer < operator < engineer < admin; for
development `aegisops token` mints one). Errors are RFC 9457 problem documents. Times are UTC."""


class _Api(FastAPI):
    """FastAPI behind the door: what is refused, or takes the short cut, never reaches it."""

    def __init__(self, service: Service, **options: Any) -> None:  # noqa: ANN401 - FastAPI's
        super().__init__(**options)
        self.state.service = service
        self.state.authenticator = service.authenticator
        self.state.rates = service.rates
        self.state.console_folder = console.FOLDER

    def build_middleware_stack(self) -> ASGIApp:
        """Headers, then limits, then the short cut, then FastAPI's own."""
        service: Service = self.state.service
        api = service.settings.api
        return SecurityHeaders(
            Limits(
                ShortCut(super().build_middleware_stack(), path=API + predict.PATH),
                concurrency=api.concurrency,
                queue=api.queue,
                max_body=api.max_body_bytes,
                unlimited=frozenset({API + telemetry.PATH}),
                refused=lambda reason: service.metrics.refused.labels(reason).inc(),
            ),
            console_policy(service.settings.oidc.origin),
        )


def create_app(service: Service) -> FastAPI:
    """The application; the service starts and stops with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = _Api(
        service,
        title="AegisOps API",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        # A redirect would repeat the Host header that the caller sent.
        redirect_slashes=False,
        lifespan=lifespan,
    )
    problem.install(app)
    for module in (
        predict,
        predictions,
        machines,
        history,
        machine_classes,
        feedback,
        alarms,
        work_orders,
        models,
        handover,
        telemetry,
        sign_in,
    ):
        app.include_router(module.router, prefix=API)
    app.include_router(system.api, prefix=API)
    app.include_router(system.probes)
    app.include_router(docs.router)
    app.include_router(unmatched.router)
    app.include_router(console.router)  # last: it takes every path that is left
    _complete_openapi(app)
    return app


def _complete_openapi(app: FastAPI) -> None:
    """Add to the generated document what routes that read their own body do not tell FastAPI."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()  # which also keeps it as app.openapi_schema
            bodies: list[type[BaseModel]] = [
                PredictRequest,
                BatchRequest,
                FeedbackRequest,
                ProblemDocument,
                TelemetryRequest,
                *alarm_contract.BODIES,
                *console_contract.BODIES,
            ]
            _, definitions = models_json_schema(
                [(model, "validation") for model in bodies],
                ref_template="#/components/schemas/{model}",
            )
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions["$defs"])
            components["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            }
            for path, operations in document["paths"].items():
                if not path.startswith(API) or path == API + sign_in.CONFIG:
                    continue
                for operation in operations.values():
                    operation["security"] = [{"token": []}]
                    if path == API + system.STATUS:
                        operation["security"].append({})  # a shorter answer needs no token
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
