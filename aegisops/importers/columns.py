"""Turns a file's columns into machine ids, clock positions, numbers and words, or refuses.

Each function takes a `SourceFile` and returns one polars Series as long as its frame. A value that
cannot be read raises `BadInput` naming file, line and column, and how many more are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Map

import polars as pl
from polars.exceptions import PanicException, PolarsError

from aegisops.errors import BadInput, ConfigurationError
from aegisops.importers.files import ROW, SourceFile, nearest
from aegisops.importers.mapping import EPOCHS, MachineId, RowClock
from aegisops.machines import Clock
from aegisops.machines.model import US_PER_SECOND
from aegisops.names import Reason

_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z, the last day a date column can name
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_ISO = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
)
_OFFSET = r"(?:[+-]\d{2}:?\d{2}|[+-]\d{2})$"


def words(file: SourceFile, column: str, field: str) -> pl.Series:
    """The column as text; null where the file has nothing."""
    file.need(column, field)
    series = file.frame[column]
    if series.dtype == pl.String:
        return series
    if series.dtype.is_float():
        whole = series.round(0)
        if series.drop_nulls().is_finite().all() and bool((series == whole).fill_null(True).all()):
            series = whole.cast(pl.Int64, strict=False)
    elif not (series.dtype.is_integer() or series.dtype in {pl.Boolean, pl.Categorical, pl.Enum}):
        raise ConfigurationError(
            f"{file.name}: column {column!r} ({field}) is {series.dtype}, not text or a number"
        )
    return series.cast(pl.String)


def refuse(
    file: SourceFile,
    column: str,
    bad: pl.Series,
    what: str,
    *,
    reason: Reason = Reason.MALFORMED,
    hint: str = "",
) -> None:
    """Raise `BadInput` for the first row where `bad`; `what` may hold {} for the row's value."""
    wrong = bad.fill_null(value=False)
    count = int(wrong.sum())
    if not count:
        return
    at = int(wrong.arg_max() or 0)
    value = file.frame[column][at] if column in file.frame.columns else None
    more = f" (and {count - 1:,} more like it)" if count > 1 else ""
    text = what.replace("{}", repr(value) if isinstance(value, str) else str(value))
    raise BadInput(reason, f"{file.where(int(file.frame[ROW][at]), column)}: {text}{more}{hint}")


def machine_ids(file: SourceFile, machine: MachineId) -> pl.Series:
    """Machine id of every row."""
    if machine.column is None:
        text = machine.constant
        if machine.file_name is not None:
            match = re.search(machine.file_name, file.name)
            if match is None or not (match[1] or "").strip():
                raise ConfigurationError(
                    f"{file.name}: machine.file_name {machine.file_name!r} finds no machine id "
                    "in this file's name"
                )
            text = match[1]
        return pl.Series("machine_id", [machine.format.format(text)]).new_from_index(
            0, file.frame.height
        )
    ids = words(file, machine.column, "machine.column")
    refuse(
        file,
        machine.column,
        ids.is_null() | (ids == ""),
        "the machine id is missing",
        reason=Reason.UNKNOWN_MACHINE,
    )
    distinct = ids.unique().to_list()
    named = {text: machine.format.format(text) for text in distinct}
    return ids.replace_strict(named, return_dtype=pl.String).alias("machine_id")


def positions(file: SourceFile, clock: RowClock, wanted: Clock) -> pl.Series:
    """Position of every row on the machine's clock, Int64 microseconds since 1970."""
    is_cycles = clock.cycles is not None
    if is_cycles != (wanted is Clock.CYCLES):
        have, want = ("cycles", "time") if is_cycles else ("time", "cycles")
        raise ConfigurationError(
            f"clock: the mapping counts {have}, the machine class's clock is {want}; "
            f'write clock = {{ {want} = "<column>" }} or change the class\'s clock'
        )
    column = clock.column
    if is_cycles:
        counts = numbers(file, column, "clock.cycles", ())
        refuse(file, column, counts.is_null(), "the cycle is missing")
        out = (counts < 0) | (counts > _LAST_SECOND)
        refuse(file, column, out, "cycle {} must be 0 or more")
        return (counts * US_PER_SECOND).round(0).cast(pl.Int64).alias("ts")
    if clock.format in EPOCHS:
        counts = numbers(file, column, "clock.time", ())
        refuse(file, column, counts.is_null(), "the time is missing")
        times = (counts * EPOCHS[clock.format]).round(0)
    else:
        times = _times(file, column, clock)
    out = (times < 0) | (times > _LAST_SECOND * US_PER_SECOND)
    refuse(file, column, out, "{} is not between the years 1970 and 9999")
    return times.cast(pl.Int64).alias("ts")


def _times(file: SourceFile, column: str, clock: RowClock) -> pl.Series:
    file.need(column, "clock.time")
    series = file.frame[column]
    if series.dtype == pl.Date:
        series = series.cast(pl.Datetime("us"))
    if isinstance(series.dtype, pl.Datetime):
        refuse(file, column, series.is_null(), "the time is missing")
        if series.dtype.time_zone is not None:
            return series.dt.convert_time_zone("UTC").dt.timestamp("us")
        return _localised(file, column, series.cast(pl.Datetime("us")), clock)
    if series.dtype != pl.String:
        raise ConfigurationError(
            f"{file.name}: column {column!r} (clock.time) is {series.dtype}; for numbers "
            'write format = "unix_s", "unix_ms" or "unix_us"'
        )
    refuse(file, column, series.is_null() | (series == ""), "the time is missing")
    if clock.format == "iso":
        return _iso(file, column, series, clock)
    if re.search(r"%[:#]*z|%\+", clock.format):
        aware = _parsed(series, [clock.format], clock.format, is_aware=True)
        _refuse_times(file, column, aware, clock.format)
        return aware.dt.timestamp("us")
    naive = _parsed(series, [clock.format], clock.format, is_aware=False)
    _refuse_times(file, column, naive, clock.format)
    return _localised(file, column, naive, clock)


