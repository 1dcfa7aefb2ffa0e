"""What a mapping file may say, validated, and how it is found. Reading data is the reader's work.

A mapping tells which files of a folder hold readings, events and machines, and which column means
what. `docs/importing.md` is its reference for people.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from aegisops.errors import ConfigurationError
from aegisops.names import EventType

SHIPPED = Path(__file__).parent / "mappings"
FOLDER_MAPPING = "mapping.toml"
"""A folder's own mapping, used when none is given."""

EPOCHS = {"unix_s": 1_000_000, "unix_ms": 1_000, "unix_us": 1}
"""Time formats that are numbers, and the microseconds of one count."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError in disguise
        raise ValueError(f"{name!r} is not an IANA time zone such as Europe/Berlin") from error
    except KeyError as error:
        raise ValueError(f"{name!r} is not an IANA time zone such as Europe/Berlin") from error
    return name


def _encoding(name: str) -> str:
    try:
        codecs.lookup(name)
    except (LookupError, ValueError) as error:
        raise ValueError(f"{name!r} is not a text encoding such as utf-8 or latin-1") from error
    return name


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_list)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Duplicates(StrEnum):
    """What to do when a machine has two values of one channel at one time."""

    ERROR = "error"
    FIRST = "first"
    LAST = "last"


class MachineId(_Frozen):
    """Where a row's machine id comes from: a column, the file's name, or one constant."""

    column: str | None = None
    constant: str | None = None
    file_name: str | None = None
    """Regular expression on the file name; its first group is the id."""
    format: str = "{}"
    """Text around the id (`press-{}`), so that ids are unique in the fleet."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [n for n in ("column", "constant", "file_name") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of column, constant, file_name")
        if self.constant is not None and not self.constant.strip():
            raise ValueError("constant must not be empty")
        if self.file_name is not None:
            try:
                groups = re.compile(self.file_name).groups
            except re.error as error:
                raise ValueError(f"file_name: not a regular expression: {error}") from error
            if groups < 1:
                raise ValueError("file_name: needs a (group) around the machine id")
        try:
            formatted = [self.format.format(text) for text in ("a", "b")]
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"format: {self.format!r} is not like 'press-{{}}'") from error
        if formatted[0] == formatted[1]:
            raise ValueError(f"format: {self.format!r} must contain {{}}, the id's place")
        return self


class RowClock(_Frozen):
    """Which column is the row's position on the machine's clock: a time or a cycle counter."""

    time: str | None = None
    cycles: str | None = None
    format: str = "iso"
    """`iso`, `unix_s`, `unix_ms`, `unix_us`, or a pattern such as `%d.%m.%Y %H:%M`."""
    timezone: Annotated[str, AfterValidator(_timezone)] | None = None
    """Zone of times that carry no offset; required for them."""
    ambiguous: Literal["error", "earliest", "latest"] = "error"
    """The hour that comes twice when summer time ends."""

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if (self.time is None) == (self.cycles is None):
            raise ValueError("give exactly one of time (a time column) and cycles (a counter)")
        pattern = self.format not in {"iso", *EPOCHS}
        if pattern and "%" not in self.format:
            raise ValueError(
                f"format: {self.format!r} is not iso, unix_s, unix_ms, unix_us or a pattern "
                "such as %d.%m.%Y %H:%M"
            )
        return self

    @property
    def column(self) -> str:
        """The clock's column."""
        return self.time if self.time is not None else str(self.cycles)


class Source(_Frozen):
    """Files of one shape. CSV unless the name ends in .parquet."""

    files: Words = Field(min_length=1)
    """File names or patterns (`press_*.csv`) inside the folder."""
    separator: str = Field(default=",", min_length=1, max_length=1)
    columns: tuple[str, ...] = ()
    """Names of the columns, in order, for a file without a header line."""
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    decimal: Literal[".", ","] = "."
    missing: tuple[str, ...] | None = None
    """Markers of a missing value here, instead of the mapping's."""
    machine: MachineId | None = None
    clock: RowClock | None = None

    @model_validator(mode="after")
    def _inside_the_folder(self) -> Self:
        for name in self.files:
            if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"files: {name!r} must be a name inside the folder")
        if not (self.separator.isprintable() or self.separator == "\t"):
            raise ValueError("separator: one printable character or a tab")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("columns: every name must be different")
        return self


class MappedChannel(_Frozen):
    """One channel of the machine class and where its values are."""

    unit: str
    column: str | None = None
    """Wide tables: the column with its values; the channel's own name when absent."""
    tag: str | None = None
    """Long tables: its name in the channel column; the channel's own name when absent."""


class MappedQuality(_Frozen):
    """A column that says how good a row's values are, and what its words mean."""

    column: str
    good: tuple[str, ...] = ("good", "Good", "0")
    uncertain: tuple[str, ...] = ("uncertain", "Uncertain", "1")
    bad: tuple[str, ...] = ("bad", "Bad", "2")


