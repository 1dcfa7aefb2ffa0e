"""The registered fleet as the stream applications know it: bronze/machines, followed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from aegisops.lake import Lake
from aegisops.machines import MachineClass
from aegisops.online_store import Machine
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
        self.classes: dict[str, MachineClass] = {}
        """Machine id → class."""
        self.machines: dict[str, Machine] = {}
        """Machine id → its registration."""
        self.attributes: dict[str, Attributes] = {}
        """Machine id → its fixed properties."""
        self.version = -1
        """Version of bronze/machines this is from."""

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
        if version == self.version:
            return
        rows = (
            self._lake.scan(MACHINES, version if version >= 0 else None)
            .sort("registered_at", maintain_order=True)
            .select("machine_id", "machine_class", "site", "area", "attributes")
            .unique("machine_id", keep="last")
            .collect()
        )
        classes, machines = {}, {}
        for machine_id, class_name, site, area, text in rows.iter_rows():
            if class_name not in self._classes:
                log.warning(
                    "machine %s has the unknown class %s; put its .toml file in the classes folder",
                    machine_id,
                    class_name,
                )
                continue
            classes[machine_id] = self._classes[class_name]
            machines[machine_id] = Machine(
                machine_id, class_name, site, area, json.loads(text or "{}")
            )
        self.classes, self.machines, self.version = classes, machines, version
        self.attributes = {m: machine.attributes for m, machine in machines.items()}
