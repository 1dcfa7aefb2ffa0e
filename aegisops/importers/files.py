"""Opens CSV and Parquet files as text or typed columns and can say which line a row came from.

Nothing here knows what a column means. Every refusal is a `ConfigurationError` (the mapping does
not fit the file) or a `BadInput` (the file's content is wrong), naming file and line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import polars as pl
from polars.exceptions import PanicException, PolarsError

from aegisops.errors import BadInput, ConfigurationError
from aegisops.importers.mapping import Source
from aegisops.names import Reason

ROW = "_row"
"""Column added to every file's frame: the row's number from 0, blank lines counted."""


def nearest(word: str, words: Sequence[str]) -> str:
    """` (did you mean 'x'?)` for the most similar of `words`, else nothing."""
    folded = {w.casefold(): w for w in words}
    near = get_close_matches(word.casefold(), folded, n=1, cutoff=0.5)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""


@dataclass(frozen=True)
class SourceFile:
    """One opened file: its rows as Arrow-typed columns (CSV: text, trimmed) and the row number."""

    path: Path
    source: Source
    frame: pl.DataFrame

    @property
    def name(self) -> str:
        """File name as people know it."""
        return self.path.name

    @property
    def is_text(self) -> bool:
        """CSV, as opposed to Parquet."""
        return self.path.suffix != ".parquet"

    def line(self, row: int) -> int:
        """Line of the file a row starts on (CSV), or the row's number from 1 (Parquet)."""
        if not self.is_text:
            return row + 1
        skip = 0 if self.source.columns else 1
        with self.path.open(encoding=self.source.encoding, errors="replace", newline="") as file:
            reader = csv.reader(file, delimiter=self.source.separator)
            before = 0
            try:
                for number, _ in enumerate(reader):
                    if number == row + skip:
                        break
                    before = reader.line_num
            except csv.Error:  # a field too long for the csv module: count lines plainly
                return row + skip + 1
            return before + 1

    def spot(self, row: int) -> str:
        """`file.csv line 14` for messages."""
        return f"{self.name} {'line' if self.is_text else 'row'} {self.line(row)}"

    def where(self, row: int, column: str) -> str:
        """`file.csv line 14, column 'volt'` for messages."""
        return (
            f"{self.name} {'line' if self.is_text else 'row'} {self.line(row)}, column {column!r}"
        )

    def need(self, column: str, field: str) -> None:
        """Raise `ConfigurationError` unless the file has the column a mapping field names."""
        names = [name for name in self.frame.columns if name != ROW]
        if column not in names:
            raise ConfigurationError(
                f"{self.name} line 1: no column {column!r}, which the mapping names in {field}"
                f"{nearest(column, names)}; the file has: {', '.join(names)}"
            )
        if f"{column}_duplicated_0" in names:
            raise ConfigurationError(
                f"{self.name} line 1: the column {column!r} ({field}) is there twice; rename one"
            )


def open_files(folder: Path, source: Source) -> Iterator[SourceFile]:
    """The source's files in name order. Raises `ConfigurationError` for a name without a file."""
    seen: set[Path] = set()
    for pattern in source.files:
        try:
            found = sorted(path for path in folder.glob(pattern) if path.is_file())
        except (ValueError, NotImplementedError, OSError) as error:
            raise ConfigurationError(
                f"files: {pattern!r} is not a file pattern: {error}"
            ) from error
        if not found:
            there = sorted(path.name for path in folder.iterdir() if path.is_file())
            raise ConfigurationError(
                f"{folder}: no file {pattern!r}{nearest(pattern, there)}; "
                f"the folder has: {', '.join(there) or 'nothing'}"
            )
        for path in found:
            if path not in seen:
                seen.add(path)
                yield _open(path, source)


def _open(path: Path, source: Source) -> SourceFile:
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path, source)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(Reason.MALFORMED, _not_text(path, source, error.start)) from error
    except (PolarsError, PanicException, ValueError, csv.Error) as error:
        raise BadInput(Reason.MALFORMED, _broken(path, source, error)) from error
    if ROW in frame.columns:
        raise ConfigurationError(f"{path.name}: the column name {ROW!r} is reserved; rename it")
    frame = frame.with_row_index(ROW)
    if path.suffix != ".parquet":
        blank = pl.all_horizontal(pl.exclude(ROW).is_null())
        frame = frame.filter(~blank) if len(frame.columns) > 1 else frame
    return SourceFile(path, source, frame)


def _read_csv(path: Path, source: Source) -> pl.DataFrame:
    utf8 = source.encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"}
    frame = pl.read_csv(
        path,
        separator=source.separator,
        has_header=not source.columns,
        infer_schema=False,
        encoding="utf8" if utf8 else source.encoding,
    )
    names = [name.strip() for name in frame.columns]
    if source.columns:
        if len(source.columns) > len(names):
            raise ConfigurationError(
                f"{path.name} line 1: has {len(names)} columns, "
                f"the mapping's `columns` names {len(source.columns)}"
            )
        names[: len(source.columns)] = source.columns
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"{path.name} line 1: the column {twice!r} is there twice")
    frame.columns = names
    return frame.with_columns(pl.all().str.strip_chars())


def _not_text(path: Path, source: Source, at: int) -> str:
    line = path.read_bytes()[:at].count(b"\n") + 1
    return (
        f"{path.name} line {line}: not {source.encoding} text; "
        'name the encoding in the mapping, for example encoding = "latin-1"'
    )


def _broken(path: Path, source: Source, error: BaseException) -> str:
    """What is wrong with a file the parser refused, with the line if it can be found."""
    if path.suffix == ".parquet":
        return f"{path.name}: not a readable Parquet file: {_first_line(error)}"
    raw = path.read_bytes()
    if not raw.strip():
        return f"{path.name}: the file is empty"
    try:
        raw.decode(source.encoding)
    except UnicodeDecodeError as undecodable:
        return _not_text(path, source, undecodable.start)
    with path.open(encoding=source.encoding, newline="") as file:
        reader = csv.reader(file, delimiter=source.separator)
        try:
            width = len(next(reader))
            for fields in reader:
                if len(fields) > width:
                    return (
                        f"{path.name} line {reader.line_num}: {len(fields)} fields, "
                        f"the first line has {width}; check separator and quotes"
                    )
        except (csv.Error, StopIteration) as unreadable:
            return f"{path.name} line {reader.line_num}: {unreadable}; check separator and quotes"
    return f"{path.name}: not readable as CSV: {_first_line(error)}; check separator and quotes"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
