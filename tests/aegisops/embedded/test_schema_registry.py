"""The registry over HTTP, asked by our client's rules, plain HTTP and Confluent's own client."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from aegisops.embedded import ports
from aegisops.embedded.processes import Child, Processes
from aegisops.embedded.schema_registry import main
from aegisops.embedded.schema_store import SchemaStore

pytestmark = pytest.mark.integration


def record(*fields: dict[str, Any]) -> str:
    first = {"name": "a", "type": "int"}
    return json.dumps({"type": "record", "name": "R", "fields": [first, *fields]})


PLAIN = record()
WITH_DEFAULT = record({"name": "b", "type": "string", "default": ""})
WITHOUT_DEFAULT = record({"name": "b", "type": "string"})


@pytest.fixture
def http(schema_registry: str):
    with httpx.Client(base_url=schema_registry) as client:
        yield client


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name}-value"


def register(http: httpx.Client, subject: str, text: str) -> httpx.Response:
    return http.post(f"/subjects/{subject}/versions", json={"schema": text})


def error(answer: httpx.Response) -> tuple[int, int]:
    return answer.status_code, answer.json()["error_code"]


def test_registering_again_gives_the_same_id_whatever_the_spaces(http, subject):
    first = register(http, subject, PLAIN).json()["id"]
    again = json.dumps(json.loads(PLAIN), indent=2, sort_keys=True)
    assert register(http, subject, again).json() == {"id": first}
    assert register(http, f"{subject}-other", PLAIN).json() == {"id": first}
    assert http.get(f"/subjects/{subject}/versions").json() == [1]
    assert http.get(f"/schemas/ids/{first}").json() == {"schema": PLAIN}
    uses = http.get(f"/schemas/ids/{first}/versions").json()
    assert {"subject": subject, "version": 1} in uses


def test_versions_are_found_by_number_latest_and_content(http, subject):
    one = register(http, subject, PLAIN).json()["id"]
    two = register(http, subject, WITH_DEFAULT).json()["id"]
    assert two > one
    latest = {"subject": subject, "version": 2, "id": two, "schema": WITH_DEFAULT}
    assert http.get(f"/subjects/{subject}/versions/latest").json() == latest
    assert http.get(f"/subjects/{subject}/versions/2").json() == latest
    assert http.get(f"/subjects/{subject}/versions/1/schema").text == PLAIN
    assert http.post(f"/subjects/{subject}", json={"schema": PLAIN}).json()["version"] == 1
    assert subject in http.get("/subjects").json()


def test_what_could_not_read_the_older_messages_is_refused_with_the_field(http, subject):
    register(http, subject, PLAIN)
    answer = register(http, subject, WITHOUT_DEFAULT)
    assert error(answer) == (409, 409)
    assert "reader_field_missing_default_value at /fields/1 (b)" in answer.json()["message"]
    url = f"/compatibility/subjects/{subject}/versions/latest"
    assert http.post(url, json={"schema": WITH_DEFAULT}).json() == {"is_compatible": True}
    asked = http.post(url, params={"verbose": True}, json={"schema": WITHOUT_DEFAULT}).json()
    assert not asked["is_compatible"]
    assert len(asked["messages"]) == 1


@pytest.mark.parametrize(
    ("level", "then", "taken"),
    [
        ("NONE", WITHOUT_DEFAULT, True),
        ("FORWARD", WITHOUT_DEFAULT, True),
        ("FULL", WITHOUT_DEFAULT, False),
        ("FULL", WITH_DEFAULT, True),
        ("BACKWARD", WITHOUT_DEFAULT, False),
    ],
)
def test_the_level_of_a_subject_decides(http, subject, level, then, taken):
    assert error(http.get(f"/config/{subject}")) == (404, 40408)
    assert http.get(f"/config/{subject}", params={"defaultToGlobal": True}).json() == {
        "compatibilityLevel": "BACKWARD"
    }
    http.put(f"/config/{subject}", json={"compatibility": level})
    assert http.get(f"/config/{subject}").json() == {"compatibilityLevel": level}
    register(http, subject, PLAIN)
    assert register(http, subject, then).is_success == taken


def test_transitive_levels_look_at_every_version(tmp_path: Path):
    store = SchemaStore(tmp_path / "db.sqlite")
    for text in (PLAIN, WITH_DEFAULT):
        store.register("s", text)
    assert store.problems("s", "2", WITHOUT_DEFAULT) == []
    store.set_level("BACKWARD_TRANSITIVE")
    with pytest.raises(Exception, match="cannot read v1"):
        store.register("s", WITHOUT_DEFAULT)
    store.set_level("BACKWARD")
    store.register("s", WITHOUT_DEFAULT)
    store.close()


def test_ids_survive_a_restart_and_are_never_used_twice(tmp_path: Path):
    path = tmp_path / "db.sqlite"
    store = SchemaStore(path)
    ids = [store.register(f"s{i}", record({"name": f"f{i}", "type": "int"})) for i in range(3)]
    store.close()
    store = SchemaStore(path)
    assert store.text(ids[2]) == record({"name": "f2", "type": "int"})
    assert store.register("new", WITH_DEFAULT) == max(ids) + 1
    store.close()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/subjects/absent/versions", (404, 40401)),
        ("/subjects/absent/versions/1", (404, 40401)),
        ("/schemas/ids/999999", (404, 40403)),
        ("/schemas/ids/x", (422, 422)),
    ],
)
def test_what_is_not_there_has_confluents_error_code(http, path, expected):
    assert error(http.get(path)) == expected


def test_versions_schemas_and_levels_that_do_not_exist(http, subject):
    register(http, subject, PLAIN)
    assert error(http.get(f"/subjects/{subject}/versions/2")) == (404, 40402)
    assert error(http.get(f"/subjects/{subject}/versions/x")) == (422, 42202)
    assert error(http.post(f"/subjects/{subject}", json={"schema": WITH_DEFAULT})) == (404, 40403)
    assert error(http.put("/config", json={"compatibility": "SIDEWARD"})) == (422, 42203)


@pytest.mark.parametrize("text", ["{", '{"type": "nonsense"}', '{"type": "record"}', "1"])
def test_what_is_not_avro_is_refused(http, subject, text):
    assert error(register(http, subject, text)) == (422, 42201)


def test_other_formats_are_refused_by_name(http, subject):
    body = {"schema": "message M {}", "schemaType": "PROTOBUF"}
    answer = http.post(f"/subjects/{subject}/versions", json=body)
    assert error(answer) == (422, 42201)
    assert "AEGIS_REGISTRY__URL" in answer.json()["message"]


def test_confluents_own_client_works_with_it(schema_registry, subject):
    with warnings.catch_warnings(record=True):  # a dependency of its dependency is deprecated
        confluent = pytest.importorskip("confluent_kafka.schema_registry")
    schema_of = partial(confluent.Schema, schema_type="AVRO")
    with confluent.SchemaRegistryClient({"url": schema_registry}) as client:
        schema_id = client.register_schema(subject, schema_of(PLAIN))
        assert client.get_schema(schema_id).schema_str == PLAIN
        assert client.get_latest_version(subject).schema_id == schema_id
        assert client.test_compatibility(subject, schema_of(WITH_DEFAULT))
        with pytest.raises(confluent.SchemaRegistryError) as refused:
            client.register_schema(subject, schema_of(WITHOUT_DEFAULT))
        assert refused.value.http_status_code == 409


def test_a_taken_port_ends_the_command_with_a_message(http, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("AEGIS_REGISTRY__URL", str(http.base_url))
    monkeypatch.setenv("AEGIS_DATA_DIR", str(tmp_path))
    assert main(["--db", str(tmp_path / "x.sqlite")]) == 2
    assert "AEGIS_REGISTRY__URL" in capsys.readouterr().err
    assert not (tmp_path / "x.sqlite").exists()


def test_the_command_serves_at_the_settings_port_and_remembers_over_a_restart(tmp_path):
    url = f"http://{ports.LOOPBACK}:{ports.free_port()}"
    environment = {"AEGIS_REGISTRY__URL": url, "AEGIS_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "aegisops.embedded.schema_registry"]

    def ready() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(url).is_success
        return False

    ids = []
    for _ in range(2):
        with Processes(tmp_path / "logs") as processes:
            processes.start(Child("registry", command, environment, ready))
            processes.wait_ready("registry", 30)
            body = {"schema": PLAIN}
            ids.append(httpx.post(f"{url}/subjects/s/versions", json=body).json()["id"])
    assert ids[0] == ids[1]
    assert (tmp_path / "schema_registry.sqlite").exists()
