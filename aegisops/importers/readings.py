"""Files of readings, wide or long, → one frame of readings. See `mapping.ReadingsSource`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from aegisops.errors import ConfigurationError
from aegisops.importers import columns
from aegisops.importers.context import Context, repeated
from aegisops.importers.files import ROW, SourceFile, nearest
from aegisops.importers.mapping import ReadingsSource
from aegisops.importers.units import conversion
from aegisops.machines import ChannelKind
from aegisops.names import Quality

READINGS_SCHEMA: dict[str, type[pl.DataType]] = {
    "machine_id": pl.Categorical,
    "channel": pl.Categorical,
    "ts": pl.Int64,
    "value": pl.Float64,
    "quality": pl.Int8,
}
_SUSPICIOUS_SHARE = 0.05
"""More values than this outside a channel's limits look like a wrong unit, not like bad sensors."""


def read_readings(context: Context, machines: pl.Series | None) -> pl.DataFrame:
    """Readings of every source: `READINGS_SCHEMA`, sorted by machine, time, channel; no key twice.

    `machines`: known machine ids, or None when no file lists them.
    """
    for index, source in enumerate(context.mapping.readings):
        _check_channels(context, source, f"readings.{index}")
    parts = [
        part for source in context.mapping.readings for part in _source(context, source, machines)
    ]
    rows = context.unique(pl.concat(parts), ["machine_id", "ts", "channel"], "a value of")
    return rows.select(list(READINGS_SCHEMA))


def _check_channels(context: Context, source: ReadingsSource, where: str) -> None:
    machine_class = context.machine_class
    declared = machine_class.channels
    for name, channel in source.channels.items():
        spot = f"mapping {context.mapping.name}: {where}.channels.{name}"
        if name not in declared:
            raise ConfigurationError(
                f"{spot}: machine class {machine_class.name} has no such channel"
                f"{nearest(name, list(declared))}; it has: {', '.join(declared)}"
            )
        if declared[name].kind is ChannelKind.WAVEFORM:
            raise ConfigurationError(
                f"{spot}: {name} is a waveform; files of captures cannot be imported. "
                "Send captures as blocks with a sampling period to the readings topic"
            )
        try:
            conversion(channel.unit, declared[name].unit)
        except ConfigurationError as error:
            raise ConfigurationError(f"{spot}.unit: {error}") from error


def _source(
    context: Context, source: ReadingsSource, machines: pl.Series | None
) -> list[pl.DataFrame]:
    parts: list[pl.DataFrame] = []
    seen: set[str] = set()
    opened = context.open(source)
    for index, file in opened:
        keys = context.keys(index, file, source)
        if machines is not None:
            context.refuse_strangers(file, source, keys["machine_id"], machines)
        if source.is_long:
            parts += _long(context, source, file, keys, seen)
        else:
            parts += [_channel(context, source, name, file, keys) for name in source.channels]
    if source.is_long:
        _refuse_unseen(source, [file for _, file in opened], seen)
    return parts


def _long(
    context: Context,
    source: ReadingsSource,
    file: SourceFile,
    keys: pl.DataFrame,
    seen: set[str],
) -> list[pl.DataFrame]:
    tags = columns.words(file, str(source.channel_column), "channel_column")
    parts = []
    mapped = 0
    for name in source.channels:
        mine = (tags == source.name_of(name)).fill_null(value=False)
        if mine.any():
            seen.add(name)
            mapped += int(mine.sum())
            rows = replace(file, frame=file.frame.filter(mine))
            parts.append(_channel(context, source, name, rows, keys.filter(mine)))
    if mapped < len(tags):
        context.warnings.append(
            f"{file.name}: {len(tags) - mapped:,} rows of tags that are not mapped, left out"
        )
    return parts


def _refuse_unseen(source: ReadingsSource, files: Sequence[SourceFile], seen: set[str]) -> None:
    unseen = [name for name in source.channels if name not in seen]
    if not unseen:
        return
    column, tag = str(source.channel_column), source.name_of(unseen[0])
    found: set[str] = set()
    for file in files:
        found |= set(columns.words(file, column, "channel_column").drop_nulls().unique())
    raise ConfigurationError(
        f"{', '.join(file.name for file in files)}: no row has {tag!r} in column {column!r}, "
        f"which the mapping names for the channel {unseen[0]}{nearest(tag, sorted(found))}"
    )


def _channel(
    context: Context, source: ReadingsSource, name: str, file: SourceFile, keys: pl.DataFrame
) -> pl.DataFrame:
    """One channel's rows of one file, in the class's unit; missing values give no row."""
    column = str(source.value_column) if source.is_long else source.name_of(name)
    field = "value_column" if source.is_long else f"channels.{name}"
    values = columns.numbers(file, column, field, context.missing(source))
    quality = _quality(source, file)
    declared = context.machine_class.channels[name]
    factor, offset = conversion(source.channels[name].unit, declared.unit)
    if (factor, offset) != (1.0, 0.0):
        values = values * factor + offset
    absent = values.is_null() & (quality != Quality.BAD)
    if absent.any():
        where = file.where(int(file.frame[ROW][int(absent.arg_max() or 0)]), column)
        context.warnings.append(
            f"{where}: {int(absent.sum()):,} of {len(values):,} values of {name} are missing"
        )
    low, high = declared.limits
    out = int(((values < low) | (values > high)).sum())
    if out > _SUSPICIOUS_SHARE * len(values):
        context.warnings.append(
            f"{file.name}: {out:,} of {len(values):,} values of {name} are outside the class's "
            f"limits {low:g} to {high:g} {declared.unit} and will be quarantined; "
            f"is the unit {source.channels[name].unit!r} right?"
        )
    return keys.with_columns(
        pl.col("machine_id").cast(pl.Categorical),
        pl.lit(name).cast(pl.Categorical).alias("channel"),
        values.alias("value"),
        quality.alias("quality"),
    ).filter(~absent)


def _quality(source: ReadingsSource, file: SourceFile) -> pl.Series:
    words = source.quality
    if words is None:
        return repeated(int(Quality.GOOD), file, pl.Int8)
    table = dict.fromkeys(words.good, "0") | dict.fromkeys(words.uncertain, "1")
    table |= dict.fromkeys(words.bad, "2")
    return columns.translated(file, words.column, "quality", table, "quality").cast(pl.Int8)
