"""Models, drift and handover over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from aegisops.lake import Lake
from aegisops.online_store import connect
from aegisops.schemas.tables import DRIFT, MODEL_DECISIONS
from aegisops.settings import Settings
from serving.console_contract import Drift, Handover, Models, ReportTicket
from tests.serving.conftest import SOUND, WORN, Fleet, Running, running, write_bundle

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

NOW = datetime.now(UTC)


def decide(settings: Settings, version: str, decision: str, ago: timedelta) -> None:
    row = {
        "decided_at": NOW - ago, "machine_class": "cnc_spindle", "model_version": version,
        "model_digest": "d", "decision": decision, "decided_by": "run", "reason": "checks",
        "evidence": "{}",
    }  # fmt: skip
    Lake(settings.lake_root).append(MODEL_DECISIONS, pl.DataFrame([row]))


def drifted(settings: Settings, machines: list[str]) -> Path:
    """A drift report with one drifted input, and its page."""
    rows: list[dict[str, Any]] = [
        {
            "run_id": run, "checked_at": NOW - timedelta(days=age), "machine_class": "cnc_spindle",
            "kind": "data", "feature": feature, "value": value, "threshold": 0.2,
            "drifted": value > 0.2, "verdict": "drifted" if value > 0.2 else "steady",
            "machines": machines, "doubtful_modes": ["bearing_wear"], "reference_rows": 100,
            "current_rows": 50, "current_from": NOW - timedelta(days=7), "current_until": NOW,
            "report": "2026-03-02",
        }
        for run, age, feature, value in (
            ("old", 9, "vibration_rms_1h", 9.0),
            ("new", 1, "temperature_mean_1h", 0.05),
            ("new", 1, "vibration_rms_1h", 0.7),
        )
    ]  # fmt: skip
    Lake(settings.lake_root).append(DRIFT, pl.DataFrame(rows))
    page = settings.drift_reports_dir / "cnc_spindle" / "2026-03-02.html"
    page.parent.mkdir(parents=True)
    page.write_text("<script>alert(document.cookie)</script>")
    return page


async def test_models_are_told_with_their_decisions_and_what_waits(
    settings: Settings, api: Running
) -> None:
    decide(settings, "1", "promoted", timedelta(days=2))
    decide(settings, "0", "refused", timedelta(days=3))
    answer = await api.client.get("/api/v1/models")
    assert answer.status_code == 200, answer.text
    found = Models.model_validate_json(answer.content)
    spindle = next(m for m in found.models if m.machine_class == "cnc_spindle")
    other = next(m for m in found.models if m.machine_class != "cnc_spindle")
    assert spindle.rung == "production"
    assert spindle.production is not None
    assert spindle.production.version == "1"
    assert spindle.production.promoted_at is not None
    assert [d.decision for d in spindle.history] == ["promoted", "refused"]
    assert spindle.candidate is None
    assert spindle.shadow_comparison is None
    assert other.production is None
    assert other.rung == "thresholds"
    newer = write_bundle(settings, version="2") / "manifest.json"
    newer.write_text(newer.read_text().replace("2026-01-01", "2026-02-01"))
    found = Models.model_validate_json((await api.client.get("/api/v1/models")).content)
    waiting = next(m for m in found.models if m.machine_class == "cnc_spindle").candidate
    assert waiting is not None
    assert waiting.version == "2"


async def test_drift_is_the_newest_report_and_names_only_machines_one_may_see(
    settings: Settings, fleet: Fleet
) -> None:
    fleet.add("mine", SOUND, area="A")
    fleet.add("theirs", SOUND, area="B")
    drifted(settings, ["theirs", "mine"])
    async with running(settings, "viewer", areas=["A"]) as api:
        answer = await api.client.get("/api/v1/models/cnc_spindle/drift")
        found = Drift.model_validate_json(answer.content)
        assert [f.feature for f in found.features] == ["vibration_rms_1h", "temperature_mean_1h"]
        assert found.is_drifting
        assert found.has_report
        assert found.features[0].machines == ["mine"]
        assert "theirs" not in answer.text
        ticket = await api.client.post("/api/v1/models/cnc_spindle/drift/report-ticket")
        assert ticket.status_code == 403
        nothing = Drift.model_validate_json(
            (await api.client.get("/api/v1/models/azure_pdm/drift")).content
        )
        assert nothing.checked_at is None
        assert (await api.client.get("/api/v1/models/unknown/drift")).status_code == 404


async def test_the_report_opens_in_a_frame_with_a_ticket_and_can_reach_nothing(
    settings: Settings, api: Running
) -> None:
    page = drifted(settings, [])
    address = "/api/v1/models/cnc_spindle/drift/report"
    made = await api.client.post(f"{address}-ticket")
    ticket = ReportTicket.model_validate_json(made.content)
    framed = await api.client.get(ticket.url, headers={"Authorization": ""})
    assert framed.text == page.read_text()
    policy = framed.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "x-frame-options" not in framed.headers
    for wrong in (address, f"{address}?ticket=x", ticket.url.replace("cnc_spindle", "azure_pdm")):
        refused = await api.client.get(wrong)
        assert refused.status_code == 404
    client = connect(settings.redis)
    client.flushdb()
    client.close()
    assert (await api.client.get(ticket.url)).status_code == 404


async def test_the_handover_holds_what_the_next_shift_must_know(
    settings: Settings, api: Running, fleet: Fleet
) -> None:
    fleet.add("worn", WORN)
    fleet.add("sound", SOUND)
    for name in ("worn", "sound"):
        await api.predict(name)
    await api.service.latest.flush()
    decide(settings, "1", "promoted", timedelta(hours=1))
    decide(settings, "0", "promoted", timedelta(days=3))
    order = {"machine_id": "worn", "title": "Bearing", "idempotency_key": "handover-1"}
    await api.client.post("/api/v1/work-orders", json=order)
    answer = await api.client.get("/api/v1/handover")
    assert answer.status_code == 200, answer.text
    found = Handover.model_validate_json(answer.content)
    assert [m.machine_id for m in found.abnormal_machines] == ["worn"]
    assert [d.version for d in found.model_changes] == ["1"]
    assert [o.title for o in found.work_orders] == ["Bearing"]
    assert found.until - found.since == timedelta(hours=8)
    # No engine has run here: that there is no list is said, it is not an empty list of alarms.
    assert [n.partition(":")[0] for n in found.notices] == ["alarms"]


SCOPED = [
    ("GET", "/machines"),
    ("GET", "/sites"),
    ("GET", "/machines/theirs"),
    ("GET", "/machines/theirs/history?channel=temperature"),
    ("GET", "/machines/theirs/events"),
    ("GET", "/machines/theirs/predictions"),
    ("GET", "/health/theirs"),
    ("GET", "/work-orders"),
    ("GET", "/work-orders?format=csv"),
    ("GET", "/work-orders/{order}"),
    ("POST", "/work-orders/{order}/outcome"),
    ("GET", "/predictions/{prediction}"),
    ("POST", "/predictions/{prediction}/replay"),
    ("GET", "/handover"),
    ("GET", "/models/cnc_spindle/drift"),
    ("GET", "/models"),
    ("GET", "/alarms"),
    ("GET", "/system/status"),
]


async def test_a_token_of_one_site_sees_nothing_of_another_in_any_answer(
    settings: Settings, fleet: Fleet, promoted: Path
) -> None:
    """`theirs` is worn, predicted, has an order and drifts; a token of area A hears of none."""
    fleet.add("theirs", WORN, area="B")
    fleet.add("mine", SOUND, area="A")
    drifted(settings, ["theirs"])
    async with running(settings, "engineer") as api:
        prediction = (await api.predict("theirs")).json()["prediction_id"]
        await api.service.latest.flush()
        body = {"machine_id": "theirs", "title": "theirs", "idempotency_key": "scope-test"}
        order = (await api.client.post("/api/v1/work-orders", json=body)).json()["work_order_id"]
    async with running(settings, "engineer", areas=["A"]) as api:
        for method, path in SCOPED:
            address = path.format(order=order, prediction=prediction)
            body = {"outcome": "unknown"} if method == "POST" else None
            answer = await api.client.request(method, f"/api/v1{address}", json=body)
            if "theirs" in path or "{" in path:
                # What it named itself may come back, in the words for what does not exist.
                assert answer.status_code == 404, (path, answer.text)
                nobody = address.replace("theirs", "nobody")
                same = await api.client.request(method, f"/api/v1{nobody}", json=body)
                assert same.text == answer.text.replace("theirs", "nobody")
            else:
                assert "theirs" not in answer.text, (path, answer.text)
        spec = (await api.client.get("/openapi.json")).json()["paths"]
        covered = {path.partition("?")[0].replace("theirs", "{machine_id}") for _, path in SCOPED}
        covered = {p.replace("{order}", "{work_order_id}") for p in covered}
        covered = {p.replace("{prediction}", "{prediction_id}") for p in covered}
        covered = {p.replace("cnc_spindle", "{machine_class}") for p in covered}
        elsewhere = {  # tested beside their own endpoints, or they tell of no machine
            "/predict", "/predict/batch", "/feedback", "/telemetry", "/telemetry/stream",
            "/machine-classes", "/auth/config", "/auth/me",
            "/models/{machine_class}/drift/report-ticket",
        }  # fmt: skip
        every = {p.removeprefix("/api/v1") for p in spec if p.startswith("/api/v1")}
        missing = {p for p in every if not p.startswith("/alarms")} - covered - elsewhere
        assert not missing, "add new endpoints to SCOPED"
