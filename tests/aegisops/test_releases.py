"""Moves of models between pointers, on real signatures, a real registry and a real lake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aegisops import signing
from aegisops.bundle_check import verify_all
from aegisops.cli import app
from aegisops.errors import Permanent, UntrustedBundle
from aegisops.lake import Lake
from aegisops.names import Alias, Verdict
from aegisops.registry import ModelRegistry
from aegisops.releases import Decision, Pointer, Releases
from aegisops.scoring import bundle_digest

NAME = "cnc_spindle"
# MLflow warns while it makes its database.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A data folder with three registered, signed models, nothing promoted. Copied per test."""
    folder = tmp_path_factory.mktemp("models")
    made = releases_of(folder)
    keys = signing.ensure_keys(folder / "keys")
    for version in "abc":
        bundle = made.bundle(NAME, version)
        bundle.mkdir(parents=True)
        (bundle / "manifest.json").write_text(json.dumps({"version": version}))
        signing.sign(bundle, keys.private)
        evidence = {"figures": {"candidate": {"pr_auc": 0.5}}, "checks": []}
        bundle.with_name("evidence.json").write_text(json.dumps(evidence))
        made.registry.register(
            NAME, bundle, digest=bundle_digest(bundle), metrics={}, parameters={},
            tags={"bundle_version": version},
        )  # fmt: skip
    return folder


def releases_of(folder: Path) -> Releases:
    return Releases(
        folder / "bundles",
        folder / "keys" / signing.PUBLIC_KEY,
        Lake(folder / "lake"),
        ModelRegistry(f"sqlite:///{folder}/mlflow.db", folder / "mlflow"),
    )


@pytest.fixture
def folder(template, tmp_path, monkeypatch):
    """The template's folder; files and aliases are put back afterwards, for MLflow keeps paths."""
    parts = ("bundles", "mlflow")
    for part in parts:
        shutil.copytree(template / part, tmp_path / part)
    monkeypatch.setenv("AEGIS_DATA_DIR", str(template))
    monkeypatch.setenv("COLUMNS", "200")
    yield template
    for part in parts:
        shutil.rmtree(template / part)
        shutil.copytree(tmp_path / part, template / part)
    shutil.rmtree(template / "lake", ignore_errors=True)
    for alias in (Alias.PRODUCTION, Alias.SHADOW):
        releases_of(template).registry.unpoint(NAME, alias)


@pytest.fixture
def releases(folder):
    return releases_of(folder)


def promote(releases, version):
    digest = releases.find(NAME, version).digest
    releases.promoted(Decision(NAME, version, digest, Verdict.PROMOTED, "test", "good"))


def served(releases):
    return releases.pointer(NAME, Alias.PRODUCTION).version


def roll_back(releases):
    return releases.rollback(NAME, decided_by="ann-7", reason="too many alarms")


def alter(releases, version):
    path = releases.bundle(NAME, version) / "manifest.json"
    path.write_text(path.read_text() + " ")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_a_rollback_goes_to_the_model_before_and_again_further_back(releases):
    for version in "abc":
        promote(releases, version)
    assert roll_back(releases).version == served(releases) == "b"
    assert releases.registry.by_alias(NAME, Alias.PRODUCTION).tags["bundle_version"] == "b"
    assert roll_back(releases).version == served(releases) == "a"
    with pytest.raises(Permanent, match="no earlier promoted model"):
        roll_back(releases)
    assert served(releases) == "a"


def test_after_a_rollback_and_a_promotion_the_next_one_skips_what_was_rolled_back(releases):
    promote(releases, "a")
    promote(releases, "b")
    roll_back(releases)
    promote(releases, "c")
    assert roll_back(releases).version == "a"


def test_a_rollback_is_recorded_for_both_models_with_who_and_why(releases):
    promote(releases, "a")
    promote(releases, "b")
    roll_back(releases)
    restored, left = releases.decisions(NAME)[-2:]
    assert (restored["decision"], restored["model_version"]) == ("restored", "a")
    assert (left["decision"], left["model_version"]) == ("rolled_back", "b")
    assert {restored["decided_by"], left["decided_by"]} == {"ann-7"}
    assert restored["reason"] == "too many alarms"
    assert json.loads(restored["evidence"])["figures"]
    assert releases.rolled_back(NAME, left["model_digest"])["decided_by"] == "ann-7"
    assert releases.rolled_back(NAME, restored["model_digest"]) is None


