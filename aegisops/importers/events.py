"""Files of failures, maintenance and errors → one frame of events. See `mapping.EventsSource`."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from aegisops.importers import columns
from aegisops.importers.context import FILE, Context, repeated
from aegisops.importers.files import ROW, SourceFile
from aegisops.importers.mapping import EventsSource
from aegisops.names import EventType

EVENTS_SCHEMA: dict[str, type[pl.DataType]] = {
    "machine_id": pl.String,
    "ts": pl.Int64,
    "type": pl.String,
    "code": pl.String,
    "detail": pl.String,
}


def read_events(context: Context, readings: pl.DataFrame, machines: pl.Series) -> pl.DataFrame:
    """Events of every source: `EVENTS_SCHEMA`, sorted by machine and time; no event twice.

    `machines`: ids of the whole fleet; an event of another machine is refused.
    """
    schema: dict[str, type[pl.DataType]] = {FILE: pl.UInt16, ROW: pl.UInt32, **EVENTS_SCHEMA}
    parts = [pl.DataFrame(schema=schema)]
    for source in context.mapping.events:
        if source.at == "end_of_readings":
            parts.append(_ends(source, readings))
            continue
        for index, file in context.open(source):
            parts.append(_rows(context, source, index, file, machines))
    events = pl.concat([part.select(list(schema)).cast(schema) for part in parts])  # type: ignore[arg-type]
    rows = context.unique(events, ["machine_id", "ts", "type", "code"], "an event")
    return rows.select(list(EVENTS_SCHEMA))


def _rows(
    context: Context, source: EventsSource, index: int, file: SourceFile, machines: pl.Series
) -> pl.DataFrame:
    if source.when is not None:
        marks = columns.words(file, source.when.column, "when.column")
        chosen = marks.is_in(list(source.when.values)).fill_null(value=False)
        file = replace(file, frame=file.frame.filter(chosen))
    keys = context.keys(index, file, source)
    context.refuse_strangers(file, source, keys["machine_id"], machines)
    return keys.with_columns(
        _types(source, file).alias("type"),
        _codes(context, source, file).alias("code"),
        _details(source, file).alias("detail"),
    )


def _types(source: EventsSource, file: SourceFile) -> pl.Series:
    if source.type_column is None:
        return repeated(str(source.type), file)
    table = {str(word): str(word) for word in EventType}
    table |= {word: str(kind) for word, kind in source.types.items()}
    return columns.translated(file, source.type_column, "types", table, "event type")


def _codes(context: Context, source: EventsSource, file: SourceFile) -> pl.Series:
    if source.code_column is None:
        return repeated(source.code or "", file)
    if source.codes:
        return columns.translated(file, source.code_column, "codes", source.codes, "code")
    codes = columns.words(file, source.code_column, "code_column")
    nothing = codes.is_null() | codes.is_in(list(context.missing(source)))
    return pl.select(pl.when(nothing).then(pl.lit("")).otherwise(codes)).to_series()


def _details(source: EventsSource, file: SourceFile) -> pl.Series:
    if source.detail_column is None:
        return repeated("", file)
    return columns.words(file, source.detail_column, "detail_column").fill_null("")


def _ends(source: EventsSource, readings: pl.DataFrame) -> pl.DataFrame:
    """One event per machine at its last reading: run-to-failure data ends so."""
    last = readings.group_by("machine_id").agg(pl.col("ts").max())
    return last.with_columns(
        pl.lit(0).alias(FILE),
        pl.lit(0).alias(ROW),
        pl.lit(str(source.type)).alias("type"),
        pl.lit(source.code or "").alias("code"),
        pl.lit("end of readings").alias("detail"),
    )
