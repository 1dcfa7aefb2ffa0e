from __future__ import annotations

import csv
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fastavro
import orjson
import polars as pl
import pytest

from aegisops.lake import Lake
from aegisops.names import FEEDBACK_TOPIC, WORK_ORDERS_TOPIC
from aegisops.online_store import connect
from aegisops.schemas import avro
from aegisops.schemas.tables import WORK_ORDERS
from aegisops.settings import Settings, WorkOrderSettings
from serving.console_contract import WorkOrder, WorkOrders
from serving.work_orders import as_csv
from tests.serving.conftest import WORN, Fleet, Running, running

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

BODY = {"machine_id": "m", "title": "Replace the front bearing", "idempotency_key": "draft-0001"}


@pytest.fixture(autouse=True)
def machines(fleet: Fleet) -> None:
    fleet.add("m", WORN)
    fleet.add("theirs", WORN, area="B")


async def draft(api: Running, code: int = 201, **more: Any) -> dict[str, Any]:
    answer = await api.client.post("/api/v1/work-orders", json=BODY | more)
    assert answer.status_code == code, answer.text
    return dict(answer.json())


def journal(api: Running) -> list[dict[str, Any]]:
    schema = avro.contract(WORK_ORDERS_TOPIC).schema
    return [
        fastavro.schemaless_reader(io.BytesIO(value), schema, None)  # type: ignore[misc]
        for topic, _, value in api.recorder.sent
        if topic == WORK_ORDERS_TOPIC
    ]


async def test_a_draft_is_there_at_once_and_in_the_journal(api: Running) -> None:
    made = WorkOrder.model_validate(await draft(api, priority=2, procedure="SP-BRG-04"))
    assert made.state == "draft"
    assert made.created_by == "tester"
    assert made.delivery.webhook == "off"
    listed = await api.client.get("/api/v1/work-orders?state=draft&machine_id=m")
    assert WorkOrders.model_validate_json(listed.content).work_orders == [made]
    one = await api.client.get(f"/api/v1/work-orders/{made.work_order_id}")
    assert WorkOrder.model_validate_json(one.content) == made
    await api.until(lambda: len(journal(api)) == 1)
    record = journal(api)[0]
    assert (record["work_order_id"], record["version"]) == (made.work_order_id, 1)
    assert orjson.loads(record["snapshot"])["title"] == BODY["title"]


async def test_the_same_draft_twice_is_one_order_in_every_process(
    settings: Settings, api: Running
) -> None:
    first = await draft(api)
    assert await draft(api, 200) == first
    async with running(settings) as other:
        assert await draft(other, 200) == first
        await draft(other, 409, title="Something else")
    await api.until(lambda: api.outbox.depth == 0)
    assert len(journal(api)) == 1


async def test_an_order_carries_the_prediction_it_is_about_to_its_label(api: Running) -> None:
    prediction = (await api.predict("m")).json()["prediction_id"]
    made = await draft(api, prediction_id=prediction)
    address = f"/api/v1/work-orders/{made['work_order_id']}/outcome"
    told = {"outcome": "confirmed", "failure_mode": "bearing_wear", "comment": "pitting"}
    answer = await api.client.post(address, json=told)
    closed = WorkOrder.model_validate_json(answer.content)
    assert (closed.state, closed.outcome, closed.comment) == ("closed", "confirmed", "pitting")
    assert (await api.client.post(address, json=told)).json()["version"] == closed.version
    other = await api.client.post(address, json={"outcome": "false_alarm"})
    assert other.status_code == 409
    await api.until(lambda: api.outbox.depth == 0)
    feedback = [value for topic, _, value in api.recorder.sent if topic == FEEDBACK_TOPIC]
    assert len(feedback) == 1, "the outcome is reported once"
    schema = avro.contract(FEEDBACK_TOPIC).schema
    record = fastavro.schemaless_reader(io.BytesIO(feedback[0]), schema, None)
    assert (record["prediction_id"], record["outcome"]) == (prediction, "confirmed")  # type: ignore[index, call-overload]
    assert [r["state"] for r in journal(api)] == ["draft", "closed"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"title": ""}, 422),
        ({"title": "x" * 201}, 422),
        ({"priority": 0}, 422),
        ({"idempotency_key": "short"}, 422),
        ({"idempotency_key": "new\nline-key"}, 422),
        ({"unknown": 1}, 422),
        ({"machine_id": "theirs"}, 404),
        ({"machine_id": "nobody"}, 404),
        ({"alarm_id": "vibration_high:m"}, 404),
    ],
)
async def test_a_draft_that_does_not_fit_is_refused(
    settings: Settings, promoted: Path, more: dict[str, Any], code: int
) -> None:
    client = connect(settings.redis)
    client.set("{alarms}:epoch", "1")
    client.close()
    async with running(settings, areas=["A"]) as api:
        await draft(api, code, **more)
        assert (await api.client.get("/api/v1/work-orders")).json()["work_orders"] == []


async def test_viewers_see_and_only_operators_change(settings: Settings, api: Running) -> None:
    made = await draft(api)
    async with running(settings, "viewer") as viewer:
        assert len((await viewer.client.get("/api/v1/work-orders")).json()["work_orders"]) == 1
        await draft(viewer, 403)
        address = f"/api/v1/work-orders/{made['work_order_id']}/outcome"
        assert (await viewer.client.post(address, json={"outcome": "unknown"})).status_code == 403
    async with running(settings, areas=["B"]) as elsewhere:
        assert (await elsewhere.client.get("/api/v1/work-orders")).json()["work_orders"] == []
        hidden = await elsewhere.client.get(f"/api/v1/work-orders/{made['work_order_id']}")
        assert hidden.status_code == 404
        address = f"/api/v1/work-orders/{made['work_order_id']}/outcome"
        assert (
            await elsewhere.client.post(address, json={"outcome": "unknown"})
        ).status_code == 404


