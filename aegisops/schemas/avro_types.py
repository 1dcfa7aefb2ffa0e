"""Avro schemas as this product uses them: polars types, and a reader's view of a writer's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from aegisops.errors import BadInput
from aegisops.names import Reason

Schema = Any
"""A schema as fastavro parses it: a type name, a union list, or a dict."""

_PRIMITIVES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "bytes": pl.Binary(),
    "boolean": pl.Boolean(),
    "int": pl.Int32(),
    "long": pl.Int64(),
    "float": pl.Float32(),
    "double": pl.Float64(),
}
_WIDER = {  # Avro 1.12 "schema resolution": what a reader of the second may read
    ("int", "long"),
    ("int", "float"),
    ("int", "double"),
    ("long", "float"),
    ("long", "double"),
    ("float", "double"),
}


class Unsupported(Exception):
    """Valid Avro that the whole-flush way does not do."""


def kind(schema: Schema) -> str:
    """Type word of a schema: `record`, `array`, `long`, … and `union`."""
    if isinstance(schema, list):
        return "union"
    word = schema["type"] if isinstance(schema, dict) else schema
    return kind(word) if isinstance(word, dict | list) else str(word)


def content(schema: Schema) -> tuple[Schema, bool]:
    """(schema without null, whether null is allowed). `Unsupported` for other unions."""
    if not isinstance(schema, list):
        return schema, False
    rest = [branch for branch in schema if kind(branch) != "null"]
    nulls = len(schema) - len(rest)
    if len(rest) != 1 or nulls > 1:
        raise Unsupported(f"union {schema}")
    return rest[0], nulls == 1


def fields(record: Schema) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, field) of a record's fields, in wire order."""
    for field in record["fields"]:
        yield field["name"], field


def dtype(schema: Schema) -> pl.DataType:
    """Polars type of a value. `Unsupported` for maps, enums, fixed and references by name."""
    inner, _ = content(schema)
    word = kind(inner)
    if word == "record":
        return pl.Struct({name: dtype(field["type"]) for name, field in fields(inner)})
    if word == "array":
        return pl.List(dtype(inner["items"]))
    if word not in _PRIMITIVES:
        raise Unsupported(word)
    return _PRIMITIVES[word]


def columns(record: Schema) -> dict[str, pl.DataType]:
    """Polars schema of a record's rows."""
    return {name: dtype(field["type"]) for name, field in fields(record)}


def view(writer: Schema, reader: Schema) -> list[pl.Expr]:
    """Expressions that turn rows of the writer's columns into the reader's.

    Fields are matched by name; one the writer lacks gets the reader's default. Raises `BadInput`
    where no value can ever be read (Avro 1.12, schema resolution) and `Unsupported` where it
    depends on the value.
    """
    return _fields(writer, reader, pl.col, "")


def _fields(
    writer: Schema, reader: Schema, get: Callable[[str], pl.Expr], path: str
) -> list[pl.Expr]:
    sent = dict(fields(writer))
    expressions = []
    for name, field in fields(reader):
        where = f"{path}{name}"
        if name in sent:
            value = _value(get(name), sent[name]["type"], field["type"], where)
        elif "default" in field:
            value = pl.lit(field["default"], dtype(field["type"]))
        else:
            raise BadInput(Reason.MALFORMED, f"field {where} is absent and has no default")
        expressions.append(value.alias(name))
    return expressions


def _value(value: pl.Expr, writer: Schema, reader: Schema, where: str) -> pl.Expr:
    sent, may_be_null = content(writer)
    wanted, takes_null = content(reader)
    if may_be_null and not takes_null:
        raise Unsupported(f"{where}: null only fits some readers")
    words = kind(sent), kind(wanted)
    if words == ("record", "record"):
        inner = pl.struct(_fields(sent, wanted, value.struct.field, f"{where}."))
        return pl.when(value.is_not_null()).then(inner) if may_be_null else inner
    if words == ("array", "array"):
        return value.list.eval(_value(pl.element(), sent["items"], wanted["items"], f"{where}[]"))
    if words[0] == words[1]:
        return value
    if words in _WIDER:
        return value.cast(dtype(wanted))
    raise BadInput(Reason.MALFORMED, f"field {where} is {words[0]}, not {words[1]}")
