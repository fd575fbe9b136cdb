"""Range coding of integer symbols under integer tables. The only module that imports constriction.

A stream is: varint length of the escape bytes, the escape bytes, then 32-bit little-endian words of the range coder.
Symbols are coded in parts, a part group by group (ascending group, raster order inside a group), so that each group is
one call with one table. A value outside its group's table is coded as the escape entry; how far outside it lies
follows, in the same order, as a varint in the escape bytes: 2 e for a value e above the table's end, 2 e + 1 for one e
below its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from model.entropy.tables import COUNT_BITS, Tables
from model.errors import CodecError, CorruptStream
from model.varint import decode_varint, decode_varints, encode_varint, encode_varints

SYMBOL_LIMIT = 1 << 15  # |symbol| <= this: an encoder clamps, a decoder refuses more
PARTS_TOGETHER = 1 << 16  # symbols: bounds the memory of their order
Symbols = npt.NDArray[np.int32]


class SymbolCoder:
    """Encodes and decodes symbols under one set of tables; immutable, safe to share between threads."""

    def __init__(self, tables: Tables) -> None:
        self._lowest = tables.lowest.astype(np.int64)
        self._escape = tables.sizes.astype(np.int64) - 1  # index of the escape entry of each group
        self._starts = np.concatenate([[0], np.cumsum(tables.sizes, dtype=np.int64)[:-1]])
        self._lengths = (COUNT_BITS - np.log2(tables.counts)).astype(np.float32)
        # float64 counts with perfect=False: the same words on every machine (float32 counts give other words).
        self._models: list[Any] = [
            constriction.stream.model.Categorical(tables.table(g).astype(np.float64), perfect=False)
            for g in range(len(tables.sizes))
        ]

    def bits(self, symbols: npt.NDArray[Any], groups: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Code length of each symbol under its group's table; escaped ones cost the escape and about a byte."""
        last = self._escape[groups]
        entries = symbols.astype(np.int64) - self._lowest[groups]
        outside = (entries < 0) | (entries >= last)
        lengths: npt.NDArray[np.float32] = self._lengths[self._starts[groups] + np.where(outside, last, entries)]
        lengths[outside] += 8
        return lengths

    def encode(self, symbols: Symbols, groups: npt.NDArray[np.integer[Any]]) -> bytes:
        """Return the stream of `symbols` (int32 [n], |s| <= 2**15) whose tables are `groups` (integer [n])."""
        writer = self.writer()
        writer.put(symbols, groups)
        return writer.finish()

    def decode(self, stream: bytes, groups: npt.NDArray[np.integer[Any]]) -> Symbols:
        """Return the int32 [n] symbols of `stream`, in the order of `groups` [n].

        Raises:
            CorruptStream: no encoder wrote this stream for these groups.
        """
        reader = self.reader(stream)
        symbols = reader.take(groups)
        reader.finish()
        return symbols

    def writer(self) -> Writer:
        """Begin a stream of several parts."""
        return Writer(self)

    def reader(self, stream: bytes) -> Reader:
        """Begin to read a stream part by part. Raises CorruptStream."""
        return Reader(self, stream)

    def _order(self, keys: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.intp], list[tuple[int, int, int]]]:
        """Return the stable order by key and the (group, start, stop) runs in it; a key is a group, or part and group.

        The group is what is left of the key after whole multiples of the number of tables.
        """
        counts = np.bincount(keys)
        present = np.flatnonzero(counts)
        stops = np.cumsum(counts[present])
        runs = ((present % len(self._models)).tolist(), (stops - counts[present]).tolist(), stops.tolist())
        return np.argsort(keys, kind="stable"), list(zip(*runs, strict=True))


