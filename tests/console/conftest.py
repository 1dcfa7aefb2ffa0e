"""A browser on a whole running site. Playwright waits for conditions; nothing here sleeps."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.console.site import Site

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 15_000
ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items):
    """One worker has the site: starting it costs as much as a dozen tests."""
    for item in items:
        if "page" in getattr(item, "fixturenames", ()) or "site" in getattr(
            item, "fixturenames", ()
        ):
            item.add_marker(pytest.mark.xdist_group("console"))
            item.add_marker(pytest.mark.story)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    if not (ROOT / "serving/console/index.html").exists():
        pytest.fail("the console is not built; run `make console`")
    made = Site(tmp_path_factory.mktemp("site"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium here; install the package chromium")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def open_page(site, browser):
    """Opens pages, each in a browser context of its own; fails on any error in their consoles."""
    contexts = []
    errors = []

    def open_(path="/", *, expected=(), claims=None, **options):
        context = browser.new_context(**{"viewport": {"width": 1600, "height": 1000}} | options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()

        def note(text):
            if not any(word in text for word in ("favicon", *expected)):
                errors.append(text)

        page.on("pageerror", lambda error: note(f"uncaught: {error}"))
        page.on(
            "console",
            lambda message: note(message.text) if message.type == "error" else None,
        )
        if path is not None:
            page.goto(site.address(path, **(claims or {})))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(open_page):
    return open_page("/")
