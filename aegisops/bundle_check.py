"""Is every model what was signed? All bundles, on disk and in MLflow, and what pointers name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aegisops import signing
from aegisops.errors import AegisError, UntrustedBundle
from aegisops.names import Alias, pointer_file
from aegisops.registry import Version
from aegisops.releases import Releases, bundle_version


@dataclass(frozen=True, slots=True)
class Finding:
    """One copy of a bundle, or one pointer."""

    machine_class: str
    version: str
    where: str
    """`disk`, `mlflow`, or the pointer's alias."""
    digest: str
    problem: str
    """Why it is not valid; empty when it is."""


def verify_all(releases: Releases, classes: Iterable[str]) -> list[Finding]:
    """Findings about every copy of every bundle of these classes, valid or not."""
    return [finding for name in classes for finding in _class(releases, name)]


def _class(releases: Releases, name: str) -> Iterator[Finding]:
    registered = {bundle_version(v): v for v in releases.registry.history(name)}
    on_disk = {path.parent.name for path in (releases.bundles / name).glob("*/bundle")}
    for version in sorted(on_disk | set(registered)):
        expected = registered[version].digest if version in registered else ""
        yield _disk(releases, name, version, expected)
        if version in registered:
            yield _mlflow(releases, name, registered[version])
    for alias in (Alias.PRODUCTION, Alias.SHADOW):
        if (releases.bundles / name / pointer_file(alias)).exists():
            yield _pointer(releases, name, alias)


def _disk(releases: Releases, name: str, version: str, expected: str) -> Finding:
    try:
        digest = signing.verify(releases.bundle(name, version), releases.public_key)
    except UntrustedBundle as error:
        return Finding(name, version, "disk", "", str(error))
    problem = "" if digest == expected else "signed, but not what is registered"
    return Finding(name, version, "disk", digest, problem)


def _mlflow(releases: Releases, name: str, version: Version) -> Finding:
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        try:
            bundle = releases.registry.fetch(version, Path(folder), releases.public_key)
            digest = signing.verify(bundle, releases.public_key)
        except AegisError as error:
            return Finding(name, bundle_version(version), "mlflow", "", str(error))
    problem = "" if digest == version.digest else "signed, but not what is registered"
    return Finding(name, bundle_version(version), "mlflow", digest, problem)


def _pointer(releases: Releases, name: str, alias: Alias) -> Finding:
    pointer = releases.pointer(name, alias)
    if pointer is None:
        return Finding(name, "?", alias.value, "", "the pointer cannot be read")
    try:
        digest = signing.verify(releases.bundle(name, pointer.version), releases.public_key)
    except UntrustedBundle as error:
        return Finding(name, pointer.version, alias.value, pointer.digest, str(error))
    problem = "" if digest == pointer.digest else "names another digest than the bundle has"
    return Finding(name, pointer.version, alias.value, pointer.digest, problem)
