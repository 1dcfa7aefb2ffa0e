"""What people may do with models: the same gate, recorded, and a rollback that stays."""

import json
import subprocess
import sys

import polars as pl
import pytest
from typer.testing import CliRunner

from aegisops import signing
from aegisops.cli import app
from aegisops.names import Alias
from aegisops.releases import Pointer
from aegisops_assets import promote as command
from aegisops_assets.steps import promotion, validation
from aegisops_assets.steps.promotion import Wish

pytestmark = [
    pytest.mark.slow,
    # Third parties warn while they are imported and while MLflow makes its database.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def candidate(copied):
    return copied.registry.by_alias("press", Alias.CANDIDATE)


def take_out(platform):
    """Roll the model back to one that was in production before it."""
    releases = platform.releases()
    now = releases.pointer("press", Alias.PRODUCTION)
    (row,) = [r for r in releases.decisions("press") if r["decision"] == "promoted"]
    bundle = platform.bundle_dir("press", now.version)
    before = platform.bundle_dir("press", "before")
    before.mkdir(parents=True)
    for path in bundle.iterdir():
        (before / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((before / "manifest.json").read_text())
    (before / "manifest.json").write_text(json.dumps(manifest | {"version": "before"}))
    signing.sign(before, platform.keys().private)
    digest = signing.verify(before, platform.keys().public)
    platform.registry.register(
        "press", before, digest=digest, metrics={}, parameters={},
        tags={"bundle_version": "before"},
    )  # fmt: skip
    platform.registry.point(
        "press", Alias.CANDIDATE, platform.releases().find("press", now.version).version
    )
    earlier = {"model_version": "before", "model_digest": digest}
    earlier["decided_at"] = row["decided_at"].replace(year=2020)
    platform.lake.append(promotion.releases.MODEL_DECISIONS, pl.DataFrame([row | earlier]))
    return releases.rollback("press", decided_by="ann-7", reason="false alarms")


def test_a_model_that_was_rolled_back_returns_only_by_a_persons_wish(copied, candidate):
    assert take_out(copied).version == "before"
    (refused,) = promotion.promote(copied, decided_by="nightly run")
    assert not refused.promoted
    assert "rolled back by ann-7: false alarms" in refused.reason
    assert copied.releases().pointer("press", Alias.PRODUCTION).version == "before"
    (again,) = promotion.promote(copied, decided_by="bo-2", wish=Wish("sensor was mended"))
    assert again.promoted, again.reason
    last = copied.releases().decisions("press")[-1]
    assert (last["decided_by"], last["decision"]) == ("bo-2", "promoted")
    assert last["reason"].startswith("sensor was mended; ")
    pointer = copied.releases().pointer("press", Alias.PRODUCTION)
    assert pointer == Pointer(again.model_version, candidate.digest)


def test_a_persons_wish_does_not_open_the_gate(copied, candidate, monkeypatch):
    (copied.settings.bundles_dir / "press" / promotion.POINTER).unlink()
    monkeypatch.setattr(validation, "WORST_CALIBRATION_ERROR", -1.0)
    wish = Wish("I want it", candidate.version)
    (decision,) = promotion.promote(copied, decided_by="bo-2", wish=wish)
    assert not decision.promoted
    assert "calibrated" in decision.reason
    assert copied.releases().pointer("press", Alias.PRODUCTION) is None
    assert copied.releases().decisions("press")[-1]["decision"] == "refused"


@pytest.mark.parametrize("spoil", ["alter", "unsign"])
def test_a_persons_wish_promotes_no_altered_or_unsigned_bundle(copied, candidate, spoil, tmp_path):
    (copied.settings.bundles_dir / "press" / promotion.POINTER).unlink()
    bundle = copied.bundle_dir("press", candidate.tags["bundle_version"])
    if spoil == "alter":
        (bundle / "extra").write_text("x")
    else:
        signing.signature_path(bundle).unlink()
    (decision,) = promotion.promote(copied, decided_by="bo-2", wish=Wish("go", candidate.version))
    assert not decision.promoted
    assert copied.releases().pointer("press", Alias.PRODUCTION) is None


def test_the_command_goes_through_the_gate_in_a_process_of_its_own(copied, monkeypatch):
    settings = copied.settings
    (settings.bundles_dir / "press" / promotion.POINTER).unlink()
    monkeypatch.setenv("AEGIS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("AEGIS_CLASSES_DIR", str(settings.classes_dir))
    result = CliRunner().invoke(
        app, ["models", "promote", "--reason", "first day", "--by", "ann-7", "--json"]
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["promoted"]
    last = copied.releases().decisions("press")[-1]
    assert (last["decided_by"], last["model_digest"]) == ("ann-7", said["digest"])
    pointer = copied.releases().pointer("press", Alias.PRODUCTION)
    assert pointer == Pointer(said["model_version"], said["digest"])


def test_promoting_imports_no_dagster():
    code = f"import sys, {command.__name__}; print('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
