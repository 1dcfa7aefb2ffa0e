"""The DuckDB edge: SQL over pinned snapshots of the Delta tables, with every view in place.

Tables are views named like their folders (`bronze.readings`), made of the snapshot's Parquet files;
no extension is downloaded. Machine classes are there as `classes.machine_classes`,
`classes.features`, `classes.channels` and `classes.failure_modes`. On top come the files of
sql/views, one view each. Nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from graphlib import TopologicalSorter
from pathlib import Path
from urllib.parse import unquote

import duckdb
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from aegisops.errors import ConfigurationError
from aegisops.lake import Lake
from aegisops.machines import MachineClass, shipped_classes
from aegisops.project_files import SQL_VIEWS
from aegisops.schemas.tables import TABLES, Table

_NAMED_BY_FILE = re.compile(r"\bCREATE\s+OR\s+REPLACE\s+VIEW\s+(\w+)", re.IGNORECASE)
_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.int8(): "TINYINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


class Warehouse:
    """SQL over the lake.

    warehouse = Warehouse(settings.lake_root)
    warehouse.run("SELECT * FROM risk_ranking")
    """

    def __init__(
        self,
        lake_root: str | Path,
        classes: Mapping[str, MachineClass] | None = None,
        views: Path = SQL_VIEWS,
    ) -> None:
        """`classes`: classes whose features have names in SQL; absent = the shipped ones."""
        self._lake = Lake(lake_root)
        self._classes = shipped_classes() if classes is None else classes
        self._views = views

    def versions(self) -> dict[str, int]:
        """Current version of every existing table, to pin a later `connect` to."""
        found = {name: self._lake.version(table) for name, table in TABLES.items()}
        return {name: version for name, version in found.items() if version >= 0}

    def versions_at(self, time: datetime) -> dict[str, int]:
        """Version of every table at a time, to pin a `connect` to; -1 = it was not there yet."""
        return {
            name: self._lake.version_at(table, time)
            for name, table in TABLES.items()
            if self._lake.exists(table)
        }

    def connect(self, as_of: Mapping[str, int] | None = None) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with a view per table and per file of sql/views; close it after use.

        `as_of`: table name → version to read instead of the latest, -1 = before there was one.
        Raises `ConfigurationError` for an unknown table or version, and for a view file that does
        not fit.
        """
        snapshots = self._snapshots(as_of or {})
        connection = duckdb.connect()
        try:
            for name, handle in snapshots.items():
                if handle is not None and not _has_plain_files(handle):
                    connection.register(_arrow_name(name), _arrow(handle))
            for source, statement in self._statements(snapshots):
                try:
                    connection.execute(statement)
                except duckdb.Error as error:
                    raise ConfigurationError(f"{source}: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def run(self, sql: str, as_of: Mapping[str, int] | None = None) -> pl.DataFrame:
        """Result of the SQL's last statement, times in UTC; no rows if it has no result.

        Raises `ConfigurationError` when the SQL is wrong.
        """
        with self.connect(as_of) as connection:
            try:
                answer = connection.sql(sql)
                rows: pl.DataFrame = pl.DataFrame() if answer is None else answer.pl()
            except duckdb.Error as error:
                raise ConfigurationError(f"query: {error}") from error
        return rows

    def script(self, as_of: Mapping[str, int] | None = None) -> str:
        """All views as plain SQL, for `duckdb -init FILE`; pinned to the present snapshots.

        Raises `ConfigurationError` when a table cannot be read as plain files.
        """
        snapshots = self._snapshots(as_of or {})
        for name, handle in snapshots.items():
            if handle is not None and not _has_plain_files(handle):
                raise ConfigurationError(f"{name}: not plain local Parquet files; use aegisops sql")
        texts = (text.strip().removesuffix(";") for _, text in self._statements(snapshots))
        return "".join(f"{text};\n" for text in texts)

    def _snapshots(self, as_of: Mapping[str, int]) -> dict[str, DeltaTable | None]:
        """Every declared table's handle at one version; None where it does not exist."""
        for name in as_of:
            if name not in TABLES:
                raise ConfigurationError(f"no table {name!r}; tables: {', '.join(TABLES)}")
        return {name: self._snapshot(table, as_of.get(name)) for name, table in TABLES.items()}

    def _snapshot(self, table: Table, version: int | None) -> DeltaTable | None:
        if version == -1:
            return None
        if not self._lake.exists(table):
            if version is None:
                return None
            raise ConfigurationError(f"{table.name}: no version {version}, the table is not there")
        try:
            return self._lake.open(table, version)
        except DeltaError as error:
            latest = self._lake.version(table)
            raise ConfigurationError(
                f"{table.name}: version {version} cannot be read (latest is {latest}): {error}"
            ) from error

    def _statements(self, snapshots: Mapping[str, DeltaTable | None]) -> Iterator[tuple[str, str]]:
        """Where a statement is from, and its text; in the order they must run."""
        yield "setting", "SET TimeZone = 'UTC'"
        schemas = sorted({name.partition("/")[0] for name in TABLES} | {"classes"})
        yield from ((schema, f"CREATE SCHEMA IF NOT EXISTS {schema}") for schema in schemas)
        for name, handle in snapshots.items():
            yield name, _table_view(TABLES[name], handle)
        yield from _class_views(self._classes.values())
        yield from _views(sorted(self._views.glob("*.sql")))


def _views(files: Collection[Path]) -> Iterator[tuple[str, str]]:
    """View files, each after those it reads from."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in files}
    needs: dict[str, set[str]] = {}
    for name, text in texts.items():
        made = _NAMED_BY_FILE.findall(text)
        if made != [name]:
            raise ConfigurationError(f"{name}.sql: must create exactly the view {name}")
        needs[name] = {
            other
            for other in texts
            if other != name and re.search(rf"\b(FROM|JOIN)\s+{other}\b", text, re.IGNORECASE)
        }
    for name in TopologicalSorter(needs).static_order():
        yield f"{name}.sql", texts[name]


def _table_view(table: Table, handle: DeltaTable | None) -> str:
    view = f"CREATE OR REPLACE VIEW {table.name.replace('/', '.')} AS"
    types = {name: _sql_type(column.type) for name, column in table.columns.items()}
    typed = ", ".join(f'CAST("{name}" AS {type_}) AS "{name}"' for name, type_ in types.items())
    if handle is not None and not _has_plain_files(handle):
        return f"{view} SELECT {typed} FROM {_arrow_name(table.name)}"  # noqa: S608 - our own names
    # Paths in the log are percent-encoded; the files' names are not.
    files = [unquote(uri.removeprefix("file://")) for uri in handle.file_uris()] if handle else []
    if not files:
        nothing = ", ".join(f'CAST(NULL AS {type_}) AS "{name}"' for name, type_ in types.items())
        return f"{view} SELECT {nothing} WHERE FALSE"
    listed = ", ".join(_text(file) for file in files)
    options = "hive_partitioning = FALSE"
    if table.partition_by:
        hive = ", ".join(f"'{name}': {types[name]}" for name in table.partition_by)
        options = f"hive_partitioning = TRUE, hive_types_autocast = FALSE, hive_types = {{{hive}}}"
    return f"{view} SELECT {typed} FROM read_parquet([{listed}], {options})"  # noqa: S608 - quoted


def _has_plain_files(handle: DeltaTable) -> bool:
    """Local files whose rows are the table's rows: no deletion vectors, no renamed columns."""
    local = "://" not in handle.table_uri.removeprefix("file://")
    protocol = handle.protocol()
    special = {"deletionVectors", "columnMapping"} & set(protocol.reader_features or ())
    return local and not special and protocol.min_reader_version != 2  # noqa: PLR2004


def _arrow(handle: DeltaTable) -> pa.Table:
    """The whole snapshot in memory, read by delta-rs' own engine."""
    rows = QueryBuilder().register("snapshot", handle).execute("SELECT * FROM snapshot").read_all()
    return pa.table(rows)


def _arrow_name(name: str) -> str:
    return f"arrow_{name.replace('/', '_')}"


def _sql_type(type_: pa.DataType) -> str:
    return f"{_SQL_TYPES[type_.value_type]}[]" if pa.types.is_list(type_) else _SQL_TYPES[type_]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# --- machine classes ------------------------------------------------------------------------------

Row = tuple[str | int | float | None, ...]


def _class_views(classes: Iterable[MachineClass]) -> Iterator[tuple[str, str]]:
    features: list[Row] = []
    channels: list[Row] = []
    modes: list[Row] = []
    about: list[Row] = []
    for c in classes:
        costs = (c.costs.missed_failure, c.costs.false_alarm, c.costs.planned_stop)
        about.append((c.name, c.title, c.horizon, c.step, *costs))
        features += [
            (c.name, c.feature_set, position, name, c.unit_of(name))
            for position, name in enumerate(c.vector, 1)
        ]
        channels += [
            (c.name, name, d.title, d.unit, str(d.kind), d.period, *d.limits)
            for name, d in c.channels.items()
        ]
        modes += [(c.name, n, m.title, m.action, m.procedure) for n, m in c.failure_modes.items()]
    yield _values(
        "machine_classes",
        {
            "machine_class": "VARCHAR",
            "title": "VARCHAR",
            "horizon_us": "BIGINT",
            "step_us": "BIGINT",
            "missed_failure_cost": "DOUBLE",
            "false_alarm_cost": "DOUBLE",
            "planned_stop_cost": "DOUBLE",
        },
        about,
    )
    yield _values(
        "features",
        {
            "machine_class": "VARCHAR",
            "feature_set": "VARCHAR",
            "position": "INTEGER",
            "feature": "VARCHAR",
            "unit": "VARCHAR",
        },
        features,
    )
    yield _values(
        "channels",
        {
            "machine_class": "VARCHAR",
            "channel": "VARCHAR",
            "title": "VARCHAR",
            "unit": "VARCHAR",
            "kind": "VARCHAR",
            "period_us": "BIGINT",
            "low": "DOUBLE",
            "high": "DOUBLE",
        },
        channels,
    )
    yield _values(
        "failure_modes",
        {
            "machine_class": "VARCHAR",
            "failure_mode": "VARCHAR",
            "title": "VARCHAR",
            "action": "VARCHAR",
            "procedure": "VARCHAR",
        },
        modes,
    )


def _values(name: str, types: Mapping[str, str], rows: Iterable[Row]) -> tuple[str, str]:
    def literal(value: str | float | None) -> str:
        if value is None:
            return "NULL"
        return _text(value) if isinstance(value, str) else repr(value)

    listed = [f"({', '.join(literal(value) for value in row)})" for row in rows]
    nothing = f"({', '.join('NULL' for _ in types)})"
    typed = ", ".join(f"CAST({column} AS {type_}) AS {column}" for column, type_ in types.items())
    where = "" if listed else " WHERE FALSE"
    view = (
        f"CREATE OR REPLACE VIEW classes.{name} AS SELECT {typed} "  # noqa: S608 - quoted
        f"FROM (VALUES {', '.join(listed or [nothing])}) AS listed ({', '.join(types)}){where}"
    )
    return f"classes.{name}", view
