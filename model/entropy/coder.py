"""Range coding of integer symbols under integer tables. The only module that imports constriction.

A stream is: varint length of the escape bytes, the escape bytes, then 32-bit little-endian words of the range coder.
Symbols are coded group by group (ascending group, raster order inside a group), so that each group is one call with one
table. A value outside its group's table is coded as the escape entry; how far outside it lies follows, in the same
order, as a varint in the escape bytes: 2 e for a value e above the table's end, 2 e + 1 for one e below its start.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from model.entropy.tables import COUNT_BITS, Tables
from model.errors import CodecError, CorruptStream
from model.varint import decode_varint, encode_varint

SYMBOL_LIMIT = 1 << 15  # |symbol| <= this: an encoder clamps, a decoder refuses more
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
        order, bounds = self._order(groups)
        values = symbols[order].astype(np.int64)
        ordered = groups[order]
        index = values - self._lowest[ordered]
        limit = self._escape[ordered]
        outside = (index < 0) | (index >= limit)
        excess = np.where(index < 0, 2 * (-1 - index) + 1, 2 * (index - limit))[outside]
        index[outside] = limit[outside]
        escapes = b"".join(encode_varint(int(e)) for e in excess)
        encoder = constriction.stream.queue.RangeEncoder()
        entries = index.astype(np.int32)
        for group, start, stop in bounds:
            encoder.encode(entries[start:stop], self._models[group])
        words: bytes = encoder.get_compressed().astype("<u4").tobytes()
        return encode_varint(len(escapes)) + escapes + words

    def decode(self, stream: bytes, groups: npt.NDArray[np.integer[Any]]) -> Symbols:
        """Return the int32 [n] symbols of `stream`, in the order of `groups` [n].

        Raises:
            CorruptStream: no encoder wrote this stream for these groups.
        """
        try:
            return self._decode(stream, groups)
        except CodecError as error:
            raise CorruptStream(f"entropy-coded data: {error}") from error

    def _decode(self, stream: bytes, groups: npt.NDArray[np.integer[Any]]) -> Symbols:
        length, offset = decode_varint(stream, 0)
        if length > len(stream) - offset or (len(stream) - offset - length) % 4:
            raise CorruptStream("its lengths do not fit")
        escapes, end = memoryview(stream)[: offset + length], offset + length
        words = np.frombuffer(stream, dtype="<u4", offset=end).astype(np.uint32)
        order, bounds = self._order(groups)
        entries = np.empty(groups.size, dtype=np.int64)
        decoder = constriction.stream.queue.RangeDecoder(words)
        for group, start, stop in bounds:
            try:
                entries[start:stop] = decoder.decode(self._models[group], stop - start)
            except AssertionError as error:  # how constriction reports words that no encoder produces
                raise CorruptStream("the range coder's words are invalid") from error
        if not decoder.maybe_exhausted():
            raise CorruptStream("words are left over")
        ordered = groups[order]
        values = entries + self._lowest[ordered]
        for position in np.flatnonzero(entries == self._escape[ordered]):
            excess, offset = decode_varint(escapes, offset)
            distance = excess >> 1
            if distance > SYMBOL_LIMIT + self._escape.max():
                raise CorruptStream("a symbol is out of range")
            values[position] = (
                self._lowest[ordered[position]] - 1 - distance if excess & 1 else values[position] + distance
            )
        if offset != end:
            raise CorruptStream("escapes are left over")
        if values.size and np.abs(values).max() > SYMBOL_LIMIT:
            raise CorruptStream("a symbol is out of range")
        out = np.empty(groups.size, dtype=np.int32)
        out[order] = values
        return out

    def _order(self, groups: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.intp], list[tuple[int, int, int]]]:
        """Return the stable order by group and the (group, start, stop) runs in it."""
        order = np.argsort(groups, kind="stable")
        ends = np.cumsum(np.bincount(groups, minlength=len(self._models)))
        bounds = [(g, int(ends[g - 1]) if g else 0, int(ends[g])) for g in range(len(self._models))]
        return order, [b for b in bounds if b[2] > b[1]]
