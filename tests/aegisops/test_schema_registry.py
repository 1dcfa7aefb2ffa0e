"""The client: what is known stays known, and "no such id" is never mixed up with "nobody there"."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from aegisops import names
from aegisops.embedded import ports
from aegisops.errors import BadInput, ConfigurationError, Permanent, ServiceUnavailable
from aegisops.names import Reason
from aegisops.schema_registry import SchemaRegistry
from aegisops.schemas.avro import contract
from aegisops.settings import RegistrySettings, Settings

EVENTS = contract(names.EVENTS_TOPIC)
MINE = (EVENTS.subject, EVENTS.text)


def registry(
    folder: Path, answer: Callable[[httpx.Request], httpx.Response], clock=lambda: 0.0
) -> SchemaRegistry:
    """A client over scripted answers."""
    settings = Settings(data_dir=folder, registry=RegistrySettings(url="http://registry"))
    return SchemaRegistry(settings, httpx.Client(transport=httpx.MockTransport(answer)), clock)


def away(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.integration
def test_a_registered_contract_is_found_by_its_id(settings: Settings):
    client = SchemaRegistry(settings)
    for topic in names.TOPICS:
        schema_id = client.register(contract(topic).subject, contract(topic).text)
        assert client.register(contract(topic).subject, contract(topic).text) == schema_id
        assert SchemaRegistry(settings).schema(schema_id) == contract(topic).text


@pytest.mark.integration
def test_after_one_answer_the_registry_may_be_away_even_over_a_restart(settings: Settings):
    first = SchemaRegistry(settings)
    schema_id = first.register(*MINE)
    first.close()

    restarted = SchemaRegistry(settings, httpx.Client(transport=httpx.MockTransport(away)))
    assert restarted.register(*MINE) == schema_id
    assert restarted.schema(schema_id) == EVENTS.text
    with pytest.raises(ServiceUnavailable, match="AEGIS_REGISTRY__URL"):
        restarted.schema(schema_id + 1_000)


@pytest.mark.integration
def test_an_id_the_registry_does_not_know_is_permanent(settings: Settings):
    with pytest.raises(BadInput) as refused:
        SchemaRegistry(settings).schema(987_654)
    assert refused.value.reason == Reason.UNKNOWN_SCHEMA


def test_nobody_at_the_port_is_retryable(tmp_path: Path):
    url = f"http://{ports.LOOPBACK}:{ports.free_port()}"
    client = SchemaRegistry(Settings(data_dir=tmp_path, registry=RegistrySettings(url=url)))
    with pytest.raises(ServiceUnavailable):
        client.register(*MINE)
    client.close()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, json={"error_code": 50001, "message": "store failed"}),
        httpx.Response(503, text="try later"),
        httpx.Response(429),
        httpx.Response(401, json={"error_code": 401, "message": "who are you"}),
        httpx.Response(404, text="<html>a proxy's own page</html>"),
        httpx.Response(200, text="not json"),
    ],
)
def test_any_answer_but_a_clear_no_is_retryable(tmp_path: Path, answer: httpx.Response):
    client = registry(tmp_path, lambda request: answer)
    with pytest.raises(ServiceUnavailable):
        client.schema(1)


def test_an_unknown_id_is_asked_for_again_only_after_a_while(tmp_path: Path):
    asked: list[str] = []
    now = [100.0]

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(404, json={"error_code": 40403, "message": "no"})

    client = registry(tmp_path, answer, lambda: now[0])
    for _ in range(3):
        with pytest.raises(BadInput):
            client.schema(5)
    assert asked == ["/schemas/ids/5"]
    now[0] += 31
    with pytest.raises(BadInput):
        client.schema(5)
    assert len(asked) == 2


def test_an_incompatible_contract_is_a_configuration_error_that_names_the_way_out(tmp_path: Path):
    refusal = httpx.Response(409, json={"error_code": 409, "message": "field b has no default"})
    client = registry(tmp_path, lambda request: refusal)
    with pytest.raises(ConfigurationError, match=r"field b has no default; make the \.avsc"):
        client.register(*MINE)
    assert issubclass(ConfigurationError, Permanent)


def test_a_read_only_disk_costs_only_the_cache(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    text = json.dumps("string")
    client = registry(blocked, lambda request: httpx.Response(200, json={"schema": text}))
    assert client.schema(1) == text
