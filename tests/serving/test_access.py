from __future__ import annotations

import inspect
import re
import time
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from aegisops.settings import Settings
from aegisops.tokens import mint
from serving import routes
from serving.auth import Authenticator, make_verifier
from serving.problem import Problem
from tests.serving.conftest import SOUND, Fleet, Running, running

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

OPEN = {"/api/v1/system/status", "/api/v1/auth/config", "/livez", "/readyz", "/metrics"}


async def test_every_call_without_a_token_is_a_401(api: Running) -> None:
    spec = (await api.client.get("/openapi.json")).json()
    for path, operations in spec["paths"].items():
        for method in operations:
            address = re.sub(r"{\w+}", "m", path)
            answer = await api.client.request(method, address, headers={"Authorization": ""})
            if path in OPEN:
                assert answer.status_code == 200, path
            else:
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.json()["type"] == "/api/problems/unauthenticated"


@pytest.mark.parametrize(
    "header",
    ["Basic dTpw", "Bearer", "Bearer ", "Bearer a.b.c", "bearer x y", "Bearer " + "x" * 9_000],
)
async def test_a_header_that_proves_nothing_is_a_401(api: Running, header: str) -> None:
    answer = await api.client.get("/api/v1/machines", headers={"Authorization": header})
    assert answer.status_code == 401
    assert "x" * 100 not in answer.text


async def test_an_expired_token_is_a_401_with_the_way_out(api: Running, settings: Settings) -> None:
    old = mint(settings, "a", "admin", now=time.time() - 7_200, lifetime_seconds=3_600)
    answer = await api.client.get("/api/v1/machines", headers={"Authorization": f"Bearer {old}"})
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


async def test_a_remembered_token_expires_too(settings: Settings) -> None:
    now = time.time()
    clock = [now]
    authenticator = Authenticator(make_verifier(settings), lambda: clock[0])
    header = f"Bearer {mint(settings, 'a', 'viewer', lifetime_seconds=60, now=now)}"
    assert authenticator.principal(header) is authenticator.principal(header)
    clock[0] += 70
    with pytest.raises(Problem, match="expired"):
        authenticator.principal(header)


async def test_a_viewer_may_look_but_not_predict(settings: Settings, fleet: Fleet) -> None:
    fleet.add("m", SOUND)
    async with running(settings, "viewer") as api:
        assert (await api.client.get("/api/v1/health/m")).status_code == 200
        answer = await api.predict("m")
        assert answer.status_code == 403
        assert answer.json()["required_role"] == "operator"
        batch = await api.client.post("/api/v1/predict/batch", json={"all": True})
        assert batch.status_code == 403
        assert (await api.client.post("/api/v1/feedback", json={})).status_code == 403
        assert api.outbox.depth == 0


async def test_a_token_sees_only_the_machines_of_its_areas(
    settings: Settings, fleet: Fleet, promoted: Path
) -> None:
    fleet.add("mine", SOUND, area="A")
    fleet.add("theirs", SOUND, area="B")
    async with running(settings, "operator", areas=["A"]) as api:
        listed = (await api.client.get("/api/v1/machines")).json()["machines"]
        assert [m["machine_id"] for m in listed] == ["mine"]
        assert (await api.predict("mine")).status_code == 200
        for hidden in (
            await api.predict("theirs"),
            await api.client.get("/api/v1/health/theirs"),
        ):
            assert hidden.status_code == 404
            assert hidden.json()["detail"] == "machine 'theirs' is not registered"
        both = await api.client.post(
            "/api/v1/predict/batch", json={"machine_ids": ["mine", "theirs"]}
        )
        assert [("problem" in row) for row in both.json()] == [False, True]
        every = await api.client.post("/api/v1/predict/batch", json={"all": True})
        assert [row["machine_id"] for row in every.json()] == ["mine"]


async def test_answers_carry_security_headers(api: Running) -> None:
    for path in ("/api/v1/machines", "/api/docs", "/nowhere"):
        headers = (await api.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


async def test_every_route_under_the_api_is_documented(api: Running) -> None:
    spec = (await api.client.get("/openapi.json")).json()
    assert {"GET", "POST"} == {
        m.upper() for operations in spec["paths"].values() for m in operations
    }
    modules = [m for _, m in inspect.getmembers(routes, inspect.ismodule) if hasattr(m, "router")]
    declared = {
        route.path
        for module in modules
        for route in module.router.routes
        if isinstance(route, APIRoute)
        and route.include_in_schema
        and module.router.include_in_schema
    }
    assert {"/predict", "/alarms/{alarm_id}/shelve", "/work-orders"} <= declared
    assert {f"/api/v1{path}" for path in declared} <= spec["paths"].keys()


async def test_a_wrong_method_is_told_the_right_ones(api: Running) -> None:
    for path, allowed in (("/predict", "POST"), ("/work-orders", "GET, POST"), ("/sites", "GET")):
        answer = await api.client.request("DELETE", f"/api/v1{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.json()["type"] == "/api/problems/method-not-allowed"
    assert (await api.client.get("/api/v1/nothing")).status_code == 404


@pytest.mark.parametrize("moment", ["0.5", "1772420927", "nan"])
async def test_a_number_is_no_time(api: Running, moment: str) -> None:
    answer = await api.client.get("/api/v1/alarms/journal", params={"to": moment})
    assert answer.status_code == 422
    assert "ISO 8601" in answer.json()["detail"]
