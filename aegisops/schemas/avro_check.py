"""One Avro body, byte by byte: is it exactly one record, and if not, what is wrong where?

Slow (tens of µs) and strict: only bodies in doubtful company come here.
"""

from __future__ import annotations

from typing import Any

from aegisops.schemas.avro_types import Schema, fields, kind

_VARINT_BYTES = 10
_MORE = 0x80  # top bit of a byte: the number goes on
_FIXED_BYTES = {"float": 4, "double": 8}
_INT_BITS = {"int": 31, "long": 63}


class Malformed(Exception):
    """The body is not one record of the schema; the text says where and why."""


def complaint(schema: Schema, body: bytes) -> str | None:
    """What is wrong with a body; None when it is one record and nothing else."""
    walker = _Walker(body)
    try:
        walker.skip(schema, "")
    except Malformed as wrong:
        return str(wrong)
    rest = len(body) - walker.at
    return f"{rest} bytes after the end of the record" if rest else None


class _Walker:
    """A position in a body."""

    def __init__(self, body: bytes) -> None:
        self.at = 0
        self._body = body
        self._named: dict[str, Schema] = {}

    def skip(self, schema: Schema, where: str) -> None:
        """Move behind one value. Raises `Malformed`."""
        word = kind(schema)
        if word == "union":
            branch = self._varint(where)
            if not 0 <= branch < len(schema):
                raise Malformed(f"{where}: branch {branch} of a union of {len(schema)}")
            self.skip(schema[branch], where)
        elif word in ("record", "error"):
            self._named[schema["name"]] = schema
            for name, field in fields(schema):
                self.skip(field["type"], f"{where}.{name}" if where else name)
        elif word == "array":
            self._blocks(schema["items"], where)
        elif word == "map":
            self._blocks(schema["values"], where, keyed=True)
        elif word in self._named:
            self.skip(self._named[word], where)
        else:
            self._leaf(schema, word, where)

    def _leaf(self, schema: Schema, word: str, where: str) -> None:
        if word in _INT_BITS:
            value = self._varint(where)
            if not -(1 << _INT_BITS[word]) <= value < 1 << _INT_BITS[word]:
                raise Malformed(f"{where}: {value} is no {word}")
        elif word in _FIXED_BYTES:
            self._take(_FIXED_BYTES[word], where)
        elif word in ("string", "bytes"):
            self._text(word, where)
        elif word == "boolean":
            if self._take(1, where) not in (b"\0", b"\1"):
                raise Malformed(f"{where}: neither true nor false")
        elif word in ("enum", "fixed"):
            self._declared(schema, word, where)
        elif word != "null":
            raise Malformed(f"{where}: type {word} is not known")

    def _text(self, word: str, where: str) -> None:
        text = self._take(self._varint(where), where)
        if word == "string":
            try:
                text.decode("utf-8")
            except UnicodeDecodeError as error:
                raise Malformed(f"{where}: not UTF-8") from error

    def _declared(self, schema: dict[str, Any], word: str, where: str) -> None:
        self._named[schema["name"]] = schema
        if word == "fixed":
            self._take(schema["size"], where)
            return
        symbol = self._varint(where)
        if not 0 <= symbol < len(schema["symbols"]):
            raise Malformed(f"{where}: symbol {symbol} of {len(schema['symbols'])}")

    def _blocks(self, items: Schema, where: str, *, keyed: bool = False) -> None:
        number = 0
        while count := self._varint(where):
            if count < 0:  # a writer's way to let readers skip: the size in bytes follows
                count = -count
                self._varint(where)
            if kind(items) == "null":
                continue  # no bytes an item, so the count proves nothing and must cost nothing
            for _ in range(count):
                if keyed:
                    self._text("string", f"{where} key")
                self.skip(items, f"{where}[{number}]")
                number += 1

    def _varint(self, where: str) -> int:
        """One zigzag number of at most 64 bits."""
        value = 0
        for n in range(_VARINT_BYTES):
            byte = self._take(1, where)[0]
            value |= (byte & 0x7F) << (7 * n)
            if byte < _MORE:
                if value >> 64:
                    break
                return (value >> 1) ^ -(value & 1)
        raise Malformed(f"{where}: number of more than 64 bits")

    def _take(self, count: int, where: str) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self._body):
            left = len(self._body) - self.at
            raise Malformed(f"{where}: needs {count} bytes at {self.at}, {left} are left")
        taken = self._body[self.at : end]
        self.at = end
        return taken
