import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from aegisops import signing
from aegisops.errors import ConfigurationError, UntrustedBundle
from aegisops.scoring import bundle_digest


@pytest.fixture
def signed(bundle_dir, tmp_path):
    folder = tmp_path / "1" / "bundle"
    shutil.copytree(bundle_dir, folder)
    keys = signing.ensure_keys(tmp_path / "keys")
    signing.sign(folder, keys.private)
    return folder, keys


def test_a_signed_bundle_verifies_and_gives_its_digest(signed):
    folder, keys = signed
    assert signing.verify(folder, keys.public) == bundle_digest(folder)
    assert signing.signature_path(folder) == folder.parent / "bundle.sig"


def add(folder):
    (folder / "extra.txt").write_text("x")


def change(folder):
    path = folder / "failure.ubj"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def remove(folder):
    (folder / "modes.ubj").unlink()


def rename(folder):
    (folder / "modes.ubj").rename(folder / "other.ubj")


@pytest.mark.parametrize("tamper", [add, change, remove, rename])
def test_any_altered_file_is_refused(signed, tamper):
    folder, keys = signed
    tamper(folder)
    with pytest.raises(UntrustedBundle, match="signature not valid"):
        signing.verify(folder, keys.public)


def test_another_key_or_no_signature_is_refused(signed, tmp_path):
    folder, keys = signed
    other = signing.ensure_keys(tmp_path / "other")
    with pytest.raises(UntrustedBundle):
        signing.verify(folder, other.public)
    signing.signature_path(folder).unlink()
    with pytest.raises(UntrustedBundle, match="no signature"):
        signing.verify(folder, keys.public)


def test_a_missing_or_foreign_key_is_a_configuration_error(signed, tmp_path):
    folder, _ = signed
    with pytest.raises(ConfigurationError, match="AEGIS_SIGNING__PRIVATE_KEY"):
        signing.sign(folder, tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("not a key")
    with pytest.raises(ConfigurationError, match="not a usable"):
        signing.sign(folder, tmp_path / "bad.pem")


def test_starting_together_makes_one_key_pair_only_its_owner_can_read(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: signing.ensure_keys(tmp_path / "k"), range(8)))
    assert len({k.private.read_bytes() for k in keys}) == 1
    assert keys[0].private.stat().st_mode & 0o077 == 0
    assert sorted(p.name for p in (tmp_path / "k").iterdir()) == [
        signing.PRIVATE_KEY,
        signing.PUBLIC_KEY,
    ]
