"""The models in use: follows `<bundles>/<class>/<alias>.json`, loads only what is signed.

A new bundle is verified, loaded and warmed while the old one answers, then takes its place in one
assignment. A bundle that is unsigned, altered, of another digest than the pointer names, or does
not load is refused: the old one stays, the refusal is logged as an alert and counted. Removing the
pointer withdraws the model. mlflow is never imported here; promotion writes the pointer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aegisops.errors import AegisError, UntrustedBundle
from aegisops.names import Alias, pointer_file

if TYPE_CHECKING:
    from aegisops.scoring import Bundle

RETRY_SECONDS = 30.0
"""A refused bundle is looked at again after this long even if the pointer stays the same."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in use: the bundle, its version and verified digest, and since when."""

    bundle: Bundle
    version: str
    digest: str
    loaded_at: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that was not loaded, and why."""

    version: str
    reason: str
    refused_at: datetime


@dataclass(slots=True)
class _Slot:
    pointer: bytes | None = None
    loaded: Loaded | None = None
    refusal: Refusal | None = None
    retry_at: float = 0.0


class ModelSlots:
    """One slot per machine class, for one alias. `poll` may run on another thread than `get`."""

    def __init__(
        self,
        bundles: Path,
        verify: Callable[[Path], str],
        load: Callable[[Path], Bundle],
        *,
        clock: Callable[[], float],
        refused: Callable[[str], None] = lambda _: None,
        alias: Alias = Alias.PRODUCTION,
    ) -> None:
        """Give the outside world in.

        Args:
            bundles: folder with one folder per machine class.
            verify: bundle folder → digest; raises `UntrustedBundle`.
            load: bundle folder → bundle, loaded and warmed.
            clock: Unix seconds.
            refused: called with the class at each new refusal.
            alias: whose pointers to follow.
        """
        self._bundles = bundles
        self._verify = verify
        self._load = load
        self._clock = clock
        self._refused = refused
        self._alias = alias
        self._slots: dict[str, _Slot] = {}

    def get(self, machine_class: str) -> Loaded | None:
        """The model in use for a class, if any."""
        slot = self._slots.get(machine_class)
        return None if slot is None else slot.loaded

    def status(self) -> Mapping[str, tuple[Loaded | None, Refusal | None]]:
        """Model in use and last refusal by class."""
        return {name: (slot.loaded, slot.refusal) for name, slot in self._slots.items()}

    def poll(self) -> None:
        """Look at every pointer once; a stat and a small read per class when nothing changed."""
        found = {
            path.parent.name: path for path in self._bundles.glob(f"*/{pointer_file(self._alias)}")
        }
        for name in set(self._slots) - set(found):
            slot = self._slots[name]
            if slot.loaded is not None:
                log.warning("%s model of %s withdrawn: its pointer was removed", self._alias, name)
            self._slots[name] = _Slot()
        for name, path in found.items():
            self._follow(name, path, self._slots.setdefault(name, _Slot()))

    def _follow(self, name: str, path: Path, slot: _Slot) -> None:
        try:
            pointer = path.read_bytes()
        except OSError:  # replaced in this moment; the next round reads it
            return
        unchanged = pointer == slot.pointer
        if unchanged and (slot.refusal is None or self._clock() < slot.retry_at):
            return
        version = "?"
        try:
            version, digest = _parse(pointer, path)
            loaded = self._take(path.parent / version / "bundle", version, digest)
        except (AegisError, OSError, ValueError, KeyError, TypeError) as error:
            self._refuse(name, slot, pointer, version, error)
            return
        slot.pointer, slot.loaded, slot.refusal = pointer, loaded, None
        log.info("%s model of %s is now %s (%s)", self._alias, name, version, digest[:12])

    def _take(self, folder: Path, version: str, digest: str) -> Loaded:
        verified = self._verify(folder)
        if verified != digest:
            raise UntrustedBundle(f"digest {verified[:12]} is not the promoted {digest[:12]}")
        bundle = self._load(folder)
        # What was loaded must be what was verified, even if files changed in between.
        if bundle.digest != digest:
            raise UntrustedBundle("the bundle changed while it was loaded")
        return Loaded(bundle, version, digest, datetime.fromtimestamp(self._clock(), UTC))

    def _refuse(
        self, name: str, slot: _Slot, pointer: bytes, version: str, error: Exception
    ) -> None:
        again = slot.refusal is not None and pointer == slot.pointer
        slot.pointer = pointer
        slot.retry_at = self._clock() + RETRY_SECONDS
        reason = str(error) or type(error).__name__
        slot.refusal = Refusal(version, reason, datetime.fromtimestamp(self._clock(), UTC))
        if again:
            return
        self._refused(name)
        kept = f"version {slot.loaded.version} stays" if slot.loaded else "there is no other"
        log.error("ALERT: %s bundle of %s refused (%s): %s", self._alias, name, reason, kept)


def _parse(pointer: bytes, path: Path) -> tuple[str, str]:
    content = json.loads(pointer)
    version, digest = str(content["version"]), str(content["digest"])
    if not version or "/" in version or "\\" in version or version.startswith("."):
        raise UntrustedBundle(f"{path}: {version!r} is not a version")
    return version, digest
