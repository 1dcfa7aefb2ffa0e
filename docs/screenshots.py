"""Takes docs/images/{console-*,dagster,api}.png from the stack that runs here, with Chromium.

aegisops demo        # in another terminal
make screenshots
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from aegisops.cli import runs
from aegisops.cli.access import console_link

IMAGES = Path(__file__).parent / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MOST_BYTES = 300_000


def main() -> int:
    """0 when both pictures were taken."""
    run = runs.load(runs.base_dir())
    if run is None or not runs.is_running(runs.base_dir()):
        sys.stderr.write("nothing runs here; start `aegisops demo` in another terminal first\n")
        return 1
    browser_path = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1600, "height": 1050})
        _console(page)
        _api(page, run.urls["API"])
        _dagster(page, run.urls["Dagster"])
        browser.close()
    return 0


PAGES = {
    "fleet": "/",
    "area": "/areas?site={site}&area={area}",
    "machine": "/machines/{machine}?range=1d",
    "alarms": "/alarms",
    "advisories": "/advisories",
    "work-orders": "/work-orders",
    "handover": "/handover",
    "kpi": "/kpi",
    "models": "/models",
    "system": "/system",
}


def _console(page: Page) -> None:
    """Every page of the console; of the machine and the prediction that are worst now."""
    link = console_link(runs.settings())
    url, _, token = link.partition("/#token=")
    asked = {"headers": {"authorization": f"Bearer {token}"}}
    worst = page.request.get(f"{url}/api/v1/machines?limit=1", **asked).json()["machines"][0]
    names = {"machine": worst["machine_id"], "site": worst["site"], "area": worst["area"]}
    pages = PAGES | {"evidence": f"/predictions/{worst['prediction_id']}"}
    page.goto(link)
    for name, path in pages.items():
        page.goto(url + path.format(**names))
        page.wait_for_selector("main h1", timeout=60_000)
        page.wait_for_timeout(4_000)
        _take(page, f"console-{name}.png", colors=256)


def _api(page: Page, url: str) -> None:
    page.goto(f"{url}/api/docs")
    page.wait_for_selector("details", timeout=60_000)
    page.locator("details summary").first.click()
    page.wait_for_timeout(500)
    _take(page, "api.png")


def _dagster(page: Page, url: str) -> None:
    page.goto(f"{url}/asset-groups")
    page.wait_for_selector("text=silver", timeout=90_000)
    page.get_by_text("Hide navigation").click()
    page.wait_for_timeout(3_000)
    page.mouse.click(1_300, 950, button="right")
    page.get_by_role("menuitem", name="Expand all groups").click()
    page.wait_for_timeout(2_000)
    page.reload()  # draws the graph to fit
    page.wait_for_selector("text=training_set", timeout=90_000)
    page.wait_for_timeout(6_000)
    _take(page, "dagster.png")


def _take(page: Page, name: str, colors: int = 0) -> None:
    """With `colors`: so many at most, a quarter of the bytes for a page of few colours."""
    path = IMAGES / name
    page.screenshot(path=path)
    if colors:
        Image.open(path).convert("RGB").quantize(colors).save(path, optimize=True)
    size = path.stat().st_size
    sys.stderr.write(f"{path.name}: {size / 1000:.0f} kB\n")
    if size > MOST_BYTES:
        sys.exit(f"{name} has more than {MOST_BYTES} bytes; make the viewport smaller")


if __name__ == "__main__":
    sys.exit(main())
