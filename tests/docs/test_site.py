"""The documentation site builds without a warning, and shows what exists."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_table_and_column_is_in_the_data_dictionary(site):
    from aegisops.schemas.tables import TABLES

    page = (site / "reference" / "tables" / "index.html").read_text()
    for table in TABLES.values():
        assert table.name in page
        assert [column for column in table.columns if f"<code>{column}</code>" not in page] == []


def test_every_call_of_the_api_is_listed(site):
    page = (site / "reference" / "api" / "index.html").read_text()
    assert "POST /api/v1/predict" in page


def test_a_link_to_a_source_file_leads_to_its_text(site):
    page = (site / "source" / "aegisops" / "schemas" / "tables.py" / "index.html").read_text()
    assert "Every Delta table, declared once" in page


def test_no_page_asks_another_host_for_anything(site):
    for page in site.rglob("index.html"):
        text = page.read_text()
        assert 'src="http' not in text, page
        assert 'rel="stylesheet" href="http' not in text, page
