"""The master alarm database: every entry, of the machine classes and of the product's own parts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from aegisops.alarms.lifecycle import Alarm
from aegisops.machines import AlarmDefinition, DataFault, MachineClass

SYSTEM_FILE = Path(__file__).with_name("system.toml")


@cache
def system_entries() -> tuple[AlarmDefinition, ...]:
    """Entries of the product's own parts."""
    with SYSTEM_FILE.open("rb") as file:
        return tuple(AlarmDefinition.model_validate(each) for each in tomllib.load(file)["alarms"])


class MasterDatabase:
    """Look-up by class and id. The class of the product's own parts is the empty name."""

    def __init__(
        self,
        classes: Mapping[str, MachineClass],
        system: tuple[AlarmDefinition, ...] | None = None,
    ) -> None:
        """`system`: entries of the product's own parts; absent = the shipped ones."""
        own = system_entries() if system is None else system
        self._entries = {("", entry.id): entry for entry in own}
        for machine_class in classes.values():
            for entry in machine_class.alarms:
                self._entries[machine_class.name, entry.id] = entry
        self._classes = classes

    def find(self, machine_class: str, definition_id: str) -> AlarmDefinition | None:
        """The entry, or None: then there is no such alarm."""
        return self._entries.get((machine_class, definition_id))

    def of(self, alarm: Alarm) -> AlarmDefinition | None:
        """The alarm's entry."""
        return self.find(alarm.machine_class, alarm.definition_id)

    def unit(self, machine_class: str, entry: AlarmDefinition) -> str:
        """Unit of the entry's values."""
        if entry.feature is not None:
            return self._classes[machine_class].unit_of(entry.feature)
        return "s" if entry.fault is DataFault.NO_DATA else "1"

    def __iter__(self) -> Iterator[tuple[str, AlarmDefinition]]:
        """(class name, entry) of every entry."""
        for (machine_class, _), entry in self._entries.items():
            yield machine_class, entry
