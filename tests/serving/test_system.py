from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import fastavro
import pytest

from aegisops.embedded.ports import free_port
from aegisops.errors import ServiceUnavailable
from aegisops.names import FEEDBACK_TOPIC
from aegisops.schemas import avro
from aegisops.settings import Settings
from serving.contract import FeedbackReceipt
from tests.serving.conftest import SOUND, Fleet, Running, running

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

REPORT = {
    "machine_id": "m",
    "outcome": "false_alarm",
    "failure_mode": "bearing_wear",
    "idempotency_key": "order-00042",
}


async def test_status_tells_strangers_only_that_it_is_alive(api: Running) -> None:
    answer = await api.client.get("/api/v1/system/status", headers={"Authorization": ""})
    assert answer.json() == {"status": "alive"}


async def test_status_names_the_model_and_every_dependency(api: Running) -> None:
    status = (await api.client.get("/api/v1/system/status")).json()
    assert status["status"] == "ok"
    model = next(m for m in status["models"] if m["machine_class"] == "cnc_spindle")
    assert (model["rung"], model["version"], model["refused"]) == ("production", "1", None)
    assert status["dependencies"]["online_store"]["status"] == "ok"


async def test_a_broker_away_shows_and_answers_go_on_until_the_outbox_is_full(
    settings: Settings, promoted: Path, fleet: Fleet
) -> None:
    fleet.add("m", SOUND)
    small = settings.model_copy(
        update={"api": settings.api.model_copy(update={"outbox_capacity": 3})}
    )
    async with running(small) as api:
        api.recorder.failure = ServiceUnavailable("broker away")
        answers = [await api.predict("m") for _ in range(5)]
        assert [a.status_code for a in answers] == [200, 200, 200, 503, 503]
        assert answers[-1].json()["type"] == "/api/problems/audit-unavailable"
        assert (await api.client.get("/readyz")).status_code == 503
        assert (await api.client.get("/livez")).status_code == 200
        await api.until(lambda: api.outbox.failure is not None)
        status = (await api.client.get("/api/v1/system/status")).json()
        assert status["dependencies"]["audit_log"]["status"] == "away"
        api.recorder.failure = None
        await api.records(3)
        await api.until(lambda: api.outbox.depth == 0)
        assert (await api.predict("m")).status_code == 200


async def test_feedback_is_kept_once_per_key(api: Running, fleet: Fleet) -> None:
    fleet.add("m", SOUND)
    answers = [await api.client.post("/api/v1/feedback", json=REPORT) for _ in range(3)]
    assert [a.status_code for a in answers] == [202] * 3
    receipts = [FeedbackReceipt.model_validate_json(a.content) for a in answers]
    assert [r.is_repeat for r in receipts] == [False, True, True]
    other = await api.client.post("/api/v1/feedback", json=REPORT | {"outcome": "confirmed"})
    assert other.status_code == 409
    await api.until(lambda: len(api.recorder.sent) > 0)
    ((topic, key, body),) = api.recorder.sent
    record = fastavro.schemaless_reader(io.BytesIO(body), avro.contract(topic).schema, None)
    assert (topic, key) == (FEEDBACK_TOPIC, "m")
    assert isinstance(record, dict)
    assert record["feedback_id"] == "order-00042"
    assert record["outcome"] == "false_alarm"
    assert record["subject"] == "tester"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"outcome": "fine"}, 422),
        ({"failure_mode": "gremlins"}, 422),
        ({"idempotency_key": "short"}, 422),
        ({"idempotency_key": "with\nnewline"}, 422),
        ({"machine_id": "nobody"}, 404),
    ],
)
async def test_feedback_outside_the_vocabulary_is_refused(
    api: Running, fleet: Fleet, change: dict[str, str], status: int
) -> None:
    fleet.add("m", SOUND)
    answer = await api.client.post("/api/v1/feedback", json=REPORT | change)
    assert answer.status_code == status
    assert api.outbox.depth == 0


async def test_the_reference_page_needs_nothing_from_the_internet(api: Running) -> None:
    page = await api.client.get("/api/docs")
    assert page.status_code == 200
    for name in ("docs.js", "docs.css"):
        assert f"/api/docs/{name}" in page.text
        asset = await api.client.get(f"/api/docs/{name}")
        assert asset.status_code == 200
        assert "http://" not in asset.text
        assert "https://" not in asset.text
    assert "https://" not in page.text
    assert (await api.client.get("/api/docs/%2e%2e%2fapp.py")).status_code == 404


WITHOUT_BODY = ("/replay", "/report-ticket")


async def test_every_operation_of_the_contract_has_a_summary_and_every_body_an_example(
    api: Running,
) -> None:
    spec = (await api.client.get("/openapi.json")).json()
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            if method == "post" and not path.endswith(WITHOUT_BODY):
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                model = spec["components"]["schemas"][schema["$ref"].split("/")[-1]]
                assert model["examples"]


async def test_every_reference_of_the_contract_leads_somewhere(api: Running) -> None:
    spec = (await api.client.get("/openapi.json")).json()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [r for value in node.values() for r in references(value)]
        return [r for value in node for r in references(value)] if isinstance(node, list) else []

    for reference in references(spec):
        assert reference.split("/")[-1] in spec["components"]["schemas"], reference


@pytest.mark.slow
def test_the_started_api_has_none_of_the_heavy_libraries(settings: Settings) -> None:
    program = (
        "import sys\n"
        "from serving.lean_imports import import_xgboost_alone\n"
        "import_xgboost_alone()\n"
        "from aegisops.settings import Settings\n"
        "from serving.app import create_app\n"
        "from serving.service import build\n"
        "create_app(build(Settings()))\n"
        "print(' '.join(sorted(sys.modules)))\n"
    )
    environment = os.environ | {"AEGIS_DATA_DIR": str(settings.data_dir)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    loaded = set(done.stdout.split())
    assert "xgboost" in loaded
    heavy = {"mlflow", "shap", "evidently", "dagster", "deltalake", "sklearn", "pandas", "duckdb"}
    assert loaded & heavy == set()


@pytest.mark.slow
def test_a_wrong_setting_ends_the_start_with_a_message(settings: Settings) -> None:
    broken = settings.data_dir / "classes"
    broken.mkdir()
    (broken / "x.toml").write_text("name = 1")
    environment = os.environ | {
        "AEGIS_DATA_DIR": str(settings.data_dir),
        "AEGIS_CLASSES_DIR": str(broken),
        "AEGIS_API__PORT": str(free_port()),
    }
    done = subprocess.run(
        [sys.executable, "-m", "serving"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert "x.toml" in done.stderr
    assert "Traceback" not in done.stderr
