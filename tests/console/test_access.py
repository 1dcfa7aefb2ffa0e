"""Everybody can read and use every page: keys, screen reader, low vision, grey screens, paper."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

AXE = Path(__file__).resolve().parents[2] / "dashboard/node_modules/axe-core/axe.min.js"
MACHINE = "reach-1"


@pytest.fixture(scope="module")
def reach(site):
    """A machine with an alarm, a prediction and a work order, so that no page is empty."""
    site.register(MACHINE)
    site.feel(MACHINE, vibration_rms_1h=7.2)
    prediction = site.predict(MACHINE)[0]["prediction_id"]
    alarm = site.until(lambda: next(iter(site.alarms(MACHINE)), None), "the alarm")
    order = {
        "machine_id": MACHINE,
        "alarm_id": alarm["alarm_id"],
        "prediction_id": prediction,
        "title": "look at it",
        "description": "",
        "priority": 2,
        "procedure": None,
        "idempotency_key": "reach-key-1",
    }
    site.http.post("/api/v1/work-orders", json=order).raise_for_status()
    site.until(
        lambda: site.http.get(f"/api/v1/predictions/{prediction}").status_code == 200,
        "the logged prediction",
    )
    yield prediction
    site.feel(MACHINE)
    site.forget(MACHINE)


PAGES = {
    "fleet": "/",
    "area": "/areas?site=Plant%201&area=Hall%20B",
    "machine": f"/machines/{MACHINE}",
    "evidence": "/predictions/{prediction}",
    "alarms": "/alarms",
    "journal": "/alarms?list=journal",
    "master": "/alarms?list=master",
    "advisories": "/advisories",
    "work orders": "/work-orders",
    "kpi": "/kpi",
    "handover": "/handover",
    "models": "/models",
    "system": "/system",
}


def shown(page):
    expect(page.locator("main h1").first).to_be_visible()
    expect(page.locator(".loading")).to_have_count(0)


@pytest.mark.parametrize("name", PAGES)
def test_no_page_breaks_a_rule_of_accessibility(site, open_page, reach, name):
    page = open_page(PAGES[name].format(prediction=reach))
    shown(page)
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    told = [
        f"{v['id']}: {node['target']} {node['failureSummary']}"
        for v in found["violations"]
        for node in v["nodes"]
    ]
    assert told == []


def test_the_sign_in_page_breaks_none_either(site, open_page):
    page = open_page(None)
    page.goto(site.url)
    page.get_by_label("Access token").wait_for()
    page.evaluate(AXE.read_text())
    assert page.evaluate("axe.run()")["violations"] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_page_works_at_twice_the_size(site, open_page, reach, name):
    """200 % zoom of a 1,600 pixel screen leaves 800 CSS pixels."""
    page = open_page(
        PAGES[name].format(prediction=reach),
        viewport={"width": 800, "height": 500},
        device_scale_factor=2,
    )
    shown(page)
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "the page itself must not scroll sideways"
    expect(page.get_by_label("Alarm banner")).to_be_in_viewport()


def test_the_keyboard_alone_acknowledges_an_alarm(site, open_page, reach):
    page = open_page("/")
    shown(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    press_until(
        page, "Tab", lambda: page.evaluate("document.activeElement.textContent") == "Alarms"
    )
    page.keyboard.press("Enter")
    found = page.locator("tr[data-alarm]", has_text=MACHINE).first.get_attribute("data-alarm")
    row = page.locator(f"tr[data-alarm='{found}']")  # an acknowledged one moves down the list
    target = row.get_by_role("button", name="Acknowledge")
    press_until(page, "Tab", lambda: target.evaluate("e => e === document.activeElement"))
    outline = target.evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid", "what has the focus must show it"
    page.keyboard.press("Enter")
    expect(row).to_have_attribute("data-state", "acknowledged")


def press_until(page, key, condition, most=80):
    for _ in range(most):
        page.keyboard.press(key)
        if condition():
            return
    pytest.fail(f"{most} times {key} did not get there")


def test_a_menu_opens_moves_and_closes_by_keys(site, open_page, reach):
    page = open_page("/alarms")
    button = page.locator("tr[data-alarm]", has_text=MACHINE).first.get_by_role(
        "button", name="Outcome"
    )
    button.focus()
    page.keyboard.press("Enter")
    menu = page.locator("[popover]:popover-open")
    expect(menu.get_by_role("button", name=re.compile("^Confirmed"))).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(menu.get_by_role("button", name=re.compile("^Prevented"))).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_have_count(0)
    expect(button).to_be_focused()


def test_the_time_axis_moves_by_keys(site, open_page, reach):
    page = open_page(f"/machines/{MACHINE}?range=1d")
    stack = page.locator(".stack")
    stack.focus()
    page.keyboard.press("+")
    expect(page).to_have_url(re.compile("from="))
    before = page.url
    page.keyboard.press("ArrowLeft")
    expect(page).not_to_have_url(before)
    page.keyboard.press("Home")
    expect(page).not_to_have_url(re.compile("from="))


def test_priorities_differ_without_colour(site, open_page, reach):
    """Each priority has its own outline and number; grey levels are not needed to tell them."""
    page = open_page("/alarms")
    marks = page.locator(".banner-counts .priority")
    shapes = [marks.nth(i).locator("path").get_attribute("d") for i in range(4)]
    numbers = marks.locator("text").all_text_contents()
    assert len(set(shapes)) == 4
    assert numbers == ["1", "2", "3", "4"]


def test_a_grey_screen_still_tells_abnormal_from_normal(site, open_page, reach):
    """Pixels of a grey screenshot: the mark of priority 1 stands out from its ground."""
    page = open_page("/alarms")
    mark = page.locator("tr[data-alarm]", has_text=MACHINE).first.locator(".priority svg")
    levels = grey_levels(mark.screenshot())
    assert max(levels) - min(levels) > 120


def grey_levels(png):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("L").tobytes()


def test_saturated_colour_is_used_for_priorities_alone(site, open_page, reach):
    """ISA-101: the page is grey; what has colour is an alarm."""
    page = open_page("/")
    shown(page)
    coloured = page.evaluate(
        """() => {
            const saturation = text => {
                const c = (text.match(/[\\d.]+/g) ?? []).map(Number);
                if (c.length < 3 || c[3] === 0) return 0;
                const [high, low] = [Math.max(...c.slice(0, 3)), Math.min(...c.slice(0, 3))];
                return high ? (high - low) / high : 0;
            };
            const found = new Set();
            for (const e of document.querySelectorAll('body *')) {
                if (e.closest('.priority, .banner-alarm, a, input')) continue;
                const style = getComputedStyle(e);
                for (const name of ['color', 'backgroundColor', 'fill', 'stroke']) {
                    const drawn = !['fill', 'stroke'].includes(name) || e instanceof SVGElement;
                    if (drawn && saturation(style[name]) > 0.45) found.add(e.className + name);
                }
            }
            return [...found].map(String);
        }"""
    )
    assert coloured == []


def test_a_machine_report_prints_without_what_only_a_screen_needs(site, open_page, reach):
    page = open_page(f"/machines/{MACHINE}")
    shown(page)
    page.emulate_media(media="print")
    expect(page.locator("header.top")).to_be_hidden()
    expect(page.get_by_role("button", name="Print report")).to_be_hidden()
    expect(page.get_by_text(re.compile("Machine report · Printed"))).to_be_visible()
    assert page.pdf()[:4] == b"%PDF"
