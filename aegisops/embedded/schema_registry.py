"""A small schema registry that Confluent's clients understand: Avro subjects, ids, compatibility.

`python -m aegisops.embedded.schema_registry` listens on loopback at the port of AEGIS_REGISTRY__URL
and keeps its state in `schema_registry.sqlite` under AEGIS_DATA_DIR. Not here: deletion, references
between schemas, other formats, authentication. Those need the real one, at any AEGIS_REGISTRY__URL.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from aegisops.embedded import ports
from aegisops.embedded.schema_store import INVALID_SCHEMA, Refused, SchemaStore, Version
from aegisops.settings import Settings

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_SHORT_CODE = 1_000
_SERVER_ERROR = 50001


class Answer(JSONResponse):
    """JSON with the media type that Confluent's clients ask for."""

    media_type = _MEDIA_TYPE


class NewSchema(BaseModel):
    """Body of a registration; Confluent's other fields are ignored or refused below."""

    text: str = Field(alias="schema")
    kind: str = Field("AVRO", alias="schemaType")
    references: list[dict[str, Any]] = []

    def avro(self) -> str:
        """The schema's JSON. Raises `Refused` for what this registry does not do."""
        if self.kind != "AVRO" or self.references:
            raise Refused(
                INVALID_SCHEMA,
                "the embedded registry takes AVRO without references; for more point "
                "AEGIS_REGISTRY__URL to a full registry",
            )
        return self.text


class Level(BaseModel):
    """Body of a change of the compatibility level."""

    compatibility: str


def create_app(store: SchemaStore) -> FastAPI:
    """The registry's HTTP interface over a store."""
    app = FastAPI(title="Embedded schema registry", default_response_class=Answer, openapi_url=None)
    app.state.store = store
    app.include_router(_routes)
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    return app


def _store(request: Request) -> SchemaStore:
    store: SchemaStore = request.app.state.store
    return store


Store = Annotated[SchemaStore, Depends(_store)]
_routes = APIRouter()

# The endpoints are coroutines although SQLite blocks: microseconds, and one thread at the store.


@_routes.get("/")
async def root() -> dict[str, str]:
    """Say that it is there."""
    return {}


@_routes.get("/schemas/types")
async def schema_types() -> list[str]:
    """Formats taken."""
    return ["AVRO"]


@_routes.get("/schemas/ids/{schema_id}")
async def schema_by_id(schema_id: int, store: Store) -> dict[str, str]:
    """Text of a schema."""
    return {"schema": store.text(schema_id)}


@_routes.get("/schemas/ids/{schema_id}/versions")
async def schema_uses(schema_id: int, store: Store) -> list[dict[str, Any]]:
    """Subjects and versions of a schema."""
    return [{"subject": subject, "version": number} for subject, number in store.uses(schema_id)]


@_routes.get("/subjects")
async def subjects(store: Store) -> list[str]:
    """All subjects."""
    return store.subjects()


@_routes.post("/subjects/{subject}")
async def find(subject: str, body: NewSchema, store: Store) -> dict[str, Any]:
    """The version that a schema is."""
    return _described(store.find(subject, body.avro()))


@_routes.get("/subjects/{subject}/versions")
async def versions(subject: str, store: Store) -> list[int]:
    """Version numbers of a subject."""
    return [version.number for version in store.versions(subject)]


@_routes.post("/subjects/{subject}/versions")
async def register(subject: str, body: NewSchema, store: Store) -> dict[str, int]:
    """Register a schema; the same one again gives the same id."""
    return {"id": store.register(subject, body.avro())}


@_routes.get("/subjects/{subject}/versions/{number}")
async def version(subject: str, number: str, store: Store) -> dict[str, Any]:
    """One version, by number or `latest`."""
    return _described(store.version(subject, number))


@_routes.get("/subjects/{subject}/versions/{number}/schema")
async def version_text(subject: str, number: str, store: Store) -> Response:
    """The schema of one version, bare."""
    return Response(store.version(subject, number).text, media_type=_MEDIA_TYPE)


@_routes.post("/compatibility/subjects/{subject}/versions/{number}")
async def compatibility(
    subject: str, number: str, body: NewSchema, store: Store, verbose: bool = False
) -> dict[str, Any]:
    """Whether a schema could be registered after one version."""
    problems = store.problems(subject, number, body.avro())
    answer: dict[str, Any] = {"is_compatible": not problems}
    return answer | {"messages": problems} if verbose else answer


@_routes.get("/config")
async def global_level(store: Store) -> dict[str, str]:
    """The global compatibility level."""
    return {"compatibilityLevel": store.level()}


@_routes.put("/config")
async def set_global_level(body: Level, store: Store) -> dict[str, str]:
    """Change the global compatibility level."""
    store.set_level(body.compatibility)
    return {"compatibility": body.compatibility}


@_routes.get("/config/{subject}")
async def subject_level(
    subject: str,
    store: Store,
    defaultToGlobal: bool = False,  # noqa: N803 - Confluent's word
) -> dict[str, str]:
    """The compatibility level of a subject."""
    level = store.level(subject) if defaultToGlobal else store.own_level(subject)
    return {"compatibilityLevel": level}


@_routes.put("/config/{subject}")
async def set_subject_level(subject: str, body: Level, store: Store) -> dict[str, str]:
    """Change the compatibility level of a subject."""
    store.set_level(body.compatibility, subject)
    return {"compatibility": body.compatibility}


def _described(version: Version) -> dict[str, Any]:
    return {
        "subject": version.subject,
        "version": version.number,
        "id": version.schema_id,
        "schema": version.text,
    }


async def _refuse(_: Request, error: Exception) -> Response:
    code = error.code if isinstance(error, Refused) else _SERVER_ERROR
    status = code if code < _SHORT_CODE else code // 100
    return Answer({"error_code": code, "message": str(error)}, status)


async def _unprocessable(_: Request, error: Exception) -> Response:
    return Answer({"error_code": 422, "message": str(error)}, 422)


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; 2 when the port is taken."""
    import uvicorn

    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m aegisops.embedded.schema_registry")
    parser.add_argument("--port", type=int, default=urlsplit(settings.registry.url).port)
    parser.add_argument("--db", type=Path, default=settings.data_dir / "schema_registry.sqlite")
    options = parser.parse_args(arguments)
    try:
        ports.require_free(options.port, "the schema registry", "AEGIS_REGISTRY__URL")
    except ports.PortTaken as error:
        print(error, file=sys.stderr)  # noqa: T201 - the message of a command
        return 2
    store = SchemaStore(options.db)
    uvicorn.run(create_app(store), host=ports.LOOPBACK, port=options.port, log_level="warning")
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
