"""Many Avro bodies of one schema → one frame, by gluing them into one Avro container.

Reading bodies one by one costs 22 µs each in Python; polars reads the same bodies as one container
in 2 µs. But glued bodies have no borders: one that is too short or too long makes the reader take
its neighbours' bytes, perhaps without noticing. So malformed bodies are sorted out first
(`avro_scan`, `avro_check`), and a secret mark of 8 random bytes follows each body, read as one more
field: if all marks are right, then by induction each body was read from its first to its last byte.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from typing import Any

import fastavro
import numpy as np
import polars as pl

from aegisops.errors import BadInput
from aegisops.names import Reason
from aegisops.schemas.avro_check import complaint
from aegisops.schemas.avro_scan import suspects
from aegisops.schemas.avro_types import Schema, Unsupported, columns, view

_MARK = "_aegis_mark"
_FINITE = np.uint64(0xBFFF_FFFF_FFFF_FFFF)  # clears the top exponent bit: never inf or NaN
_NESTED = ("type", "fields", "items", "values")
_ATOMIC = ("name", "size", "symbols")
_MORE = 0x80  # top bit of a byte: the number goes on
_SYNC = b"\0" * 16
# polars' Avro reader answers bytes and schemas it does not like with any of these; the panic is
# not an Exception.
_REFUSALS = (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException)
_FASTAVRO_REFUSALS = (ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError)


def empty(reader: Schema) -> pl.DataFrame:
    """No rows, in the columns of a record schema."""
    return pl.DataFrame(schema=columns(reader))


class Decoder:
    """Bodies of one writer schema → rows in the reader's columns.

    Raises `BadInput` when the schemas do not fit together.
    """

    def __init__(self, writer: Schema, reader: Schema) -> None:
        self._writer = writer
        self._reader = reader
        self._out = columns(reader)
        self._fast = True
        try:
            self._sent = columns(writer)
            self._view = None if writer == reader else view(writer, reader)
            self._header = _header(writer)
        except (Unsupported, TypeError, KeyError) as error:
            if not isinstance(writer, dict) or "fields" not in writer:
                raise BadInput(Reason.MALFORMED, "the schema is not a record") from error
            self._fast = False

    def decode(
        self, bodies: Sequence[bytes]
    ) -> tuple[pl.DataFrame, Sequence[int], list[tuple[int, str]]]:
        """(rows, number of the body of each row, (number, complaint) of each other body).

        What becomes of a body depends on its bytes alone, never on its neighbours.
        """
        verdicts = {
            i: complaint(self._writer, bodies[i])
            for i in np.flatnonzero(suspects(self._writer, bodies)).tolist()
        }
        failed = [(i, why) for i, why in verdicts.items() if why is not None]
        bad = {i for i, _ in failed}
        good = [i for i in range(len(bodies)) if i not in bad] if bad else range(len(bodies))
        sound = [bodies[i] for i in good] if bad else bodies
        rows = self._glued(sound)
        if rows is not None:
            return rows, good, failed
        rows, kept, refused = self._singly(sound)
        failed += [(good[i], why) for i, why in refused]
        return rows, [good[i] for i in kept], sorted(failed)

    def _glued(self, bodies: Sequence[bytes]) -> pl.DataFrame | None:
        """Rows of all bodies, proven to be theirs; None when that is not possible."""
        if not bodies:
            return pl.DataFrame(schema=self._out)
        if not self._fast:
            return None
        marks = np.frombuffer(os.urandom(8 * len(bodies)), "<u8") & _FINITE
        secret = marks.tobytes()
        pieces: list[bytes] = [b""] * (2 * len(bodies))
        pieces[0::2] = bodies
        pieces[1::2] = [secret[i : i + 8] for i in range(0, len(secret), 8)]
        body = b"".join(pieces)
        head = self._header + _varint(len(bodies)) + _varint(len(body))
        try:
            rows = pl.read_avro(io.BytesIO(b"".join((head, body, _SYNC))))
            if not np.array_equal(rows[_MARK].to_numpy().view("<u8"), marks):
                return None
            # The container says `long` for every `int` (the bytes are alike): this cast is strict
            # where polars' own reading of an `int` silently cuts to 32 bits.
            rows = rows.drop(_MARK).cast(self._sent)  # type: ignore[arg-type]
            return rows if self._view is None else rows.select(self._view).cast(self._out)  # type: ignore[arg-type]
        except _REFUSALS:
            return None

    def _singly(
        self, bodies: Sequence[bytes]
    ) -> tuple[pl.DataFrame, list[int], list[tuple[int, str]]]:
        """Each body on its own: slow, for schemas that polars does not read."""
        kept: list[int] = []
        refused: list[tuple[int, str]] = []
        records: list[Any] = []
        for i, body in enumerate(bodies):
            try:
                record = fastavro.schemaless_reader(io.BytesIO(body), self._writer, self._reader)
            except fastavro.read.SchemaResolutionError as error:
                refused.append((i, f"cannot be read as the current schema: {error}"))
            except _FASTAVRO_REFUSALS as error:
                refused.append((i, f"{type(error).__name__}: {error}"))
            else:
                kept.append(i)
                records.append(record)
        return pl.DataFrame(records, schema=self._out, orient="row"), kept, refused


def _header(writer: Schema) -> bytes:
    """Start of an Avro object container whose records end with a mark."""
    marked = _plain(writer)
    marked["fields"].append({"name": _MARK, "type": "double"})
    meta = {"avro.schema": json.dumps(marked).encode(), "avro.codec": b"null"}
    entries = b"".join(_bytes(key.encode()) + _bytes(value) for key, value in meta.items())
    return b"Obj\x01" + _varint(len(meta)) + entries + _varint(0) + _SYNC


def _plain(schema: Schema) -> Schema:
    """The schema's structure alone: polars refuses some defaults ("OutOfSpec")."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if isinstance(schema, dict):
        nested = {key: _plain(schema[key]) for key in _NESTED if key in schema}
        return nested | {key: schema[key] for key in _ATOMIC if key in schema}
    return "long" if schema == "int" else schema


def _bytes(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _varint(number: int) -> bytes:
    """Avro `long` of a number ≥ 0."""
    left = number << 1
    out = bytearray()
    while left >= _MORE:
        out.append(left & 0x7F | _MORE)
        left >>= 7
    out.append(left)
    return bytes(out)
