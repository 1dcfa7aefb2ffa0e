from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from aegisops.settings import OidcSettings, Settings
from tests.serving.conftest import Running, running

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
def built(api: Running, tmp_path: Path) -> Path:
    folder = tmp_path / "console"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Mission Control</title>")
    (folder / "assets" / "main-1a2b3c.js").write_text("console.log(1)" * 100)
    (folder / "favicon.svg").write_text("<svg/>")
    (tmp_path / "secret.txt").write_text("the key under the mat")
    api.client._transport.app.state.console_folder = folder  # type: ignore[attr-defined]
    return folder


async def test_every_page_is_the_index(api: Running, built: Path) -> None:
    for path in ("/", "/machines/spindle-007", "/alarms", "/machines/pump.01", "/apiary"):
        answer = await api.client.get(path)
        assert answer.status_code == 200, path
        assert "Mission Control" in answer.text
        assert answer.headers["cache-control"] == "no-cache"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"


async def test_assets_are_kept_for_ever_and_sent_small(api: Running, built: Path) -> None:
    answer = await api.client.get("/assets/main-1a2b3c.js")
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < 200
    plain = await api.client.get("/assets/main-1a2b3c.js", headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content
    again = await api.client.get("/", headers={"If-None-Match": "x"})
    known = await api.client.get("/", headers={"If-None-Match": again.headers["etag"]})
    assert known.status_code == 304
    assert gzip  # the client unpacked it


async def test_a_new_build_is_seen_at_once(api: Running, built: Path) -> None:
    await api.client.get("/")
    (built / "index.html").write_text("<!doctype html><title>Newer build</title>")
    assert "Newer build" in (await api.client.get("/")).text


@pytest.mark.parametrize(
    "path", ["/assets/gone.js", "/robots.txt", "/api/v1/nothing", "/api", "/a%00b.js", "/livez/x"]
)
async def test_what_is_not_there_is_a_404(api: Running, built: Path, path: str) -> None:
    answer = await api.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["/..%2fsecret.txt", "/assets/..%2f..%2fsecret.txt", "/x/%2e%2e/%2e%2e/secret.txt"]
)
async def test_nothing_outside_the_folder_is_sent(api: Running, built: Path, path: str) -> None:
    assert "under the mat" not in (await api.client.get(path)).text


async def test_before_the_build_the_page_says_how_to_build(api: Running, tmp_path: Path) -> None:
    api.client._transport.app.state.console_folder = tmp_path / "none"  # type: ignore[attr-defined]
    answer = await api.client.get("/")
    assert answer.status_code == 503
    assert "make console" in answer.text
    assert "/api/docs" in answer.text


async def test_the_console_may_call_its_sign_in_provider_and_nobody_else(
    settings: Settings,
) -> None:
    oidc = OidcSettings(issuer="https://login.example/realms/plant")
    async with running(settings.model_copy(update={"oidc": oidc})) as api:
        policy = (await api.client.get("/")).headers["content-security-policy"]
        assert "connect-src 'self' https://login.example;" in policy
        other = (await api.client.get("/api/v1/machines")).headers["content-security-policy"]
        assert "login.example" not in other


async def test_only_get_reaches_the_console(api: Running, built: Path) -> None:
    answer = await api.client.post("/machines/x")
    assert answer.status_code == 405
