"""Signing in: by a token in the fragment, by a pasted one, again after it ended."""

import re
import time

from playwright.sync_api import expect


def test_a_token_in_the_address_signs_in_and_leaves_it_at_once(site, open_page):
    page = open_page("/alarms")
    expect(page.get_by_role("button", name="operator-1 · operator")).to_be_visible()
    assert page.url == f"{site.url}/alarms"
    kept = page.evaluate("[history.length, Object.keys(localStorage), document.cookie]")
    assert "aegisops.token" not in kept[1]
    assert kept[2] == ""
    page.reload()
    expect(page.get_by_role("heading", name="Alarms", level=1)).to_be_visible()


def test_the_token_is_in_no_address_the_browser_asks_for(site, open_page):
    page = open_page(None)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.goto(site.address("/"))
    expect(page.locator(".connection")).to_contain_text("live")
    assert len(asked) > 3
    assert not [url for url in asked if "eyJ" in url.partition("#")[0]]


def test_without_a_token_there_is_the_sign_in_page_and_no_data(site, open_page):
    page = open_page(None)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/machines/spindle-001")
    field = page.get_by_label("Access token")
    field.fill("not a token")
    page.get_by_role("button", name="Sign in").last.click()
    expect(page.get_by_text("This is no access token")).to_be_visible()
    assert {url.rpartition("/api/v1")[2] for url in asked if "/api/" in url} == {"/auth/config"}
    field.fill(site.token())
    page.get_by_role("button", name="Sign in").last.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("spindle-001")


def test_a_token_that_ends_keeps_the_page_and_goes_on_with_the_next(site, open_page):
    # The API forgives five seconds of clock difference.
    issued = time.time() - 60
    page = open_page(
        "/", claims={"lifetime_seconds": 60 + 1, "now": issued}, expected=("401", "WebSocket")
    )
    expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
    again = page.get_by_role("alertdialog")
    expect(again).to_contain_text("Your sign-in has ended", timeout=25_000)
    expect(page.get_by_role("heading", name="Abnormal now")).to_be_visible()
    again.get_by_label("Access token").fill(site.token())
    again.get_by_role("button", name="Sign in").last.click()
    expect(again).to_be_hidden()
    expect(page.locator(".connection")).to_contain_text("live")


def test_signing_out_forgets_the_token(site, open_page):
    page = open_page("/")
    page.get_by_role("button", name="operator-1 · operator").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Access token")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_scoped_token_sees_its_area_alone(site, open_page):
    site.register("scope-1", area="Hall S")
    page = open_page("/", claims={"areas": ["Hall S"]})
    expect(page.get_by_role("link", name=re.compile("scope-1|^1:")).first).to_be_visible()
    expect(page.locator(".tile")).to_have_count(1)
    site.forget("scope-1")
