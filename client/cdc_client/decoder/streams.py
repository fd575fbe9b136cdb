"""Range decoding of symbols, as FORMAT.md describes it, in Python's integers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_client.decoder.container import read_varint
from cdc_client.errors import UnreadableFile

SYMBOL_LIMIT = 1 << 15
WHOLE = (1 << 64) - 1
Int = npt.NDArray[np.int64]


def _corrupt(reason: str) -> UnreadableFile:
    return UnreadableFile("corrupt-stream", f"entropy-coded data: {reason}")


class Tables:
    """Tables of the symbols of z or y: the first value of each group, and the borders of its entries in 2^24 parts."""

    def __init__(self, integers: Mapping[str, npt.NDArray[Any]], name: str) -> None:
        self.lowest: list[int] = integers[f"{name}.lowest"].tolist()
        ends = np.cumsum(integers[f"{name}.sizes"])
        self.borders = [_borders(counts) for counts in np.split(integers[f"{name}.counts"], ends[:-1])]


def _borders(counts: npt.NDArray[Any]) -> list[int]:
    before = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    borders: list[int] = ((before * ((1 << 24) - counts.size) >> 20) + np.arange(before.size)).tolist()
    return [*borders[:-1], 1 << 24]


class Stream:
    """One stream, read part by part. Every method raises UnreadableFile, "corrupt-stream"."""

    def __init__(self, data: bytes, tables: Tables) -> None:
        self._tables = tables
        length, at = read_varint(data, 0, stream=True)
        if length > len(data) - at or (len(data) - at - length) % 4:
            raise _corrupt("its lengths do not fit")
        self._escapes, self._escape_at = data[at : at + length], 0
        self._words: list[int] = np.frombuffer(data, "<u4", offset=at + length).tolist()
        first, second = (*self._words[:2], 0, 0)[:2]
        self._span, self._offset, self._next = WHOLE, first << 32 | second, 2

    def part(self, groups: npt.NDArray[Any]) -> Int:
        """The symbols of the next part, in the order of `groups`, integers [n]."""
        order = np.argsort(groups, kind="stable")
        ends = np.cumsum(np.bincount(groups, minlength=len(self._tables.lowest))).tolist()
        values = np.empty(groups.size, np.int64)
        start = 0
        escaped: list[tuple[int, int]] = []
        for group, end in enumerate(ends):
            if end > start:
                entries = np.array(self._entries(self._tables.borders[group], end - start))
                values[start:end] = entries + self._tables.lowest[group]
                last = len(self._tables.borders[group]) - 2
                escaped += [(start + int(i), group) for i in np.flatnonzero(entries == last)]
            start = end
        for place, group in escaped:
            values[place] = self._escaped(int(values[place]), self._tables.lowest[group])
        if values.size and int(np.abs(values).max()) > SYMBOL_LIMIT:
            raise _corrupt("a symbol is out of range")
        out = np.empty(groups.size, np.int64)
        out[order] = values
        return out

    def _entries(self, borders: list[int], count: int) -> list[int]:
        """`count` entries of one table."""
        span, offset, words, position = self._span, self._offset, self._words, self._next
        found = []
        for _ in range(count):
            scale = span >> 24
            quantile = offset // scale
            if quantile >> 24:
                raise _corrupt("the range coder's words are invalid")
            entry = bisect_right(borders, quantile) - 1
            found.append(entry)
            low = borders[entry]
            offset -= scale * low
            span = scale * (borders[entry + 1] - low)
            if span < 1 << 32:
                span <<= 32
                offset = offset << 32 | (words[position] if position < len(words) else 0)
                position += 1
        self._span, self._offset, self._next = span, offset, position
        return found

    def _escaped(self, end: int, lowest: int) -> int:
        excess, self._escape_at = read_varint(self._escapes, self._escape_at, stream=True)
        value = lowest - 1 - (excess >> 1) if excess & 1 else end + (excess >> 1)
        if abs(value) > SYMBOL_LIMIT:
            raise _corrupt("a symbol is out of range")
        return value

    def finish(self) -> None:
        """Check that the stream ends here."""
        unfinished = self._span != WHOLE and self._offset >= (1 << 33) - 1
        if self._next < len(self._words) or unfinished:
            raise _corrupt("words are left over")
        if self._escape_at != len(self._escapes):
            raise _corrupt("escapes are left over")