async def test_orders_export_as_csv_that_a_spreadsheet_does_not_run(api: Running) -> None:
    made = await draft(api, title='=HYPERLINK("http://x","y")', description='a,\n"b"')
    for path in (
        "/api/v1/work-orders?format=csv",
        f"/api/v1/work-orders/{made['work_order_id']}?format=csv",
    ):
        answer = await api.client.get(path)
        assert answer.headers["content-type"].startswith("text/csv")
        assert "attachment" in answer.headers["content-disposition"]
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [r["work_order_id"] for r in rows] == [made["work_order_id"]]
        assert rows[0]["title"].startswith("'=HYPERLINK")
        assert rows[0]["description"] == 'a,\n"b"'
    assert as_csv([]).startswith("work_order_id,")


async def test_an_emptied_redis_is_filled_from_the_journal(
    settings: Settings, api: Running
) -> None:
    made = await draft(api)
    await api.client.post(
        f"/api/v1/work-orders/{made['work_order_id']}/outcome", json={"outcome": "unknown"}
    )
    await api.until(lambda: len(journal(api)) == 2)
    source = {"_topic": "t", "_partition": 0, "_index": 0, "_ingested_at": datetime.now(UTC)}
    rows = [r | source | {"_offset": i} for i, r in enumerate(journal(api))]
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("changed_at").cast(pl.Datetime("us", "UTC"))
    )
    dated = frame.with_columns(date=pl.col("changed_at").dt.date())
    Lake(settings.lake_root).append(WORK_ORDERS, dated)
    client = connect(settings.redis)
    client.flushdb()
    client.close()
    listed = (await api.client.get("/api/v1/work-orders")).json()["work_orders"]
    assert [(o["work_order_id"], o["state"]) for o in listed] == [(made["work_order_id"], "closed")]


# --- webhook --------------------------------------------------------------------------------------


@dataclass
class Receiver:
    """A maintenance system that answers as told."""

    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    url: str = ""


@contextmanager
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.got.append((dict(self.headers), orjson.loads(body)))
            self.send_response(state.answers.pop(0) if state.answers else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/work-orders"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def with_webhook(settings: Settings, url: str) -> Settings:
    hook = WorkOrderSettings.model_validate({"webhook_url": url, "webhook_token": "s3cret"})
    return settings.model_copy(update={"work_orders": hook})


async def delivered(api: Running, work_order_id: str) -> WorkOrder:
    """One round of the delivery that runs in the background, now."""
    api.service.delivery._not_before.clear()
    await api.service.delivery.round()
    answer = await api.client.get(f"/api/v1/work-orders/{work_order_id}")
    return WorkOrder.model_validate_json(answer.content)


async def test_the_webhook_gets_draft_and_outcome_once_each(settings: Settings) -> None:
    with receiver() as hook:
        async with running(with_webhook(settings, hook.url)) as api:
            made = await draft(api)
            assert made["delivery"]["webhook"] == "queued"
            sent = await delivered(api, made["work_order_id"])
            assert (sent.delivery.webhook, sent.delivery.attempts) == ("delivered", 1)
            await delivered(api, made["work_order_id"])
            address = f"/api/v1/work-orders/{made['work_order_id']}/outcome"
            await api.client.post(address, json={"outcome": "prevented"})
            await delivered(api, made["work_order_id"])
        events = [body["event"] for _, body in hook.got]
        assert events == ["work_order.draft", "work_order.closed"]
        headers = {k.lower(): v for k, v in hook.got[0][0].items()}
        assert headers["authorization"] == "Bearer s3cret"
        assert headers["idempotency-key"] == f"{made['work_order_id']}-draft"
        assert "mark" not in hook.got[0][1]["work_order"]


async def test_a_webhook_that_is_busy_is_tried_again_and_a_refusal_is_final(
    settings: Settings,
) -> None:
    with receiver() as hook:
        hook.answers = [503, 429, 200, 400]
        async with running(with_webhook(settings, hook.url)) as api:
            made = await draft(api)
            identity = made["work_order_id"]
            for expected in ("queued", "queued", "delivered"):
                assert (await delivered(api, identity)).delivery.webhook == expected
            refused = await draft(api, idempotency_key="draft-0002")
            found = await delivered(api, refused["work_order_id"])
            assert found.delivery.webhook == "failed"
            assert "400" in (found.delivery.detail or "")
        assert len(hook.got) == 4
        assert len({h["Idempotency-Key"] for h, _ in hook.got[:3]}) == 1


async def test_a_webhook_that_is_away_does_not_hold_up_drafts(settings: Settings) -> None:
    async with running(with_webhook(settings, "http://127.0.0.1:1/none")) as api:
        started = time.perf_counter()
        made = await draft(api)
        assert time.perf_counter() - started < 2
        found = await delivered(api, made["work_order_id"])
        assert found.delivery.webhook == "queued"
        assert "does not answer" in (found.delivery.detail or "")
        assert "s3cret" not in (found.delivery.detail or "")