class ReadingsSource(Source):
    """Files with readings: wide (a column per channel) or long (channel and value columns)."""

    channels: dict[str, MappedChannel] = Field(min_length=1)
    channel_column: str | None = None
    value_column: str | None = None
    quality: MappedQuality | None = None

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if (self.channel_column is None) != (self.value_column is None):
            raise ValueError("a long table needs both channel_column and value_column")
        for name, channel in self.channels.items():
            if self.is_long and channel.column is not None:
                raise ValueError(f"channels.{name}: in a long table write tag, not column")
            if not self.is_long and channel.tag is not None:
                raise ValueError(
                    f"channels.{name}: tag needs a long table (channel_column, value_column)"
                )
        names = [self.name_of(name) for name in self.channels]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"channels: {twice[0]!r} is the source of two channels")
        return self

    @property
    def is_long(self) -> bool:
        """One reading per row instead of one column per channel."""
        return self.channel_column is not None

    def name_of(self, channel: str) -> str:
        """What the files call this channel: its column, or its tag in a long table."""
        declared = self.channels[channel]
        return (declared.tag if self.is_long else declared.column) or channel


class When(_Frozen):
    """Only rows whose column has one of these values."""

    column: str
    values: Words = Field(min_length=1)


class EventsSource(Source):
    """Events: rows of files, or the end of each machine's readings (run-to-failure data)."""

    files: Words = ()
    at: Literal["rows", "end_of_readings"] = "rows"
    type: EventType | None = None
    type_column: str | None = None
    types: dict[str, EventType] = {}
    code: str | None = None
    code_column: str | None = None
    codes: dict[str, str] = {}
    """Words of the code column → codes of the machine class; unlisted words are then errors."""
    detail_column: str | None = None
    when: When | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.type is None) == (self.type_column is None):
            raise ValueError("give exactly one of type and type_column")
        if self.code is not None and self.code_column is not None:
            raise ValueError("give code (one for all) or code_column, not both")
        if self.codes and self.code_column is None:
            raise ValueError("codes translates the words of code_column, which is absent")
        if self.at == "rows" and not self.files:
            raise ValueError("files: name the files, or write at = 'end_of_readings'")
        if self.at == "end_of_readings":
            rows_only = ("files", "type_column", "code_column", "detail_column", "when")
            given = [name for name in rows_only if getattr(self, name)]
            if given:
                raise ValueError(f"at = 'end_of_readings' reads no rows: remove {given[0]}")
        return self


class MachinesSource(Source):
    """A file with one row per machine: fixed attributes, site, area and owner."""

    attributes: dict[str, str] = {}
    """Attribute of the machine class → column."""
    site_column: str | None = None
    area_column: str | None = None
    owner_column: str | None = None
    """Who looks after the machine; kept as the attribute `owner`."""
    clock: None = None


class Mapping(_Frozen):
    """A whole mapping file."""

    name: str = Field(pattern=_NAME)
    """Name of the import; bulk rows carry `_topic = import/<name>`."""
    machine_class: str | None = None
    """Shipped class, or a .toml path relative to the mapping file."""
    site: str = ""
    area: str = ""
    missing: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
    duplicates: Duplicates = Duplicates.ERROR
    machine: MachineId | None = None
    clock: RowClock | None = None
    readings: tuple[ReadingsSource, ...] = Field(min_length=1)
    events: tuple[EventsSource, ...] = ()
    machines: MachinesSource | None = None

    @model_validator(mode="after")
    def _every_file_has_machine_and_clock(self) -> Self:
        rows: list[tuple[str, Source]] = [(f"readings.{i}", s) for i, s in enumerate(self.readings)]
        rows += [(f"events.{i}", s) for i, s in enumerate(self.events) if s.at == "rows"]
        for where, source in rows:
            if source.machine is None and self.machine is None:
                raise ValueError(f"{where}.machine: say where the machine id is ([machine])")
            if source.clock is None and self.clock is None:
                raise ValueError(f"{where}.clock: say where the time or cycle is ([clock])")
        if self.machines and self.machines.machine is None and self.machine is None:
            raise ValueError("machines.machine: say which column is the machine id")
        return self


def load_mapping(source: str | Path) -> Mapping:
    """The mapping in a TOML file, or the shipped mapping of that name.

    A `machine_class` path is resolved against the mapping file. Raises `ConfigurationError`
    naming the file and every wrong field.
    """
    path = Path(source)
    if path.suffix != ".toml":
        path = SHIPPED / f"{source}.toml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
            raise ConfigurationError(
                f"no mapping {str(source)!r}; shipped mappings: {known}. For your own data give "
                "the path of a .toml file; docs/importing.md shows how to write one."
            )
    try:
        text = path.read_bytes().decode("utf-8")
        return parse_mapping(text, path)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text: {error}") from error


def parse_mapping(text: str, path: Path) -> Mapping:
    """The mapping in TOML text; `path` names it in errors and anchors relative paths."""
    try:
        mapping = Mapping.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise ConfigurationError(f"{path}: {problems}") from error
    named = mapping.machine_class
    if named is not None and named.endswith(".toml"):
        return mapping.model_copy(update={"machine_class": str(path.parent / named)})
    return mapping


def find_mapping(folder: Path, machine_class: str | None = None) -> Mapping:
    """The folder's own `mapping.toml`, else the shipped mapping named like the machine class."""
    own = folder / FOLDER_MAPPING
    if own.is_file():
        return load_mapping(own)
    if machine_class is not None and (SHIPPED / f"{machine_class}.toml").is_file():
        return load_mapping(machine_class)
    raise ConfigurationError(
        f"{folder}: no {FOLDER_MAPPING} in this folder and no mapping given; "
        "docs/importing.md shows how to write one in ten minutes"
    )
