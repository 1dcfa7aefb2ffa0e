"""Live values: never silently old, never missing, never twice."""

import json
import re
import time

import pytest
from playwright.sync_api import expect

MACHINE = "probe-1"


@pytest.fixture
def probe(site):
    site.enrol(MACHINE)
    site.feel(MACHINE)
    yield MACHINE
    site.forget(MACHINE)


def status(page):
    return page.locator(".connection")


def test_a_cut_connection_shows_within_five_seconds_and_comes_back_by_itself(site, open_page):
    page = open_page("/", expected=("WebSocket",))
    expect(status(page)).to_contain_text("live")
    with site.api_frozen():
        cut = time.monotonic()
        expect(page.locator(".connection-note")).to_contain_text("Connection lost", timeout=6_000)
        assert time.monotonic() - cut <= 5.0
        expect(status(page)).to_contain_text("connection lost")
    expect(status(page)).to_have_text(re.compile("live"), timeout=10_000)
    expect(page.locator(".connection-note")).to_have_count(0)


def test_no_reading_is_missing_and_none_comes_twice_over_a_cut(site, open_page, probe):
    page = open_page(f"/machines/{probe}", expected=("WebSocket",))
    expect(status(page)).to_contain_text("live")
    site.send(probe, "power", [10.0] * 20)
    sensor = page.locator(".sensors li", has_text="Drive power")
    expect(sensor).to_contain_text("10")
    with site.api_frozen():
        expect(status(page)).to_contain_text("lost", timeout=6_000)
        site.send(probe, "power", [11.0] * 30)
    expect(sensor).to_contain_text("11")
    site.send(probe, "power", [12.0] * 5)
    expect(sensor).to_contain_text("12")
    page.get_by_role("navigation").get_by_role("link", name="System").click()
    expect(page.locator("[data-name=readings]")).to_have_text("55")


def test_a_tab_in_the_background_costs_nothing_and_resumes(site, open_page, probe):
    page = open_page(None)
    page.clock.install()
    sockets, asked = [], []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 - a method of list has no room for its mark
    page.goto(site.address(f"/machines/{probe}"))
    expect(status(page)).to_contain_text("live")
    _hide(page, hidden=True)
    expect(status(page)).to_contain_text("not connected")
    known = len(sockets)
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(10 * 60_000)
    assert asked == []
    assert len(sockets) == known
    assert all(socket.is_closed() for socket in sockets)
    site.send(probe, "power", [13.0])
    _hide(page, hidden=False)
    expect(status(page)).to_contain_text("live")
    expect(page.locator(".sensors li", has_text="Drive power")).to_contain_text("13")


def _hide(page, *, hidden):
    page.evaluate(
        """hidden => {
            const state = hidden ? 'hidden' : 'visible';
            Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});
            Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
            document.dispatchEvent(new Event('visibilitychange', {bubbles: true}));
        }""",
        hidden,
    )


def test_quality_and_age_stand_beside_every_reading(site, open_page, probe):
    page = open_page(f"/machines/{probe}")
    expect(status(page)).to_contain_text("live")
    sensor = page.locator(".sensors li", has_text="Housing temperature")
    site.send(probe, "temperature", [46.0])
    expect(sensor).to_contain_text(re.compile(r"46.*good · \d+\u202fs"))
    site.send(probe, "temperature", [47.0], quality=2)
    expect(sensor).to_contain_text(re.compile(r"47.*bad · \d+\u202fs"))


def test_a_clock_that_is_off_is_told(site, open_page):
    page = open_page(None)
    page.clock.install(time=time.time() - 120)
    page.goto(site.address("/"))
    expect(page.get_by_text(re.compile("clock is 1(19|20|21)\u202fs behind"))).to_be_visible()


def test_malformed_frames_are_counted_and_harm_nothing(site, open_page):
    page = open_page(None)
    nonsense = ["{", "[]", "null", json.dumps({"v": 2, "type": "readings"}), "\x00"]

    def between(socket):
        server = socket.connect_to_server()

        def forward(message):
            socket.send(message)
            for text in nonsense:
                socket.send(text)
            socket.send(json.dumps({"v": 1, "type": "readings", "machines": [{"batches": 3}]}))
            nonsense.clear()

        server.on_message(forward)

    page.route_web_socket(re.compile("/telemetry$"), between)
    page.goto(site.address("/system"))
    expect(page.locator("[data-name=malformed]")).to_have_text("5")
    expect(status(page)).to_contain_text("live")
