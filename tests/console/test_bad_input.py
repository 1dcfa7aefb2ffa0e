"""What goes wrong is said, and the page gets over it by itself."""

import json
import re

from playwright.sync_api import expect

HOSTILE = "<img src=x onerror=alert(1)>\"'&lt;/script>"


def test_the_api_away_is_said_and_the_page_recovers(site, open_page):
    page = open_page("/system", expected=("WebSocket", "ERR_", "Failed to load"))
    expect(page.locator(".connection")).to_contain_text("live")
    site.kill_api()
    expect(page.locator(".connection")).to_contain_text("lost", timeout=6_000)
    expect(page.locator(".connection")).to_contain_text("live", timeout=40_000)
    expect(page.get_by_text("The API does not answer")).to_have_count(0, timeout=20_000)


def test_a_busy_api_is_given_the_time_it_asks_for(site, open_page):
    page = open_page(None, expected=("429",))
    refused = []

    def busy(route):
        if len(refused) < 5:
            refused.append(1)
            problem = {"type": "/api/problems/overloaded", "title": "Too many", "status": 429}
            route.fulfill(status=429, json=problem, headers={"retry-after": "1"})
        else:
            route.continue_()

    page.route(re.compile("/api/v1/machines\\?"), busy)
    page.goto(site.address("/"))
    expect(page.get_by_text("The API is busy and asked to wait 1")).to_be_visible()
    expect(page.get_by_role("heading", name="Abnormal now")).to_be_visible()


def test_hostile_names_and_comments_are_only_text(site, open_page):
    machine = "x" + HOSTILE
    site.register(machine, area=HOSTILE, owner=HOSTILE)
    site.feel(machine, vibration_rms_1h=7.7)
    alarm = site.until(lambda: next(iter(site.alarms(machine)), None), "the alarm")
    body = {"version": alarm["version"], "reason": HOSTILE, "minutes": 10}
    site.http.post(f"/api/v1/alarms/{alarm['alarm_id']}/shelve", json=body).raise_for_status()
    page = open_page("/")
    asked = []
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    row = page.locator(".abnormal tr", has_text=machine)
    expect(row).to_contain_text(HOSTILE)
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(machine)
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text(machine)
    page.goto(site.url + "/alarms?list=shelved")
    expect(page.locator("tr[data-alarm]")).to_contain_text(HOSTILE)
    assert asked == []
    assert page.locator("main img").count() == 0
    current = site.alarms(machine)[0]
    site.http.post(
        f"/api/v1/alarms/{alarm['alarm_id']}/unshelve", json={"version": current["version"]}
    )
    site.feel(machine)
    site.forget(machine)


def test_nothing_but_the_consoles_own_script_runs(site, open_page):
    page = open_page("/", expected=("Content Security Policy", "Content-Security-Policy"))
    page.evaluate(
        """() => {
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.body.append(script);
        }"""
    )
    assert page.evaluate("window.ran") is None


def test_absurd_values_are_shown_as_what_they_are(site, open_page):
    site.register("absurd-1")
    site.feel("absurd-1", vibration_rms_1h=9.9e300, temperature_mean_1h=-1e12)
    page = open_page("/machines/absurd-1")
    bars = page.locator(".limit-bar")
    expect(bars.first).to_contain_text("e+")
    box = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert box
    site.feel("absurd-1")
    site.forget("absurd-1")


def test_a_machine_without_data_says_so_and_invents_nothing(site, open_page):
    site.register("silent-1")
    page = open_page("/machines/silent-1")
    expect(page.locator(".page-head")).to_contain_text("no data")
    expect(page.locator(".risk-panel .risk")).to_contain_text("unknown")
    expect(page.locator(".risk-panel b").first).to_have_text("–")
    site.forget("silent-1")


def test_unknown_machines_predictions_and_pages_are_told(site, open_page):
    page = open_page("/machines/nobody", expected=("404",))
    expect(page.get_by_text("There is no machine nobody that you may see.")).to_be_visible()
    page.goto(site.url + "/predictions/00000000-0000-0000-0000-000000000000")
    expect(page.get_by_text("There is no such prediction")).to_be_visible()
    page.goto(site.url + "/nowhere")
    expect(page.get_by_text("There is no such page")).to_be_visible()


def test_an_answer_that_is_no_json_breaks_one_page_and_not_the_console(site, open_page):
    page = open_page(None, expected=("Failed",))
    page.route("**/api/v1/system/status", lambda route: route.fulfill(body="<html>proxy</html>"))
    page.goto(site.address("/system"))
    expect(page.get_by_role("alert").first).to_be_visible(timeout=20_000)
    page.get_by_role("navigation").get_by_role("link", name="Alarms").click()
    expect(page.get_by_role("heading", name="Alarms", level=1)).to_be_visible()


def test_ten_thousand_machines_are_areas_first(site, open_page):
    machines = [f"big-{i:05}" for i in range(10_000)]
    for hall in range(20):
        site.register(*machines[hall::20], area=f"Hall {hall:02}")
    page = open_page("/")
    expect(page.get_by_text(re.compile("are too many for one screen"))).to_be_visible(
        timeout=30_000
    )
    expect(page.get_by_role("link", name="Plant 1 · Hall 07")).to_be_visible()
    assert page.locator(".tile").count() == 0
    page.get_by_role("link", name="Plant 1 · Hall 07").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Hall 07")
    expect(page.locator(".area-table tbody tr")).to_have_count(500)
    nodes = json.loads(page.evaluate("JSON.stringify(document.querySelectorAll('*').length)"))
    assert nodes < 40_000
    site.forget(*machines)
