"""What the routes share: the service behind a request, answers as JSON, documented errors."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from aegisops.errors import UnknownMachine
from aegisops.online_store import Machine
from aegisops.tokens import Principal
from serving.contract import ProblemDocument
from serving.problem import KINDS, MEDIA_TYPE
from serving.service import Service

Body = TypeVar("Body", bound=BaseModel)

JSON = "application/json"
NDJSON = "application/x-ndjson"


def service_of(request: Request) -> Service:
    """The service this app was made for."""
    service: Service = request.app.state.service
    return service


async def visible_machine(service: Service, principal: Principal, machine_id: str) -> Machine:
    """The machine; `UnknownMachine` when there is none, or none that the token may see."""
    machine = await service.reader.machine(machine_id)
    if not principal.sees(machine.site, machine.area):
        raise UnknownMachine(machine_id)
    return machine


async def body_of(request: Request, model: type[Body]) -> Body:
    """The validated request body; pydantic's `ValidationError` becomes a 422."""
    return model.model_validate_json(await request.body())


def as_json(content: Any, status: int = 200) -> Response:  # noqa: ANN401 - JSON
    """A JSON answer. NaN never gets here: missing values are null."""
    return Response(orjson.dumps(content), status_code=status, media_type=JSON)


def documented_body(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a body that the route reads itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def documented_errors(*names: str) -> dict[int | str, dict[str, Any]]:
    """`responses` for the problems a route may answer with."""
    found: dict[int | str, dict[str, Any]] = {}
    for name in ("unauthenticated", "forbidden", "overloaded", *names):
        kind = KINDS[name]
        found[kind.status] = {
            "description": kind.title,
            "content": {
                MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}}
            },
        }
    return found
