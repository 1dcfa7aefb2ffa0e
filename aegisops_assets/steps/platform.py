"""What every step needs: settings, lake, machine classes and the fleet. Made once per run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from aegisops import engine
from aegisops.engine import Engine, LocalEngine
from aegisops.errors import ConfigurationError
from aegisops.features.batch import Attributes
from aegisops.lake import Lake
from aegisops.machines import MachineClass, load_classes
from aegisops.registry import ModelRegistry
from aegisops.schemas.tables import MACHINES
from aegisops.settings import Settings

if TYPE_CHECKING:
    from aegisops.releases import Releases
    from aegisops.signing import Keys


@dataclass(frozen=True)
class Fleet:
    """The registered machines of one class."""

    machine_class: MachineClass
    attributes: Attributes
    """Machine id → fixed properties, for every machine of the class."""

    @property
    def machine_ids(self) -> list[str]:
        """Sorted ids."""
        return sorted(self.attributes)


@dataclass(frozen=True)
class Platform:
    """Handles of one run; nothing is opened before it is asked for."""

    settings: Settings
    lake: Lake
    registry: ModelRegistry
    engine: Engine = field(default_factory=LocalEngine)

    @classmethod
    def of(cls, settings: Settings) -> Platform:
        """The platform the settings describe."""
        artifacts = settings.data_dir.absolute() / "mlflow"
        return cls(
            settings,
            Lake(settings.lake_root),
            ModelRegistry(settings.mlflow_uri, artifacts),
            engine.of_settings(settings.engine),
        )

    def with_engine(self, engine: Engine) -> Platform:
        """The same platform whose jobs run elsewhere."""
        return replace(self, engine=engine)

    def fleets(self, only: Iterable[str] = ()) -> list[Fleet]:
        """Classes that have machines, by name; `only` restricts them.

        Raises `ConfigurationError` for machines of a class nobody declared.
        """
        classes = load_classes(self.settings.classes_dir)
        wanted = set(only)
        newest = (
            self.lake.scan(MACHINES)
            .sort("registered_at")
            .unique("machine_id", keep="last")
            .sort("machine_class", "machine_id")
            .collect()
        )
        fleets = []
        for key, machines in newest.partition_by("machine_class", as_dict=True).items():
            name = str(key[0])
            if wanted and name not in wanted:
                continue
            if name not in classes:
                raise ConfigurationError(
                    f"{machines.height} machines are of class {name!r}, which is not declared; "
                    "put its .toml file into AEGIS_CLASSES_DIR"
                )
            rows = machines.select("machine_id", "attributes").iter_rows()
            fleets.append(Fleet(classes[name], {m: json.loads(text) for m, text in rows}))
        return fleets

    def keys(self) -> Keys:
        """Signing keys: the configured files, or development keys made at first use."""
        from aegisops import signing

        configured = self.settings.signing
        if configured.private_key is not None and configured.public_key is not None:
            return signing.Keys(configured.private_key, configured.public_key)
        return signing.ensure_keys(self.settings.keys_dir)

    def releases(self) -> Releases:
        """Pointers and decisions about this platform's models."""
        from aegisops.releases import Releases

        return Releases(self.settings.bundles_dir, self.keys().public, self.lake, self.registry)

    def bundle_dir(self, machine_class: str, version: str) -> Path:
        """Folder of a bundle; its signature and evidence lie beside it."""
        return self.settings.bundles_dir / machine_class / version / "bundle"


def of_machines(frame: pl.LazyFrame, fleet: Fleet) -> pl.LazyFrame:
    """Only rows of the fleet's machines."""
    return frame.filter(pl.col("machine_id").is_in(fleet.machine_ids))
