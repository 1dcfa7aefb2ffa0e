"""What a data engineer sees: a real `dagster dev` in a real browser."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from aegisops.cli.stack import child_environment, prepare_dagster_home
from aegisops.embedded import ports
from tests.aegisops_assets.conftest import fill, make_platform

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ROOT = Path(__file__).parents[2]
PATIENCE = 180

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the Dagster UI was NOT opened"),
]


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    """Address of a Dagster UI with daemon over a lake with readings and nothing else."""
    platform = make_platform(tmp_path_factory.mktemp("ui"))
    fill(platform.lake)
    home = prepare_dagster_home(platform.settings)
    port = ports.free_port()
    command = [Path(sys.executable).with_name("dagster"), "dev", "-w", "workspace.yaml"]
    environment = os.environ | child_environment(platform.settings) | {"DAGSTER_HOME": str(home)}
    with (home / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)],
            cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, home / "dev.log")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(url, process, log):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(f"{url}/server_info", timeout=2)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"no UI after {PATIENCE} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def page(ui):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1600, "height": 1000}, base_url=ui)
        page.set_default_timeout(PATIENCE * 1000)
        yield page
        browser.close()


def test_the_graph_shows_every_group(page):
    page.goto("/asset-groups")
    for group in ("bronze", "silver", "gold", "ml", "ops"):
        page.get_by_text(group, exact=True).first.wait_for()


def test_new_bronze_rows_became_tiles_by_themselves_and_their_checks_are_green(page):
    page.goto("/assets/silver/tiles?view=checks")
    for check in ("schema", "keys_unique", "no_nulls", "ranges"):
        page.get_by_text(check, exact=True).first.wait_for()
    page.get_by_text("Passed").first.wait_for()
    assert page.get_by_text("Failed", exact=True).count() == 0


def test_a_job_is_started_by_hand_and_succeeds(page):
    page.goto("/locations/aegisops/jobs/maintenance")
    page.get_by_role("button", name="Materialize").first.click()
    # The UI asks back when an asset upstream was never made.
    launched = page.get_by_text(re.compile("Launched run"))
    confirm = page.get_by_role("button", name="Confirm")
    launched.or_(confirm).first.wait_for()
    if confirm.count():
        confirm.click()
        launched.first.wait_for()
    page.goto("/locations/aegisops/jobs/maintenance/runs")
    page.get_by_text("Success", exact=True).first.wait_for()
