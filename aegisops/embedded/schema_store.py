"""Schemas, their versions and the compatibility rules: SQLite, no HTTP.

Ids are stable and never used twice. A text means one schema whatever its spaces and key order.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import Schema, parse

from aegisops.errors import Permanent

DEFAULT_LEVEL = "BACKWARD"
LEVELS = (
    "NONE",
    *(f"{a}{b}" for a in ("BACKWARD", "FORWARD", "FULL") for b in ("", "_TRANSITIVE")),
)

# Error codes of the Confluent Schema Registry API; the HTTP status is their first three digits.
SUBJECT_NOT_FOUND = 40401
VERSION_NOT_FOUND = 40402
SCHEMA_NOT_FOUND = 40403
NO_SUBJECT_LEVEL = 40408
INCOMPATIBLE = 409
INVALID_SCHEMA = 42201
INVALID_VERSION = 42202
INVALID_LEVEL = 42203


class Refused(Permanent):
    """A request that the registry answers with an error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a subject."""

    subject: str
    number: int
    schema_id: int
    text: str


class SchemaStore:
    """The registry's state in one SQLite file. Use from one thread at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The server's thread is not always the one that made the store; it is the only one then.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Free the file."""
        self._db.close()

    def register(self, subject: str, text: str) -> int:
        """Id of the schema, which becomes the subject's newest version unless it is one already."""
        schema = _parsed(text)
        identity = _identity(text)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            schema_id = self._register(subject, text, identity, schema)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return schema_id

    def _register(self, subject: str, text: str, identity: str, schema: Schema) -> int:
        known = self._versions(subject)
        for version in known:
            if _identity(version.text) == identity:
                return version.schema_id
        problems = self._problems(subject, schema, known)
        if problems:
            raise Refused(
                INCOMPATIBLE,
                f"schema is incompatible with subject {subject!r} ({self.level(subject)}): "
                + "; ".join(problems),
            )
        self._db.execute(
            "INSERT INTO schemas (identity, text) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (identity, text),
        )
        (schema_id,) = self._db.execute(
            "SELECT id FROM schemas WHERE identity = ?", (identity,)
        ).fetchone()
        number = known[-1].number + 1 if known else 1
        self._db.execute("INSERT INTO versions VALUES (?, ?, ?)", (subject, number, schema_id))
        return int(schema_id)

    def text(self, schema_id: int) -> str:
        """JSON of a schema."""
        row = self._db.execute("SELECT text FROM schemas WHERE id = ?", (schema_id,)).fetchone()
        if row is None:
            raise Refused(SCHEMA_NOT_FOUND, f"schema {schema_id} not found")
        return str(row[0])

    def subjects(self) -> list[str]:
        """All subjects, sorted."""
        rows = self._db.execute("SELECT DISTINCT subject FROM versions ORDER BY subject")
        return [subject for (subject,) in rows]

    def uses(self, schema_id: int) -> list[tuple[str, int]]:
        """(subject, version) pairs of a schema."""
        self.text(schema_id)
        return self._db.execute(
            "SELECT subject, version FROM versions WHERE schema_id = ? ORDER BY subject, version",
            (schema_id,),
        ).fetchall()

    def versions(self, subject: str) -> list[Version]:
        """All versions of a subject, oldest first."""
        known = self._versions(subject)
        if not known:
            raise Refused(SUBJECT_NOT_FOUND, f"subject {subject!r} not found")
        return known

    def version(self, subject: str, wanted: str) -> Version:
        """One version by number, or `latest` (also -1)."""
        known = self.versions(subject)
        if wanted in ("latest", "-1"):
            return known[-1]
        if not wanted.isdecimal() or not int(wanted):
            raise Refused(INVALID_VERSION, f"version {wanted!r} is neither a number nor `latest`")
        for version in known:
            if version.number == int(wanted):
                return version
        raise Refused(VERSION_NOT_FOUND, f"version {wanted} of subject {subject!r} not found")

    def find(self, subject: str, text: str) -> Version:
        """The version of a subject that is this schema."""
        _parsed(text)
        for version in self.versions(subject):
            if _identity(version.text) == _identity(text):
                return version
        raise Refused(SCHEMA_NOT_FOUND, f"subject {subject!r} has no such schema")

    def problems(self, subject: str, wanted: str, text: str) -> list[str]:
        """Why a schema is incompatible with one version; empty when it is not."""
        return self._problems(subject, _parsed(text), [self.version(subject, wanted)])

    def level(self, subject: str | None = None) -> str:
        """Compatibility level in force for a subject, or the global one."""
        rows = dict(
            self._db.execute(
                "SELECT subject, level FROM config WHERE subject IN (?, '')", (subject,)
            )
        )
        return str(rows.get(subject) or rows.get("") or DEFAULT_LEVEL)

    def own_level(self, subject: str) -> str:
        """The level set for this very subject."""
        row = self._db.execute("SELECT level FROM config WHERE subject = ?", (subject,)).fetchone()
        if row is None:
            raise Refused(
                NO_SUBJECT_LEVEL, f"subject {subject!r} has no compatibility level of its own"
            )
        return str(row[0])

    def set_level(self, level: str, subject: str = "") -> None:
        """Set the level of a subject, or the global one."""
        if level not in LEVELS:
            raise Refused(INVALID_LEVEL, f"level {level!r} is none of {', '.join(LEVELS)}")
        self._db.execute("INSERT OR REPLACE INTO config VALUES (?, ?)", (subject, level))

    def _versions(self, subject: str) -> list[Version]:
        rows = self._db.execute(
            "SELECT subject, version, schema_id, text FROM versions JOIN schemas ON id = schema_id"
            " WHERE subject = ? ORDER BY version",
            (subject,),
        )
        return [Version(*row) for row in rows]

    def _problems(self, subject: str, new: Schema, known: list[Version]) -> list[str]:
        level = self.level(subject)
        if not level.endswith("_TRANSITIVE"):
            known = known[-1:]
        problems: list[str] = []
        for old in known:
            schema = _parsed(old.text)
            if level.startswith(("BACKWARD", "FULL")):
                problems += _misread(new, schema, f"the new schema cannot read v{old.number}")
            if level.startswith(("FORWARD", "FULL")):
                problems += _misread(schema, new, f"v{old.number} cannot read the new schema")
        return problems


def _misread(reader: Schema, writer: Schema, what: str) -> list[str]:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(reader, writer)
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    kinds = ", ".join(sorted(kind.value for kind in result.incompatibilities))
    where = ", ".join(sorted(result.locations))
    return [f"{what}: {kinds} at {where} ({', '.join(sorted(result.messages))})"]


def _parsed(text: str) -> Schema:
    try:
        return parse(text)
    except (AvroException, ValueError, TypeError, KeyError) as error:
        raise Refused(INVALID_SCHEMA, f"not an Avro schema: {error}") from error


def _identity(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


_TABLES = """
CREATE TABLE IF NOT EXISTS schemas (
    id INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT NOT NULL UNIQUE, text TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS versions (
    subject TEXT NOT NULL, version INTEGER NOT NULL, schema_id INTEGER NOT NULL,
    PRIMARY KEY (subject, version)
);
CREATE TABLE IF NOT EXISTS config (subject TEXT PRIMARY KEY, level TEXT NOT NULL);
"""
