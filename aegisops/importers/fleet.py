"""The file of machines → the fleet's registrations. See `mapping.MachinesSource`."""

from __future__ import annotations

import json

import polars as pl

from aegisops.errors import BadInput, ConfigurationError
from aegisops.importers import columns
from aegisops.importers.context import FILE, Context, repeated
from aegisops.importers.files import ROW, SourceFile, nearest
from aegisops.importers.mapping import MachinesSource
from aegisops.names import Reason

MACHINES_SCHEMA: dict[str, type[pl.DataType]] = {
    "machine_id": pl.String,
    "machine_class": pl.String,
    "site": pl.String,
    "area": pl.String,
    "attributes": pl.String,
}


def read_machines(context: Context) -> pl.DataFrame | None:
    """Machines of the file: `MACHINES_SCHEMA`, sorted; None when the mapping names no file."""
    source = context.mapping.machines
    if source is None:
        return None
    _check_attributes(context, source)
    rows = pl.concat([_rows(context, source, index, file) for index, file in context.open(source)])
    rows = rows.sort("machine_id", FILE, ROW)
    again = (rows["machine_id"] == rows["machine_id"].shift()).fill_null(value=False)
    if again.any():
        at = int(again.arg_max() or 0)
        raise BadInput(
            Reason.DUPLICATE,
            f"{context.line(rows, at)}: machine {rows['machine_id'][at]!r} is already in "
            f"{context.line(rows, at - 1)}; keep one row per machine",
        )
    return rows.select(list(MACHINES_SCHEMA))


def machines_of(context: Context, readings: pl.DataFrame) -> pl.DataFrame:
    """Every machine that has readings, without attributes: `MACHINES_SCHEMA`, sorted."""
    return pl.DataFrame({"machine_id": readings["machine_id"].cast(pl.String).unique()}).select(
        pl.col("machine_id").sort(),
        machine_class=pl.lit(context.machine_class.name),
        site=pl.lit(context.mapping.site),
        area=pl.lit(context.mapping.area),
        attributes=pl.lit("{}"),
    )


def _check_attributes(context: Context, source: MachinesSource) -> None:
    known = list(context.machine_class.attributes)
    for name in source.attributes:
        if name not in known:
            raise ConfigurationError(
                f"mapping {context.mapping.name}: machines.attributes.{name}: machine class "
                f"{context.machine_class.name} has no such attribute{nearest(name, known)}; "
                f"it has: {', '.join(known) or 'none'}"
            )


def _rows(context: Context, source: MachinesSource, index: int, file: SourceFile) -> pl.DataFrame:
    given: dict[str, list[str | float | None]] = {}
    for name, column in source.attributes.items():
        values = context.machine_class.attributes[name].values
        field = f"machines.attributes.{name}"
        if values:
            table = {value: value for value in values}
            given[name] = columns.translated(file, column, field, table, name).to_list()
        else:
            given[name] = columns.numbers(file, column, field, context.missing(source)).to_list()

    if source.owner_column is not None:
        field = "machines.owner_column"
        given["owner"] = columns.words(file, source.owner_column, field).to_list()

    def text(column: str | None, default: str, field: str) -> pl.Series:
        if column is None:
            return repeated(default, file)
        return columns.words(file, column, field).fill_null(default)

    rows = range(file.frame.height)
    return pl.DataFrame(
        {
            FILE: repeated(index, file, pl.UInt16),
            ROW: file.frame[ROW],
            "machine_id": context.ids(file, source),
            "machine_class": repeated(context.machine_class.name, file),
            "site": text(source.site_column, context.mapping.site, "machines.site_column"),
            "area": text(source.area_column, context.mapping.area, "machines.area_column"),
            "attributes": pl.Series(
                [
                    json.dumps(
                        {name: column[row] for name, column in given.items()}, sort_keys=True
                    )
                    for row in rows
                ],
                dtype=pl.String,
            ),
        }
    )
