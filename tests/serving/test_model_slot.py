from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from aegisops import scoring, signing
from aegisops.settings import Settings
from serving.model_slot import RETRY_SECONDS, ModelSlots
from tests.serving.conftest import SOUND, SPINDLE, Fleet, Running, promote, running, write_bundle


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
def refused() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slots(settings: Settings, refused: list[str], clock: Clock) -> ModelSlots:
    public = signing.ensure_keys(settings.keys_dir).public
    return ModelSlots(
        settings.bundles_dir,
        verify=lambda folder: signing.verify(folder, public),
        load=scoring.load_bundle,
        clock=clock,
        refused=refused.append,
    )


def version(slots: ModelSlots) -> str | None:
    loaded = slots.get("cnc_spindle")
    return None if loaded is None else loaded.version


def test_the_pointer_decides_which_version_answers(settings: Settings, slots: ModelSlots) -> None:
    write_bundle(settings, version="1")
    write_bundle(settings, version="2")
    slots.poll()
    assert version(slots) is None
    for wanted in ("1", "2", "1"):
        promote(settings, wanted)
        slots.poll()
        assert version(slots) == wanted


def test_a_removed_pointer_withdraws_the_model(settings: Settings, slots: ModelSlots) -> None:
    write_bundle(settings)
    promote(settings, "1")
    slots.poll()
    (settings.bundles_dir / "cnc_spindle" / "production.json").unlink()
    slots.poll()
    assert version(slots) is None


def _alter_booster(folder: Path) -> None:
    path = folder / "failure.ubj"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def _add_file(folder: Path) -> None:
    (folder / "extra.py").write_text("print()")


def _remove_file(folder: Path) -> None:
    (folder / "modes.ubj").unlink()


def _drop_signature(folder: Path) -> None:
    signing.signature_path(folder).unlink()


def _sign_with_another_key(folder: Path) -> None:
    other = signing.ensure_keys(folder.parent / "other-keys")
    signing.sign(folder, other.private)


def _change_thresholds(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["thresholds"] = {"elevated": 0.98, "high": 0.99}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "tamper",
    [
        _alter_booster,
        _add_file,
        _remove_file,
        _drop_signature,
        _sign_with_another_key,
        _change_thresholds,
    ],
)
def test_a_bundle_that_is_not_as_signed_is_refused_and_the_old_one_stays(
    settings: Settings,
    slots: ModelSlots,
    refused: list[str],
    caplog: pytest.LogCaptureFixture,
    tamper: object,
) -> None:
    write_bundle(settings, version="1")
    promote(settings, "1")
    slots.poll()
    folder = write_bundle(settings, version="2")
    tamper(folder)  # type: ignore[operator]
    promote(settings, "2")
    with caplog.at_level(logging.ERROR):
        slots.poll()
        slots.poll()
    assert version(slots) == "1"
    assert refused == ["cnc_spindle"]
    assert "ALERT" in caplog.text
    _, refusal = slots.status()["cnc_spindle"]
    assert refusal is not None
    assert refusal.version == "2"


def test_a_signed_bundle_other_than_the_promoted_digest_is_refused(
    settings: Settings, slots: ModelSlots, refused: list[str]
) -> None:
    folder = write_bundle(settings, version="1")
    promote(settings, "1")
    _change_thresholds(folder)
    signing.sign(folder, signing.ensure_keys(settings.keys_dir).private)
    slots.poll()
    assert version(slots) is None
    assert refused == ["cnc_spindle"]


@pytest.mark.parametrize(
    "pointer",
    [b"", b"{", b"[]", b'{"version": "1"}', b'{"version": "../../x", "digest": "a"}', b'"1"'],
)
def test_a_pointer_that_makes_no_sense_is_refused(
    settings: Settings, slots: ModelSlots, refused: list[str], pointer: bytes
) -> None:
    base = settings.bundles_dir / "cnc_spindle"
    base.mkdir(parents=True)
    (base / "production.json").write_bytes(pointer)
    slots.poll()
    assert version(slots) is None
    assert refused == ["cnc_spindle"]


def test_a_bundle_that_was_mended_is_taken_after_a_pause(
    settings: Settings, slots: ModelSlots, refused: list[str], clock: Clock
) -> None:
    folder = write_bundle(settings)
    promote(settings, "1")
    signature = signing.signature_path(folder)
    kept = signature.read_bytes()
    signature.unlink()
    slots.poll()
    signature.write_bytes(kept)
    slots.poll()
    assert version(slots) is None
    clock.now += RETRY_SECONDS
    slots.poll()
    assert version(slots) == "1"
    assert refused == ["cnc_spindle"]


@pytest.mark.anyio
@pytest.mark.integration
async def test_a_new_model_takes_over_under_load_without_a_failed_request(
    tmp_path: Path, redis_url: str
) -> None:
    from aegisops.settings import ApiSettings, RedisSettings

    settings = Settings(
        data_dir=tmp_path,
        redis=RedisSettings(url=redis_url),
        api=ApiSettings(model_poll_seconds=0.02),
    )
    write_bundle(settings, version="1")
    write_bundle(settings, version="2")
    promote(settings, "1")
    Fleet(settings).add("m", SOUND)
    async with running(settings) as api:
        versions = await asyncio.wait_for(_until_version_2(api, settings), 20)
    assert versions[0] == "1"
    assert versions == sorted(versions)


async def _until_version_2(api: Running, settings: Settings) -> list[str]:
    versions: list[str] = []
    while "2" not in versions:
        for answer in await asyncio.gather(*(api.predict("m") for _ in range(4))):
            assert answer.status_code == 200
            assert answer.json()["served_by"] == "production"
            versions.append(answer.json()["model"]["version"])
        if len(versions) == 4:
            promote(settings, "2", SPINDLE)
    return versions
