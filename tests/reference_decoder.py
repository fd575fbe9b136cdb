"""Reads `.cdc` files as model/container/FORMAT.md describes them, by Python and numpy alone: symbols, means, indices.

    python tests/reference_decoder.py FILE [INTEGERS]

prints the SHA-256 over the symbols of z, then of y. INTEGERS is the file with the integers of the codec id, by default
the weights file of this repository. It is written for reading beside the document, section by section, and not for
speed; it shares no code with the codec.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

INTEGERS = Path(__file__).parents[1] / "model" / "weights" / "cdc-lite.safetensors"
MAGIC = bytes.fromhex("8F4344430D0A1A0A")
LIMIT = 1 << 15  # of a symbol
LAYOUT = (  # FORMAT.md, "Codec id"
    "constriction range coder, 32-bit words, 24-bit fast categorical from float64 counts; groups ascending, raster "
    "order; escapes as varints; counts 2^20, symbols to 32768, z/2^8 to 131072, mean/2^4, scale/2^8; stride 16 and 64; "
    "sections 1 and 2; context: channel groups, even then odd row + column, a part a pass; windows before features "
    "before rate; latents/2^2, features and rate in 2^-8, relu, relu, corrections of means in 2^-8 and of scales; "
    "limits 16777215 inside, 16777216 of sums, 1048576 of means; rate / 255 to the nearest; symbols of scale indices "
    "below silent are zero and not coded"
)
ACTIVATION, FINE, OUTPUT = (1 << 24) - 1, 1 << 24, 1 << 20  # clamps


class Refused(Exception):
    """What is wrong with a file: `code` is one of the names of FORMAT.md, "What a decoder checks"."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


# The file -------------------------------------------------------------------------------------------------------------


@dataclass
class File:
    """A file whose checksum holds; `sections` by type."""

    codec_id: bytes
    width: int
    height: int
    rate: int
    sections: dict[int, bytes]


def varint(data: bytes, at: int, end: str = "truncated-file", bad: str = "malformed-file") -> tuple[int, int]:
    """The integer at `at`, and where it ends."""
    value = 0
    for i in range(9):
        if at + i >= len(data):
            raise Refused(end)
        byte = data[at + i]
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            if i and not byte:
                raise Refused(bad)
            return value, at + i + 1
    raise Refused(bad)


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, reflected: 0x82F63B78; start and end complemented."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def parse(data: bytes) -> File:
    """Header, sections, checksum, in the order of the checks."""
    if data[:8] != MAGIC:
        raise Refused("truncated-file" if data and MAGIC.startswith(data) else "not-a-cdc-file")
    if len(data) < 17:
        raise Refused("truncated-file")
    if data[8] != 1:
        raise Refused("unsupported-version")
    width, at = varint(data, 17)
    height, at = varint(data, at)
    if not (1 <= width <= 65535 and 1 <= height <= 65535):
        raise Refused("malformed-file")
    if at >= len(data):
        raise Refused("truncated-file")
    rate, at = data[at], at + 1
    found: list[tuple[int, bytes]] = []
    while True:
        if at >= len(data):
            raise Refused("truncated-file")
        kind, at = data[at], at + 1
        if kind == 0:
            break
        if len(found) == 16:
            raise Refused("malformed-file")
        length, at = varint(data, at)
        if length > len(data) - at:
            raise Refused("truncated-file")
        found.append((kind, data[at : at + length]))
        at += length
    if len(data) - at != 4:
        raise Refused("truncated-file" if len(data) - at < 4 else "malformed-file")
    if int.from_bytes(data[at:], "little") != crc32c(data[:at]):
        raise Refused("checksum-mismatch")
    sections = dict(found)
    if len(sections) != len(found):
        raise Refused("malformed-file")
    if any(kind < 128 and kind not in (1, 2, 3, 4) for kind in sections):
        raise Refused("unsupported-version")
    if 1 not in sections or 2 not in sections:
        raise Refused("malformed-file")
    if 4 in sections:
        if len(sections[4]) != 1:
            raise Refused("malformed-file")
        if sections[4][0] not in (1, 2, 3):
            raise Refused("unsupported-version")
    return File(data[9:17], width, height, rate, sections)


# The integers of a codec id -------------------------------------------------------------------------------------------


