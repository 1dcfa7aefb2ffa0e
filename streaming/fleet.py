"""The registered fleet as the stream applications know it: bronze/machines, followed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from aegisops.lake import Lake
from aegisops.machines import MachineClass
from aegisops.schemas.tables import MACHINES

log = logging.getLogger(__name__)

Attributes = Mapping[str, str | float | None]


class Fleet:
    """Machine id → machine class and attributes."""

    def __init__(
        self,
        lake: Lake,
        classes: Mapping[str, MachineClass],
        clock: Callable[[], float] = time.monotonic,
        recheck_seconds: float = 2.0,
        refresh_seconds: float = 30.0,
    ) -> None:
        self._lake = lake
        self._classes = classes
        self._clock = clock
        self._recheck = recheck_seconds
        self._refresh = refresh_seconds
        self._checked_at = float("-inf")
        self._version = -1
        self.classes: dict[str, MachineClass] = {}
        """Machine id → class."""
        self.attributes: dict[str, Attributes] = {}
        """Machine id → its fixed properties."""

    def knowing(self, machine_ids: Iterable[str]) -> Mapping[str, MachineClass]:
        """Class by machine id; the table is looked at again when an id is unknown or it is time.

        A stranger that sends without end costs one look per `recheck_seconds`, not one per message.
        """
        unknown = any(machine not in self.classes for machine in machine_ids)
        age = self._clock() - self._checked_at
        if age >= (self._recheck if unknown else self._refresh):
            self.reload()
        return self.classes

    def of_class(self, name: str) -> list[str]:
        """Ids of the machines of one class, sorted."""
        return sorted(m for m, c in self.classes.items() if c.name == name)

    def reload(self) -> None:
        """Read the table if it has a new version."""
        self._checked_at = self._clock()
        version = self._lake.version(MACHINES)
        if version == self._version:
            return
        rows = (
            self._lake.scan(MACHINES, version if version >= 0 else None)
            .sort("registered_at", maintain_order=True)
            .select("machine_id", "machine_class", "attributes")
            .unique("machine_id", keep="last")
            .collect()
        )
        classes, attributes = {}, {}
        for machine_id, class_name, text in rows.iter_rows():
            if class_name not in self._classes:
                log.warning(
                    "machine %s has the unknown class %s; put its .toml file in the classes folder",
                    machine_id,
                    class_name,
                )
                continue
            classes[machine_id] = self._classes[class_name]
            attributes[machine_id] = json.loads(text) or {}
        self.classes, self.attributes, self._version = classes, attributes, version
