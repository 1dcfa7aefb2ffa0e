"""Files → validated readings, events and machines. Nothing is published or written here.

The whole import is read and checked before it is returned, so that a wrong line never leaves half
an import behind. Memory: about 25 bytes a reading, plus the files of one source as text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from aegisops.errors import BadInput, ConfigurationError
from aegisops.importers.context import Context
from aegisops.importers.events import read_events
from aegisops.importers.files import nearest
from aegisops.importers.fleet import machines_of, read_machines
from aegisops.importers.mapping import Mapping, find_mapping, load_mapping
from aegisops.importers.readings import read_readings
from aegisops.machines import MachineClass, load_class
from aegisops.names import EventType, Reason


@dataclass(frozen=True)
class Imported:
    """A validated import.

    Attributes:
        name: the mapping's name.
        machine_class: class of every machine in it.
        readings: machine_id, channel, ts (µs on the machine's clock), value (in the class's unit;
            null only when bad), quality; sorted by machine, time, channel; no key twice.
        events: machine_id, ts, type, code, detail; sorted by machine and time; no row twice.
        machines: machine_id, machine_class, site, area, attributes (JSON object); sorted.
        warnings: what is not wrong but worth telling people.
    """

    name: str
    machine_class: MachineClass
    readings: pl.DataFrame
    events: pl.DataFrame
    machines: pl.DataFrame
    warnings: tuple[str, ...] = ()

    @property
    def oldest_us(self) -> int:
        """Earliest position of any reading or event."""
        return int(pl.concat([self.readings["ts"], self.events["ts"]]).to_numpy().min())

    def attributes(self) -> dict[str, dict[str, str | float | None]]:
        """Attributes of each machine, by machine id."""
        rows = self.machines.select("machine_id", "attributes").iter_rows()
        return {machine: json.loads(text) for machine, text in rows}


def load(
    folder: str | Path,
    mapping: Mapping | str | Path | None = None,
    machine_class: MachineClass | str | Path | None = None,
) -> Imported:
    """Read and check a folder's files as its mapping says.

    Args:
        folder: where the files are.
        mapping: a mapping, the path of its file, or a shipped mapping's name. Absent: the folder's
            `mapping.toml`, or the shipped mapping named like the machine class.
        machine_class: a class, the path of its file or a shipped class's name; instead of the
            mapping's `machine_class`.

    Raises `ConfigurationError` when mapping, class and files do not fit together and `BadInput`
    for wrong content; the message names file, line and field.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder; give the folder that holds the files")
    if mapping is None:
        known = machine_class.name if isinstance(machine_class, MachineClass) else machine_class
        mapping = find_mapping(folder, None if known is None else str(known))
    elif not isinstance(mapping, Mapping):
        mapping = load_mapping(mapping)
    if machine_class is None:
        machine_class = mapping.machine_class
    if machine_class is None:
        raise ConfigurationError(
            f"mapping {mapping.name}: say which machine class the data is of, with "
            "machine_class in the mapping or --machine-class"
        )
    if not isinstance(machine_class, MachineClass):
        machine_class = load_class(machine_class)
    return _load(Context(folder, mapping, machine_class))


def _load(context: Context) -> Imported:
    machines = read_machines(context)
    readings = read_readings(context, None if machines is None else machines["machine_id"])
    if not readings.height:
        names = sorted({file.name for file in context.files})
        raise BadInput(Reason.MALFORMED, f"{', '.join(names)}: no readings; every value is missing")
    fleet = machines_of(context, readings) if machines is None else machines
    events = read_events(context, readings, fleet["machine_id"])
    return Imported(
        name=context.mapping.name,
        machine_class=context.machine_class,
        readings=readings,
        events=events,
        machines=fleet,
        warnings=(*context.warnings, *_remarks(context.machine_class, readings, events)),
    )


def _remarks(
    machine_class: MachineClass, readings: pl.DataFrame, events: pl.DataFrame
) -> list[str]:
    present = set(readings["channel"].cast(pl.String).unique())
    remarks = [
        f"channel {name} of class {machine_class.name} has no readings; its features stay empty "
        "and lower the coverage"
        for name in machine_class.channels
        if name not in present
    ]
    known = list(machine_class.failure_modes)
    codes = events.filter(pl.col("type") == EventType.FAILURE)["code"].unique().sort()
    remarks += [
        f"failure code {code!r} is not a failure mode of class {machine_class.name}"
        f"{nearest(code, known)}: it counts as a failure, but no mode is learnt from it"
        for code in codes
        if code not in known
    ]
    return remarks