def read_integers(path: Path) -> dict[str, Any]:
    """The integer tensors of a safetensors file: u64 length of a JSON header, the header, the data."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    types = {"I16": "<i2", "I32": "<i4", "I64": "<i8"}
    found = {}
    for name, entry in header.items():
        if name.startswith("entropy."):
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            values = np.frombuffer(data[start:end], types[entry["dtype"]])
            found[name.removeprefix("entropy.")] = values.reshape(entry["shape"])
    return found


def codec_id(integers: dict[str, Any]) -> bytes:
    """The name of these integers, FORMAT.md "Codec id"."""
    digest = hashlib.sha256(LAYOUT.encode())
    for name, values in sorted(integers.items()):
        digest.update(f"\n{name} {values.dtype.name} {values.shape}\n".encode() + values.tobytes())
    return digest.digest()[:8]


# Streams --------------------------------------------------------------------------------------------------------------


def cumulative(counts: list[int]) -> list[int]:
    """Counts that sum to 2^20 -> the n + 1 borders of their intervals, which sum to 2^24."""
    free = (1 << 24) - len(counts)
    total, borders = 0, []
    for i, count in enumerate(counts):
        borders.append((total * free >> 20) + i)
        total += count
    return [*borders, 1 << 24]


class Stream:
    """Escapes and words, read part by part."""

    def __init__(self, data: bytes, integers: dict[str, Any], name: str) -> None:
        length, at = varint(data, 0, "corrupt-stream", "corrupt-stream")
        if length > len(data) - at or (len(data) - at - length) % 4:
            raise Refused("corrupt-stream")
        self.escapes, self.escape_at = data[at : at + length], 0
        words = data[at + length :]
        self.words = [int.from_bytes(words[i : i + 4], "little") for i in range(0, len(words), 4)]
        self.position = 2
        self.span = (1 << 64) - 1
        first, second = (*self.words, 0, 0)[:2]
        self.offset = first << 32 | second
        self.lowest = integers[f"{name}.lowest"].tolist()
        ends = np.cumsum(integers[f"{name}.sizes"])
        self.borders = [cumulative(part.tolist()) for part in np.split(integers[f"{name}.counts"], ends[:-1])]

    def entry(self, borders: list[int]) -> int:
        """The next entry of a table."""
        scale = self.span >> 24
        quantile = self.offset // scale
        if quantile >= 1 << 24:
            raise Refused("corrupt-stream")
        entry = bisect.bisect_right(borders, quantile) - 1
        self.offset -= scale * borders[entry]
        self.span = scale * (borders[entry + 1] - borders[entry])
        if self.span < 1 << 32:
            word = self.words[self.position] if self.position < len(self.words) else 0
            self.position += 1
            self.span, self.offset = self.span << 32, self.offset << 32 | word
        return entry

    def part(self, groups: Any) -> Any:
        """The symbols of a part, in the order of `groups`."""
        symbols = np.zeros(groups.size, np.int64)
        escaped: list[tuple[int, int]] = []
        for group in range(len(self.lowest)):
            borders, lowest = self.borders[group], self.lowest[group]
            for place in np.flatnonzero(groups == group).tolist():
                entry = self.entry(borders)
                symbols[place] = lowest + entry
                if entry == len(borders) - 2:
                    escaped.append((place, group))
        for place, group in escaped:
            excess, self.escape_at = varint(self.escapes, self.escape_at, "corrupt-stream", "corrupt-stream")
            if excess & 1:
                value = self.lowest[group] - 1 - (excess >> 1)
            else:
                value = self.lowest[group] + len(self.borders[group]) - 2 + (excess >> 1)
            symbols[place] = max(-LIMIT - 1, min(LIMIT + 1, value))
        if symbols.size and np.abs(symbols).max() > LIMIT:
            raise Refused("corrupt-stream")
        return symbols

    def end(self) -> None:
        """Nothing may be left over."""
        unfinished = self.span != (1 << 64) - 1 and self.offset >= (1 << 33) - 1
        if self.position < len(self.words) or unfinished or self.escape_at != len(self.escapes):
            raise Refused("corrupt-stream")


# Hyper-decoder and context model --------------------------------------------------------------------------------------


def rescale(sums: Any, bias: Any, shift: Any, low: int, high: int) -> Any:
    """Exact sums [out, n] -> floor((v + bias + 2^(shift - 1)) / 2^shift), clamped."""
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift, 1) >> 1, 0)
    return (sums.astype(np.int64) + (bias + half)[:, None] >> shift[:, None]).clip(low, high)


def matrix(integers: dict[str, Any], name: str, columns: Any, low: int, high: int) -> Any:
    """A layer that is a matrix. The sums are integers below 2^53, which float64 adds without rounding."""
    kernel, bias, shift = (integers[f"{name}.{part}"] for part in ("kernel", "bias", "shift"))
    sums = kernel.reshape(len(bias), -1).astype(np.float64) @ columns.astype(np.float64)
    return rescale(sums, bias, shift, low, high)


def transposed(integers: dict[str, Any], name: str, x: Any) -> Any:
    """Transposed 5x5 convolution of stride 2, padding 2, output padding 1, ReLU: [in, h, w] -> [out, 2h, 2w]."""
    kernel, bias, shift = (integers[f"{name}.{part}"] for part in ("kernel", "bias", "shift"))
    _, h, w = x.shape
    sums = np.zeros((len(bias), 2 * h + 4, 2 * w + 4))
    for k in range(5):
        for j in range(5):  # input (i, l) adds to output (2 i + k - 2, 2 l + j - 2)
            taps = np.tensordot(kernel[:, :, k, j].astype(np.float64), x.astype(np.float64), (0, 0))
            sums[:, k : k + 2 * h : 2, j : j + 2 * w : 2] += taps
    cut = sums[:, 2 : 2 + 2 * h, 2 : 2 + 2 * w].reshape(len(bias), -1)
    return rescale(cut, bias, shift, 0, ACTIVATION).reshape(-1, 2 * h, 2 * w)


def decode(file: File, integers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Symbols of z int64 [C, h/4, w/4]; symbols, means in 1/16 and scale indices of y, int64 [M, h, w]."""
    rows, columns = -(-file.height // 64), -(-file.width // 64)
    medians = integers["medians"].astype(np.int64)
    stream = Stream(file.sections[1], integers, "hyper")
    z = stream.part(np.repeat(np.arange(medians.size), rows * columns)).reshape(-1, rows, columns)
    stream.end()

    x = (256 * z + medians[:, None, None]).clip(-(1 << 17), 1 << 17)
    for layer in (0, 1):
        x = transposed(integers, f"head.{layer}", x)
    h, w = x.shape[1:]
    last = matrix(integers, "head.2", x.reshape(len(x), -1), -FINE, FINE).reshape(-1, h, w)
    m256, scale = np.split(last, 2)
    rate = np.full((1, h, w), file.rate + (file.rate >= 128))
    seen = np.concatenate([x + 8 >> 4, rate])

    parity_of = np.add.outer(np.arange(h), np.arange(w)) % 2
    silent = int(integers.get("silent", [0])[0])
    stream = Stream(file.sections[2], integers, "latent")
    symbols, means, indices = (np.zeros(m256.shape, np.int64) for _ in range(3))
    known = np.zeros((len(m256), h + 2, w + 2), np.int64)  # what the windows read, with a border of zeros
    start, number = 0, 0
    for size in integers["context.groups"].tolist():
        own = slice(start, start + size)
        for parity in (0, 1):
            here = parity_of == parity
            mean, s = m256[own, here], scale[own, here]
            if number:
                seen_channels = start + (size if parity else 0)
                windows = np.stack(
                    [known[:seen_channels, a : a + h, b : b + w][:, here] for a in range(3) for b in range(3)], axis=1
                )
                v = np.concatenate([windows.reshape(9 * seen_channels, -1), seen[:, here]])
                for layer, low, high in ((0, 0, ACTIVATION), (1, 0, ACTIVATION), (2, -FINE, FINE)):
                    v = matrix(integers, f"context.{number - 1}.{layer}", v, low, high)
                mean, s = mean + v[:size], s + v[size:]
            mean = (mean + 8 >> 4).clip(-OUTPUT, OUTPUT)
            gain = integers["gain_to_index"][file.rate, own].astype(np.int64)[:, None]
            index = (s + gain + 128 >> 8).clip(0, 63)
            coded = index >= silent
            values = np.zeros(index.shape, np.int64)
            values[coded] = stream.part(index[coded])
            symbols[own, here], means[own, here], indices[own, here] = values, mean, index
            y = (4 * (16 * values + mean)).clip(-ACTIVATION, ACTIVATION)
            known[own, 1:-1, 1:-1][:, here] = y
            number += 1
        start += size
    stream.end()
    return z, symbols, means, indices


def read(data: bytes, integers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """A whole file: what `decode` gives."""
    file = parse(data)
    if file.codec_id != codec_id(integers):
        raise Refused("unknown-codec")
    return decode(file, integers)


def sha256_of_symbols(z: Any, y: Any) -> str:
    """Of z, then y, int32 little-endian, channel by channel."""
    return hashlib.sha256(z.astype("<i4").tobytes() + y.astype("<i4").tobytes()).hexdigest()


def main(arguments: list[str]) -> int:
    """Print the hash, or the reason of the refusal."""
    integers = read_integers(Path(arguments[1]) if len(arguments) > 1 else INTEGERS)
    try:
        z, y, _, _ = read(Path(arguments[0]).read_bytes(), integers)
    except Refused as error:
        print(f"{arguments[0]}: {error.code}", file=sys.stderr)
        return 1
    print(sha256_of_symbols(z, y))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