def test_a_rollback_that_broke_off_before_the_pointer_is_repeated_to_the_same_model(
    releases, monkeypatch
):
    for version in "abc":
        promote(releases, version)
    with monkeypatch.context() as broken:
        broken.setattr(Releases, "point", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            roll_back(releases)
    assert served(releases) == "c"
    assert roll_back(releases).version == served(releases) == "b"


def test_an_altered_model_is_passed_over_and_named(releases):
    for version in "abc":
        promote(releases, version)
    alter(releases, "b")
    made = roll_back(releases)
    assert made.version == served(releases) == "a"
    assert "passed over" in made.reason


def test_a_model_that_was_signed_again_after_a_change_is_passed_over(releases, folder):
    promote(releases, "a")
    promote(releases, "b")
    alter(releases, "a")
    signing.sign(releases.bundle(NAME, "a"), folder / "keys" / signing.PRIVATE_KEY)
    with pytest.raises(Permanent, match="in the registry"):
        roll_back(releases)
    assert served(releases) == "b"


def test_a_withdrawn_model_is_not_what_a_rollback_brings_back(releases, folder):
    promote(releases, "a")
    promote(releases, "b")
    (folder / "bundles" / NAME / "production.json").unlink()
    assert roll_back(releases).version == "a"


@pytest.mark.parametrize("spoil", ["alter", "unsign"])
def test_an_altered_or_unsigned_model_gets_no_shadow(releases, spoil):
    if spoil == "alter":
        alter(releases, "c")
    else:
        signing.signature_path(releases.bundle(NAME, "c")).unlink()
    with pytest.raises(UntrustedBundle):
        releases.shadow(NAME, "c", decided_by="ann-7", reason="")
    assert releases.pointer(NAME, Alias.SHADOW) is None
    assert releases.decisions(NAME) == []


def test_the_shadow_command_sets_and_ends_the_pointer_and_both_are_recorded(releases):
    run("shadow", "b", "--reason", "compare", "--by", "ann-7")
    assert releases.pointer(NAME, Alias.SHADOW) == Pointer("b", releases.find(NAME, "b").digest)
    assert releases.registry.by_alias(NAME, Alias.SHADOW).tags["bundle_version"] == "b"
    run("shadow", "--off", "--by", "ann-7")
    assert releases.pointer(NAME, Alias.SHADOW) is None
    assert releases.registry.by_alias(NAME, Alias.SHADOW) is None
    said = [row["decision"] for row in releases.decisions(NAME)]
    assert said == ["shadowed", "unshadowed"]
    run("shadow", code=2)


def test_list_and_show_tell_alias_figures_and_decisions(releases):
    promote(releases, "b")
    rows = json.loads(run("list", "--json").stdout)
    assert [(r["version"], r["aliases"], r["is_served"]) for r in rows] == [
        ("c", ["candidate"], False),
        ("b", ["production"], True),
        ("a", [], False),
    ]
    assert rows[0]["pr_auc"] == 0.5
    assert rows[0]["digest"][:12] in run("list").stdout
    shown = json.loads(run("show", "b", "--json").stdout)
    assert [d["decision"] for d in shown["decisions"]] == ["promoted"]
    assert "promoted" in run("show", "2").stdout
    assert "registered: c, b, a" in run("show", "z", code=2).output


def test_the_rollback_command_wants_a_reason_and_does_it(releases):
    promote(releases, "a")
    promote(releases, "b")
    run("rollback", code=2)
    answer = json.loads(run("rollback", "--reason", "drift", "--json").stdout)
    assert (answer["version"], answer["reason"]) == ("a", "drift")
    assert served(releases) == "a"


def test_verify_finds_what_was_changed_on_disk_in_mlflow_and_in_a_pointer(releases, folder):
    promote(releases, "a")
    assert run("verify", "--json").exit_code == 0
    assert {f.where for f in verify_all(releases, [NAME])} == {"disk", "mlflow", "production"}
    alter(releases, "a")
    run_id = releases.find(NAME, "b").run_id
    (stored,) = folder.glob(f"mlflow/{run_id}/artifacts/bundle/manifest.json")
    stored.write_text("{}")
    (folder / "bundles" / NAME / "unsigned" / "bundle").mkdir(parents=True)
    found = json.loads(run("verify", "--json", code=1).stdout)
    wrong = {(f["version"], f["where"]) for f in found if f["problem"]}
    assert wrong == {
        ("a", "disk"), ("a", "production"), ("b", "mlflow"), ("unsigned", "disk")
    }  # fmt: skip
