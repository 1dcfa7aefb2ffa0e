"""Client of any Confluent-compatible schema registry: contracts to ids, ids to schemas.

"There is no such id" and "nobody answers" are different things: the first makes a dead letter, the
second must only make us wait. What was answered once is kept on disk, since ids never change their
meaning, so that a registry that is away does not stop a restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote

import httpx

from aegisops.errors import BadInput, ConfigurationError, ServiceUnavailable
from aegisops.names import Reason
from aegisops.settings import Settings

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
_FORGET_SECONDS = 30.0
"""How long an id that the registry does not know is not asked for again."""
_MOST_UNKNOWN = 10_000
_NOT_FOUND = 404
_REFUSALS = (409, 422)


class SchemaRegistry:
    """Registers our contracts and finds the schemas of what others wrote. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        client: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked yet. `clock` in seconds."""
        self._url = settings.registry.url.rstrip("/")
        # Questions are rare, so no connection is kept open (and none is left over at exit).
        self._client = client or httpx.Client(
            timeout=_TIMEOUT, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._clock = clock
        # Ids belong to a registry: another URL has a folder of its own.
        place = hashlib.sha256(self._url.encode()).hexdigest()[:16]
        self._cache = settings.data_dir.absolute() / "schemas" / place
        self._texts: dict[int, str] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._unknown: dict[int, float] = {}

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def register(self, subject: str, text: str) -> int:
        """Registry id of a schema's JSON text, registered under the subject if it is new there.

        Raises `ConfigurationError` when the registry refuses it (incompatible with what is there)
        and `ServiceUnavailable` when it does not answer and never did for this text.
        """
        key = (subject, text)
        if key not in self._ids:
            self._ids[key] = self._register(subject, text)
        return self._ids[key]

    def schema(self, schema_id: int) -> str:
        """JSON text of a schema.

        Raises `BadInput` (UNKNOWN_SCHEMA) when the registry answered that there is none, and
        `ServiceUnavailable` when it did not answer.
        """
        text = self._texts.get(schema_id) or self._stored(f"{schema_id}.avsc")
        if text is None:
            if self._unknown.get(schema_id, 0.0) > self._clock():
                raise _unknown(schema_id)
            text = self._fetch(schema_id)
            self._store(f"{schema_id}.avsc", text)
        self._texts[schema_id] = text
        return text

    def _register(self, subject: str, text: str) -> int:
        # A subject may hold any character; a file name may not.
        name = f"{hashlib.sha256(f'{subject} {text}'.encode()).hexdigest()[:32]}.id"
        try:
            path = f"/subjects/{quote(subject, safe='')}/versions"
            answer = self._ask("POST", path, {"schema": text})
            if answer.status_code in _REFUSALS:
                raise ConfigurationError(
                    f"{self._url} refuses the schema of {subject}: {_message(answer)}; make the"
                    " .avsc compatible (new fields need a default) or use a new topic version"
                )
            schema_id = int(self._content(answer)["id"])
        except ServiceUnavailable:
            stored = self._stored(name)
            if stored is None:
                raise
            return int(stored)
        self._texts[schema_id] = text
        self._store(name, str(schema_id))
        self._store(f"{schema_id}.avsc", text)
        return schema_id

    def _fetch(self, schema_id: int) -> str:
        answer = self._ask("GET", f"/schemas/ids/{schema_id}")
        if answer.status_code == _NOT_FOUND and "error_code" in answer.text:
            # Asked again later: somebody may register it. A flood of wild ids must not fill memory.
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[schema_id] = self._clock() + _FORGET_SECONDS
            raise _unknown(schema_id)
        return str(self._content(answer)["schema"])

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> httpx.Response:
        try:
            return self._client.request(
                method, self._url + path, json=body, headers={"Accept": _MEDIA_TYPE}
            )
        except httpx.HTTPError as error:
            raise ServiceUnavailable(
                f"schema registry {self._url} does not answer ({error}); is it running, is"
                " AEGIS_REGISTRY__URL right?"
            ) from error

    def _content(self, answer: httpx.Response) -> dict[str, Any]:
        """The JSON of a success; anything else is a registry (or proxy) that is not itself."""
        try:
            answer.raise_for_status()
            content: dict[str, Any] = answer.json()
        except (httpx.HTTPStatusError, ValueError) as error:
            raise ServiceUnavailable(
                f"schema registry {self._url} answers {answer.status_code}: {_message(answer)}"
            ) from error
        return content

    def _stored(self, name: str) -> str | None:
        try:
            return (self._cache / name).read_text(encoding="utf-8")
        except OSError:
            return None

    def _store(self, name: str, text: str) -> None:
        """Keep an answer; a full or read-only disk only costs the cache."""
        half = self._cache / f".{name}.{os.getpid()}"
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            half.write_text(text, encoding="utf-8")
            half.replace(self._cache / name)
        except OSError:
            with contextlib.suppress(OSError):
                half.unlink()


def _unknown(schema_id: int) -> BadInput:
    return BadInput(Reason.UNKNOWN_SCHEMA, f"the registry has no schema {schema_id}")


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
