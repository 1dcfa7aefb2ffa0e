"""What the steps of one import share: files, keys of rows, and checks across files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from aegisops.errors import BadInput
from aegisops.importers import columns
from aegisops.importers.files import ROW, SourceFile, open_files
from aegisops.importers.mapping import Duplicates, Mapping, Source
from aegisops.machines import MachineClass
from aegisops.names import Reason

FILE = "_file"
"""Column with the index of a row's file in `Context.files`, so that late errors have a line."""


@dataclass
class Context:
    """One import while it runs."""

    folder: Path
    mapping: Mapping
    machine_class: MachineClass
    warnings: list[str] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    """Files opened so far, without their rows."""

    def open(self, source: Source) -> list[tuple[int, SourceFile]]:
        """The source's files, each with its index."""
        first = len(self.files)
        opened = list(open_files(self.folder, source))
        self.files += [replace(file, frame=file.frame.clear()) for file in opened]
        return list(enumerate(opened, first))

    def missing(self, source: Source) -> tuple[str, ...]:
        """Markers of a missing value in the source's files."""
        return self.mapping.missing if source.missing is None else source.missing

    def ids(self, file: SourceFile, source: Source) -> pl.Series:
        """Machine id of every row."""
        machine = source.machine or self.mapping.machine
        assert machine is not None  # noqa: S101 - the mapping's validator saw to it
        return columns.machine_ids(file, machine)

    def keys(self, index: int, file: SourceFile, source: Source) -> pl.DataFrame:
        """_file, _row, machine_id, ts (Int64 µs) of every row."""
        clock = source.clock or self.mapping.clock
        assert clock is not None  # noqa: S101 - the mapping's validator saw to it
        return pl.DataFrame(
            {
                FILE: repeated(index, file, pl.UInt16),
                ROW: file.frame[ROW],
                "machine_id": self.ids(file, source),
                "ts": columns.positions(file, clock, self.machine_class.clock),
            }
        )

    def refuse_strangers(
        self, file: SourceFile, source: Source, ids: pl.Series, known: pl.Series
    ) -> None:
        """Raise `BadInput` for a row whose machine is not among the `known` ids."""
        strange = ~ids.is_in(known.implode())
        if strange.any():
            machine = source.machine or self.mapping.machine
            listed = self.mapping.machines
            where = ", ".join(listed.files) if listed else "any file of readings"
            columns.refuse(
                file,
                (machine.column if machine else None) or "machine id",
                strange,
                f"machine {ids.filter(strange)[0]!r} is not in {where}",
                reason=Reason.UNKNOWN_MACHINE,
            )

    def unique(self, rows: pl.DataFrame, keys: list[str], what: str) -> pl.DataFrame:
        """Rows sorted by `keys`, each key once, as the mapping's `duplicates` says."""
        rows = rows.sort([*keys, FILE, ROW])
        same = pl.all_horizontal(pl.col(key) == pl.col(key).shift() for key in keys)
        again = rows.select(same.fill_null(value=False)).to_series()
        count = int(again.sum())
        if not count:
            return rows
        if self.mapping.duplicates is Duplicates.ERROR:
            at = int(again.arg_max() or 0)
            key = ", ".join(f"{name} {rows[name][at]}" for name in keys)
            raise BadInput(
                Reason.DUPLICATE,
                f"{self.line(rows, at)}: {what} ({key}) is already in {self.line(rows, at - 1)} "
                f"({count:,} such rows); remove them, or set duplicates = "
                '"first" or "last" in the mapping',
            )
        self.warnings.append(f"{count:,} rows repeat {what} and were left out")
        last = again.shift(-1, fill_value=False)
        return rows.filter(~again if self.mapping.duplicates is Duplicates.FIRST else ~last)

    def line(self, rows: pl.DataFrame, at: int) -> str:
        """`file line N` of a row that has _file and _row."""
        return self.files[int(rows[FILE][at])].spot(int(rows[ROW][at]))


def repeated(value: str | int, file: SourceFile, dtype: type[pl.DataType] = pl.String) -> pl.Series:
    """One value for every row of the file."""
    return pl.Series([value], dtype=dtype).new_from_index(0, file.frame.height)
