"""Which of many Avro bodies are surely one whole record each: all bodies walked in step by numpy.

Every unusual thing is a suspicion, not a verdict; `avro_check` looks at the suspects one by one.
What passes here is well-formed: the lengths, union branches, 32-bit ranges and UTF-8 all fit, and
the record ends with the body. Costs about 1 µs a message of 4 blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aegisops.schemas.avro_types import Schema, fields, kind

_Rows = npt.NDArray[np.intp]
_Longs = npt.NDArray[np.int64]

_WORD = 8
_VARINT_BYTES = 10
_MORE = 0x80  # top bit of a byte: the number goes on
_FEW = 16
"""With fewer bodies still walking, one numpy step costs more than looking at each in Python."""
_SHORT = 64
"""Longer texts are rare, and looked at one by one."""
_FIXED_BYTES = {"float": 4, "double": 8}
_INT_LIMIT = 1 << 31
_HIGH = np.uint64(0x8080808080808080)
_SEVEN_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)


def suspects(schema: Schema, bodies: Sequence[bytes]) -> npt.NDArray[np.bool_]:
    """True for each body that is not proven to be exactly one record of the schema."""
    walk = _Walk(bodies)
    if len(bodies) >= _FEW:
        done = walk.skip(schema, np.arange(len(bodies), dtype=np.intp))
        walk.suspect[done] = walk.at[done] != walk.end[done]
    return walk.suspect


class _Walk:
    """Positions in all bodies. Rows are body numbers; each step returns the rows still trusted."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        lengths = np.fromiter(map(len, bodies), np.int64, len(bodies))
        # Padding lets a whole word be loaded at any position, the very end included.
        self._bytes = b"".join((*bodies, bytes(2 * _WORD)))
        self._words: npt.NDArray[np.uint64] = np.ndarray(
            len(self._bytes) - _WORD + 1, "<u8", self._bytes, strides=(1,)
        )
        self.end = np.cumsum(lengths)
        self.at = self.end - lengths
        self.suspect = np.ones(len(bodies), np.bool_)
        self._start = self.at.copy()

    def skip(self, schema: Schema, rows: _Rows) -> _Rows:
        """Move each row behind one value."""
        word = kind(schema)
        if word == "record":
            for _, field in fields(schema):
                rows = self.skip(field["type"], rows)
        elif word == "union":
            rows = self._union(schema, rows)
        elif word == "array":
            rows = self._array(schema["items"], rows)
        elif word in _FIXED_BYTES:
            rows = self._take(rows, np.full(len(rows), _FIXED_BYTES[word], np.int64))
        elif word in ("int", "long"):
            values, rows = self._varints(rows)
            if word == "int":
                rows = rows[(values >= -_INT_LIMIT) & (values < _INT_LIMIT)]
        elif word in ("string", "bytes"):
            rows = self._text(word, rows)
        elif word != "null":
            rows = rows[:0]  # the rest is rare: all are suspects
        return rows

    def _union(self, branches: list[Schema], rows: _Rows) -> _Rows:
        chosen, rows = self._varints(rows)
        parts = [self.skip(branch, rows[chosen == n]) for n, branch in enumerate(branches)]
        return _merged(parts)

    def _array(self, items: Schema, rows: _Rows) -> _Rows:
        size = _FIXED_BYTES.get(kind(items))
        finished: list[_Rows] = []
        while len(rows) >= _FEW:
            counts, rows = self._varints(rows)
            finished.append(rows[counts == 0])
            # Negative counts are legal and rare. Items of no bytes at all fail the second test.
            keep = (counts > 0) & (counts <= self.end[rows] - self.at[rows])
            rows, counts = rows[keep], counts[keep]
            if size is not None:
                rows = self._take(rows, counts * size)
                continue
            left = np.zeros(len(self.at), np.int64)
            left[rows] = counts
            waiting = rows
            rows = rows[:0]
            while len(waiting) >= _FEW:
                waiting = self.skip(items, waiting)
                left[waiting] -= 1
                rows = np.concatenate((rows, waiting[left[waiting] == 0]))
                waiting = waiting[left[waiting] > 0]
        return _merged([*finished, rows[:0]])

    def _take(self, rows: _Rows, lengths: _Longs) -> _Rows:
        fits = (lengths >= 0) & (lengths <= self.end[rows] - self.at[rows])
        rows = rows[fits]
        self.at[rows] += lengths[fits]
        return rows

    def _text(self, word: str, rows: _Rows) -> _Rows:
        lengths, rows = self._varints(rows)
        self._start[rows] = self.at[rows]
        rows = self._take(rows, lengths)
        if word == "bytes":
            return rows
        start, stop = self._start[rows], self.at[rows]
        broken = ~self._is_short_ascii(start, stop)
        for n in np.flatnonzero(broken):
            broken[n] = not _is_utf8(self._bytes[start[n] : stop[n]])
        return rows[~broken]

    def _is_short_ascii(self, start: _Rows, stop: _Rows) -> npt.NDArray[np.bool_]:
        """Texts of few words without a top bit, a word at a time."""
        size = stop - start
        high = np.zeros(len(start), np.uint64)
        longest = min(int(size.max(initial=0)), _SHORT)
        for begin in range(0, longest, _WORD):
            beyond = np.clip(begin + _WORD - size, 0, _WORD).astype(np.uint64)
            # Bytes behind the text are shifted out; a whole word must be shifted in two steps.
            word = self._words[np.minimum(start + begin, stop)]
            half = beyond * np.uint64(4)
            high |= ((word << half) << half) & _HIGH
        is_short: npt.NDArray[np.bool_] = (high == 0) & (size <= _SHORT)
        return is_short

    def _varints(self, rows: _Rows) -> tuple[_Longs, _Rows]:
        """Zigzag numbers at each row, and the rows that have one."""
        at = self.at[rows]
        word = self._words[at]
        ends = ~word & _HIGH  # the top bit of every byte that ends a number
        first = ends & (~ends + np.uint64(1))
        below = first - np.uint64(1)  # all bits up to that one; all ones if no byte ends
        length = (np.bitwise_count(below).astype(np.int64) + 1) >> 3
        # Eight groups of seven bits move together: first pairs, then fours, then all.
        x = word & below & _SEVEN_BITS
        x = (x & np.uint64(0x007F007F007F007F)) | ((x >> 1) & np.uint64(0x3F803F803F803F80))
        x = (x & np.uint64(0x00003FFF00003FFF)) | ((x >> 2) & np.uint64(0x0FFFC0000FFFC000))
        x = (x & np.uint64(0x000000000FFFFFFF)) | ((x >> 4) & np.uint64(0x00FFFFFFF0000000))
        long = np.flatnonzero(ends == 0)
        for n in long:  # nine or ten bytes: beyond ±2^55, rare
            x[n], length[n] = self._long_varint(int(at[n]))
        self.at[rows] += length
        keep = (self.at[rows] <= self.end[rows]) & (length > 0)
        values: _Longs = (x >> np.uint64(1)).view(np.int64) ^ -(x & np.uint64(1)).view(np.int64)
        return values[keep], rows[keep]

    def _long_varint(self, at: int) -> tuple[int, int]:
        """(number before zigzag, its bytes); (0, 0) when it does not end or exceeds 64 bits."""
        value = 0
        for n in range(_VARINT_BYTES):
            byte = self._bytes[at + n]
            value |= (byte & 0x7F) << (7 * n)
            if byte < _MORE:
                return (value, n + 1) if value < 1 << 64 else (0, 0)
        return 0, 0


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _merged(parts: list[_Rows]) -> _Rows:
    rows: _Rows = np.sort(np.concatenate(parts))
    return rows