class Writer:
    """Writes one stream, part after part."""

    def __init__(self, coder: SymbolCoder) -> None:
        self._coder = coder
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._escapes: list[npt.NDArray[np.int64]] = []
        self._parts: list[tuple[Symbols, npt.NDArray[np.integer[Any]]]] = []  # put, and not encoded yet

    def put(self, symbols: Symbols, groups: npt.NDArray[np.integer[Any]]) -> None:
        """Append a part: int32 [n], |s| <= 2**15, and their groups [n]."""
        self._parts.append((symbols, groups))
        keys = (len(self._parts) + 1) * len(self._coder._models)
        if sum(s.size for s, _ in self._parts) > PARTS_TOGETHER or keys > 1 << 16:
            self._encode()

    def _encode(self) -> None:
        """Encode the parts that wait: small ones at once, since a call costs as much as thousands of symbols."""
        coder, parts, self._parts = self._coder, self._parts, []
        if not parts:
            return
        symbols, groups = (np.concatenate(found) for found in zip(*parts, strict=True))
        first = np.arange(len(parts), dtype=np.uint16) * np.uint16(len(coder._models))  # numpy sorts 16 bits by radix
        keys = np.repeat(first, [s.size for s, _ in parts])
        keys += groups.astype(np.uint16)
        order, runs = coder._order(keys)
        ordered = groups[order]
        index = symbols[order].astype(np.int64) - coder._lowest[ordered]
        limit = coder._escape[ordered]
        outside = (index < 0) | (index >= limit)
        excess = np.where(index < 0, 2 * (-1 - index) + 1, 2 * (index - limit))[outside]
        index[outside] = limit[outside]
        self._escapes.append(excess)
        entries = index.astype(np.int32)
        for group, start, stop in runs:
            self._encoder.encode(entries[start:stop], coder._models[group])

    def finish(self) -> bytes:
        """Return the stream."""
        self._encode()
        escapes = encode_varints(np.concatenate([np.empty(0, np.int64), *self._escapes]))
        words: bytes = self._encoder.get_compressed().astype("<u4").tobytes()
        return encode_varint(len(escapes)) + escapes + words


class Reader:
    """Reads one stream, part after part; every method raises CorruptStream for what no encoder wrote."""

    def __init__(self, coder: SymbolCoder, stream: bytes) -> None:
        self._coder = coder
        with _corrupt_if_malformed():
            length, offset = decode_varint(stream, 0)
        if length > len(stream) - offset or (len(stream) - offset - length) % 4:
            raise CorruptStream("entropy-coded data: its lengths do not fit")
        self._escapes, self._offset = memoryview(stream)[: offset + length], offset
        words = np.frombuffer(stream, dtype="<u4", offset=offset + length).astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)

    def take(self, groups: npt.NDArray[np.integer[Any]]) -> Symbols:
        """Return the next part, int32 [n], in the order of `groups` [n]."""
        coder = self._coder
        order, bounds = coder._order(groups)
        entries = np.empty(groups.size, dtype=np.int64)
        for group, start, stop in bounds:
            try:
                entries[start:stop] = self._decoder.decode(coder._models[group], stop - start)
            except AssertionError as error:  # how constriction reports words that no encoder produces
                raise CorruptStream("entropy-coded data: the range coder's words are invalid") from error
        ordered = groups[order]
        values = entries + coder._lowest[ordered]
        outside = np.flatnonzero(entries == coder._escape[ordered])
        with _corrupt_if_malformed():
            excess, self._offset = decode_varints(self._escapes, self._offset, outside.size)
        distance = excess >> 1
        if (distance > SYMBOL_LIMIT + coder._escape.max()).any():
            raise CorruptStream("entropy-coded data: a symbol is out of range")
        below = coder._lowest[ordered[outside]] - 1 - distance
        values[outside] = np.where(excess & 1, below, values[outside] + distance)
        if values.size and np.abs(values).max() > SYMBOL_LIMIT:
            raise CorruptStream("entropy-coded data: a symbol is out of range")
        out = np.empty(groups.size, dtype=np.int32)
        out[order] = values
        return out

    def finish(self) -> None:
        """Check that the stream ends here."""
        if not self._decoder.maybe_exhausted():
            raise CorruptStream("entropy-coded data: words are left over")
        if self._offset != len(self._escapes):
            raise CorruptStream("entropy-coded data: escapes are left over")


@contextmanager
def _corrupt_if_malformed() -> Iterator[None]:
    try:
        yield
    except CodecError as error:
        raise CorruptStream(f"entropy-coded data: {error}") from error