def _iso(file: SourceFile, column: str, series: pl.Series, clock: RowClock) -> pl.Series:
    text = series.str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt]", "${1} ").str.replace(r"[Zz]$", "+00:00")
    has_offset = text.str.contains(r":\d{2}(\.\d+)?\s?" + _OFFSET)
    if not has_offset.any():
        naive = _parsed(text, list(_ISO), "iso", is_aware=False)
        _refuse_times(file, column, naive, "ISO 8601")
        return _localised(file, column, naive, clock)
    refuse(file, column, ~has_offset, "{} has no offset while other times of the file have one")
    text = text.str.replace(r"\s?([+-]\d{2})$", "${1}:00").str.replace(r"\s([+-])", "${1}")
    aware = _parsed(text, ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z"], "iso", is_aware=True)
    _refuse_times(file, column, aware, "ISO 8601")
    return aware.dt.timestamp("us")


def _parsed(series: pl.Series, patterns: list[str], named: str, *, is_aware: bool) -> pl.Series:
    wanted = pl.Datetime("us", "UTC") if is_aware else pl.Datetime("us")
    try:
        tries = [
            series.str.strptime(wanted, pattern, strict=False, exact=True) for pattern in patterns
        ]
        return pl.select(pl.coalesce(tries)).to_series().cast(wanted)
    except (PolarsError, PanicException) as error:
        first = (str(error).strip() or "unknown").splitlines()[0]
        raise ConfigurationError(
            f"clock.format: {named!r} is not a time pattern: {first}"
        ) from error


def _refuse_times(file: SourceFile, column: str, times: pl.Series, named: str) -> None:
    what = f"{{}} is not a time of the format {named}"
    refuse(file, column, times.is_null(), what, hint="; set clock.format in the mapping")


def _localised(file: SourceFile, column: str, naive: pl.Series, clock: RowClock) -> pl.Series:
    if clock.timezone is None and len(naive):
        raise ConfigurationError(
            f"{file.name}: the times in column {column!r} carry no offset; say which zone they "
            'are in with clock.timezone, for example timezone = "UTC"'
        )
    if clock.timezone is None or clock.timezone == "UTC":
        return naive.dt.timestamp("us")
    try:
        local = naive.dt.replace_time_zone(
            clock.timezone,
            ambiguous="null" if clock.ambiguous == "error" else clock.ambiguous,
            non_existent="null",
        )
    except (PolarsError, PanicException) as error:
        raise ConfigurationError(f"clock.timezone: {clock.timezone!r} is not usable") from error
    refuse(
        file,
        column,
        local.is_null(),
        f"{{}} does not exist or exists twice in {clock.timezone} (summer time)",
        hint='; export in UTC, or set clock.ambiguous = "earliest"',
    )
    return local.dt.convert_time_zone("UTC").dt.timestamp("us")


def numbers(file: SourceFile, column: str, field: str, missing: tuple[str, ...]) -> pl.Series:
    """The column as finite Float64; null where it holds one of `missing` or nothing."""
    file.need(column, field)
    series = file.frame[column]
    if series.dtype == pl.String:
        nothing = series.is_in(["", *missing])
        text = pl.select(pl.when(~nothing).then(series)).to_series()
        if file.source.decimal == ",":
            text = text.str.replace(",", ".", literal=True)
        values = pl.select(
            pl.when(text.str.contains(_NUMBER)).then(text.cast(pl.Float64, strict=False))
        ).to_series()
        refuse(
            file,
            column,
            text.is_not_null() & values.is_null(),
            "{} is not a number",
            hint="; list markers of missing values in `missing`",
        )
    elif series.dtype.is_numeric() or series.dtype == pl.Boolean:
        values = series.cast(pl.Float64)
        values = values.fill_nan(None) if "NaN" in missing else values
    else:
        raise ConfigurationError(
            f"{file.name}: column {column!r} ({field}) is {series.dtype}, not a number"
        )
    refuse(file, column, ~values.is_finite(), "{} is not finite", reason=Reason.NOT_FINITE)
    return values


def translated(
    file: SourceFile, column: str, field: str, table: Map[str, str], what: str
) -> pl.Series:
    """The column's words through `table`; a word not in it is refused."""
    text = words(file, column, field)
    known = list(table)
    unknown = ~text.is_in(known) | text.is_null()
    hint = ""
    if unknown.any():
        first = text.filter(unknown)[0]
        hint = f"{nearest(str(first), known)}; {field} lists: {', '.join(known)}"
    refuse(
        file,
        column,
        unknown,
        f"{{}} is not a known {what}",
        reason=Reason.UNKNOWN_VOCABULARY,
        hint=hint,
    )
    return text.replace_strict(table, return_dtype=pl.String)
