"""A bearing fails on a simulated spindle, and the console leads a person through it."""

import re

from playwright.sync_api import expect

MACHINE = "spindle-003"


def test_a_bearing_fault_from_the_first_signs_to_its_label(site, open_page):
    page = open_page("/")
    page.get_by_role("link", name=re.compile(f"^{MACHINE}")).first.wait_for()
    site.simulate(MACHINE)

    # The alarm comes to the banner by itself, and one click leads to the machine.
    alarm = page.get_by_label("Alarm banner").get_by_role("link", name=re.compile(MACHINE)).first
    alarm.wait_for(timeout=90_000)
    alarm.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(MACHINE)
    panel = page.locator(".risk-panel")
    expect(panel.locator(".risk")).to_contain_text(re.compile("high|elevated"), timeout=60_000)
    row = page.locator("tr[data-alarm]").first
    expect(row).to_contain_text("Front bearing vibration")

    # Acknowledge: one click, with name and time.
    row.get_by_role("button", name="Acknowledge").click()
    expect(row).to_have_attribute("data-state", "acknowledged")
    expect(row).to_contain_text("by operator-1")

    # Evidence: why, in engineering units, from which model.
    panel.get_by_role("link", name="Evidence").click()
    expect(page.get_by_role("heading", name="Evidence of one prediction")).to_be_visible()
    contributions = page.locator(".contributions tbody tr")
    expect(contributions.first).to_contain_text("m/s²")
    expect(page.get_by_text("failure-cnc_spindle v1")).to_be_visible()

    # A work order in two clicks, its outcome in two more.
    page.get_by_role("button", name="Work order…").click()
    page.get_by_role("button", name="Create draft").click()
    expect(page.get_by_text(re.compile("Work order .* created"))).to_be_visible()
    page.get_by_role("link", name="Work orders").click()
    order = page.locator("tr[data-work-order]").filter(has_text=MACHINE).first
    order.get_by_role("button", name="Outcome").click()
    page.get_by_role("button", name=re.compile("^Confirmed")).click()
    expect(order).to_contain_text("Confirmed")
    expect(order).to_contain_text("closed")

    # The outcome is in the lake, from where the labels come.
    site.until(lambda: _feedback(site), "the outcome in bronze/feedback")


def _feedback(site):
    from aegisops.lake import Lake
    from aegisops.schemas.tables import FEEDBACK

    rows = Lake(site.settings.lake_root).scan(FEEDBACK).collect().to_dicts()
    return [r for r in rows if r["machine_id"] == MACHINE and r["outcome"] == "confirmed"]
