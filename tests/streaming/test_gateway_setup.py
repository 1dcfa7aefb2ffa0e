"""Setting a gateway up: the report on a mapping, registration, the draft, the certificate."""

from __future__ import annotations

import pytest

from aegisops.lake import Lake
from aegisops.schemas.tables import MACHINES
from aegisops.settings import Settings
from streaming import gateway_setup
from streaming.mapping import load_mapping
from tests.streaming.test_mapping import GOOD


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "mapping.toml"
    path.write_text(GOOD.replace('ca = "ca.pem"\n', ""))
    return path


def test_a_good_mapping_is_summed_up_and_its_open_ends_are_named(settings, path):
    report = gateway_setup.check(settings, path)
    assert report.problems == []
    assert [(s["name"], s["machines"], s["places"]) for s in report.sources] == [
        ("press-line", 4, 12),
        ("broker", 1, 2),
    ]
    told = "\n".join(report.warnings)
    assert "no certificate is trusted yet" in told
    assert "5 machines are not registered" in told
    assert "--register" in told


def test_its_machines_are_registered_once(settings, path):
    assert gateway_setup.check(settings, path, is_registering=True).registered == 5
    again = gateway_setup.check(settings, path, is_registering=True)
    assert again.registered == 0
    assert not any("not registered" in w for w in again.warnings)
    rows = Lake(settings.lake_root).scan(MACHINES).collect()
    assert set(rows["machine_id"]) == {
        "spindle-008", "spindle-009", "spindle-010", "extra", "m-1",
    }  # fmt: skip


def test_every_problem_is_named_at_once(settings, path, tmp_path):
    text = GOOD.replace('unit = "°F"', 'unit = "bar"')
    path.write_text(text.replace('name = "broker"', 'name = "broker"\nuser = "me"'))
    report = gateway_setup.check(settings, path, is_registering=True)
    told = "\n".join(report.problems)
    assert "'bar' is a pressure" in told
    assert "password_env" in told
    assert "ca, certificate or private_key cannot be used" in told  # ca.pem is not there
    assert report.registered == 0


def test_a_source_without_security_is_warned_of(settings, path):
    open_ = GOOD.replace('"opc.tcp://127.0.0.1:4840"', '"opc.tcp://x:1"\nsecurity_mode = "None"')
    path.write_text(open_.replace('ca = "ca.pem"', "tls = false"))
    told = "\n".join(gateway_setup.check(settings, path).warnings)
    assert "neither signs nor encrypts" in told
    assert "as everyone can read" in told


def test_a_draft_is_a_mapping_once_it_is_filled_in(tmp_path):
    variables = [
        ('nsu=urn:x;s="DB1".Vib', "/Line 1/Press-1/Vibration RMS", "Double"),
        ("nsu=urn:x;i=7", "/Line 1/Press-1/Temp", "Float"),
    ]
    text = gateway_setup.draft("server-1", "opc.tcp://x:1", variables, "Sign")
    path = tmp_path / "draft.toml"
    path.write_text(text)
    (source,) = load_mapping(path).opcua
    assert source.security_mode == "Sign"
    (machines,) = source.machines
    assert machines.ids == ("Press-1",)
    assert machines.channels["vibration_rms"].node == 'nsu=urn:x;s="DB1".Vib'


def test_the_commands_answer_with_exit_codes(settings, path, monkeypatch, capsys):
    monkeypatch.setenv("AEGIS_DATA_DIR", str(settings.data_dir))
    assert gateway_setup.main(["check", str(path)]) == 0
    assert "the mapping can be used" in capsys.readouterr().out
    assert gateway_setup.main(["check", str(path), "--json"]) == 0
    assert capsys.readouterr().out.startswith('{"gateway":"hall-a"')
    assert gateway_setup.main(["check", str(path.parent / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert gateway_setup.main(["certificate"]) == 0
    first = capsys.readouterr().out
    assert "thumbprint" in first
    assert gateway_setup.main(["certificate"]) == 0
    assert capsys.readouterr().out == first
    assert (settings.gateway_pki / "own" / "gateway.pem").stat().st_mode & 0o77 == 0
    assert gateway_setup.main(["browse", "opc.tcp://127.0.0.1:9"]) == 75
    assert "no answer" in capsys.readouterr().err
