"""Damaged `.cdc` files for the hostile bar, most of them behind a right checksum."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from benchmarks.cases import (
    CHECKSUM,
    CODEC,
    CUT,
    MALFORMED,
    NO_BODY,
    NOT_CDC,
    OK,
    PIXELS,
    STREAM,
    VERSION,
    Answer,
    Case,
)
from benchmarks.raw_file import Raw, joined, split, written
from model.container import SectionType, parse
from model.varint import encode_varint

MAX_PIXELS = 4_000_000  # the limit that the server must run with
HYPER, LATENT, ALPHA, EXIF = map(int, (SectionType.HYPER, SectionType.LATENT, SectionType.ALPHA, SectionType.EXIF))

# Kind of damage: answers of /decode, answers of /inspect. Streams, alpha and EXIF are not read by /inspect, and it
# describes images over the limit and of unknown codecs as well.
Row = tuple[set[Answer], set[Answer]]
SEALED: dict[str, Row] = {
    "magic": ({NOT_CDC}, {NOT_CDC}),
    "version": ({VERSION}, {VERSION}),
    "codec id": ({CODEC}, {OK}),
    "sides of zero": ({MALFORMED}, {MALFORMED}),
    "sides of 65536 and more": ({MALFORMED}, {MALFORMED}),
    "sides not in shortest form": ({MALFORMED}, {MALFORMED}),
    "sides of 65535x65535": ({PIXELS}, {OK}),
    "sides just over the limit": ({PIXELS}, {OK}),
    "sides of 6000x6000": ({PIXELS}, {OK}),
    "section length": ({CUT, MALFORMED, VERSION, STREAM}, {CUT, MALFORMED, VERSION}),
    "section missing": ({MALFORMED}, {MALFORMED}),
    "section twice": ({MALFORMED}, {MALFORMED}),
    "seventeen sections": ({MALFORMED}, {MALFORMED}),
    "critical section unknown": ({VERSION}, {VERSION}),
    "end missing": ({CUT, MALFORMED, VERSION}, {CUT, MALFORMED, VERSION}),
    "z stream empty": ({STREAM}, {OK}),
    "y stream empty": ({STREAM}, {OK}),
    "z stream lengths": ({STREAM}, {OK}),
    "y stream lengths": ({STREAM}, {OK}),
    "z words added": ({STREAM}, {OK}),
    "y words added": ({STREAM}, {OK}),
    "z escapes added": ({STREAM}, {OK}),
    "y escapes added": ({STREAM}, {OK}),
    "alpha of another size": ({MALFORMED}, {OK}),
    "alpha not a PNG": ({MALFORMED}, {OK}),
    "alpha cut": ({MALFORMED}, {OK}),
}
# Damage that may leave a decodable file: other symbols are an image like any other, an unknown optional section is
# skipped, EXIF is handed through. Counted apart.
SEALED_READABLE: dict[str, Row] = {
    "rate": ({OK, STREAM}, {OK}),
    "sides": ({OK, STREAM}, {OK}),
    "z words": ({OK, STREAM}, {OK}),
    "y words": ({OK, STREAM}, {OK}),
    "z words cut": ({OK, STREAM}, {OK}),
    "y words cut": ({OK, STREAM}, {OK}),
    "y escape values": ({OK, STREAM}, {OK}),
    "alpha data": ({OK, MALFORMED}, {OK}),
    "alpha inflates": ({OK, MALFORMED}, {OK}),
    "EXIF": ({OK}, {OK}),
    "symbols at random": ({OK}, {OK}),
    "largest symbols": ({OK}, {OK}),
    "sections in another order": ({OK}, {OK}),
    "optional section unknown": ({OK}, {OK}),
}
# A flat image has few bytes however large it is. Rare: it costs what the image costs.
COSTLY: dict[str, Row] = {
    "largest sides, flat image": ({OK}, {OK}),
    "largest sides, tiny streams": ({OK, STREAM}, {OK}),
}
PLAIN: dict[str, Row] = {
    "cut": ({CUT, NOT_CDC}, {CUT, NOT_CDC}),
    "bit flipped": (
        {NOT_CDC, VERSION, MALFORMED, CODEC, PIXELS, CUT, CHECKSUM},
        {NOT_CDC, VERSION, MALFORMED, CUT, CHECKSUM},
    ),
    "bytes overwritten": (
        {NOT_CDC, VERSION, MALFORMED, CODEC, PIXELS, CUT, CHECKSUM},
        {NOT_CDC, VERSION, MALFORMED, CUT, CHECKSUM},
    ),
    "checksum": ({CHECKSUM}, {CHECKSUM}),
    "bytes appended": ({MALFORMED}, {MALFORMED}),
    "random bytes": ({NOT_CDC}, {NOT_CDC}),
    "random bytes behind the magic": ({CUT, VERSION, MALFORMED, CODEC, PIXELS}, {CUT, VERSION, MALFORMED, CHECKSUM}),
    "empty": ({NO_BODY}, {NO_BODY}),
    "another file type": ({NOT_CDC}, {NOT_CDC}),
}
LARGEST_SYMBOL = {"symbols at random": 40, "largest symbols": 1 << 15}
OTHER_TYPES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"%PDF-1.7\n",
    b"PK\x03\x04",
    b"\x7fELF\x02\x01\x01",
    b"{}",
    b"\0",
)


@dataclass(frozen=True)
class Valid:
    """Files to damage: plain colour, with alpha and EXIF, with escapes in its y stream; all of one size."""

    plain: bytes
    full: bytes
    escaped: bytes
    size: tuple[int, int]


def overwritten(rng: random.Random, data: bytes, most: int = 6, start: int = 0) -> bytes:
    """`data` with 1..most bytes from `start` on changed."""
    out = bytearray(data)
    for position in rng.sample(range(start, len(data)), min(len(data) - start, rng.randint(1, most))):
        out[position] ^= rng.randint(1, 255)
    return bytes(out)


def damaged_stream(rng: random.Random, how: str, stream: bytes) -> bytes:
    """Damage an entropy-coded stream; `how` is a kind of the tables without its first word."""
    escapes, words = split(stream)
    if how == "stream empty":
        return b""
    if how == "stream lengths":
        wrong = rng.choice([len(stream) + 1, 1 << 40, len(escapes) + rng.choice([1, 2, 3])])
        return rng.choice([encode_varint(wrong) + escapes + words, b"\x80" * 9 + escapes + words, stream + b"\0"])
    if how == "words":
        return joined(escapes, overwritten(rng, words))
    if how == "words cut":
        return joined(escapes, words[: 4 * rng.randrange(max(1, len(words) // 4))])
    if how == "words added":
        return joined(escapes, words + rng.randbytes(4 * rng.randint(2, 50)))
    if how == "escapes added":
        return joined(escapes + encode_varint(rng.randrange(1 << 15)), words)
    assert how == "escape values"
    return joined(overwritten(rng, escapes), words)


def damaged_alpha(rng: random.Random, kind: str, png: bytes, size: tuple[int, int]) -> bytes:
    """Damage the PNG of an alpha section."""
    header, data_at = png[:33], png.index(b"IDAT") + 4
    if kind == "alpha of another size":
        sides = rng.choice([(size[0] + 1, size[1]), size[::-1], (65535, 65535), (2**31 - 1, 2**31 - 1), (0, 0)])
        fields = b"IHDR" + b"".join(s.to_bytes(4, "big") for s in sides) + png[24:29]
        return png[:12] + fields + zlib.crc32(fields).to_bytes(4, "big") + png[33:]
    if kind == "alpha not a PNG":
        return rng.choice([b"", rng.randbytes(200), b"\xff\xd8\xff\xe0" + rng.randbytes(90), png[:8]])
    if kind == "alpha cut":
        return png[: rng.randrange(33, data_at + (len(png) - data_at) // 2)]
    if kind == "alpha inflates":
        fields = b"IDAT" + zlib.compress(bytes(200 << 20), 1)[:900_000]
        return header + (len(fields) - 4).to_bytes(4, "big") + fields + zlib.crc32(fields).to_bytes(4, "big")
    assert kind == "alpha data"
    return overwritten(rng, png, 6, data_at)


def damaged_header(rng: random.Random, kind: str, raw: Raw) -> Raw:
    """Damage a field before the sections."""
    if kind == "magic":
        return replace(raw, magic=overwritten(rng, raw.magic, 3))
    if kind == "version":
        return replace(raw, version=bytes([rng.choice([0, 2, 3, 127, 255])]))
    if kind == "codec id":
        return replace(raw, codec_id=overwritten(rng, raw.codec_id, 8))
    if kind == "rate":
        return replace(raw, rate=(raw.rate + rng.randint(1, 255)) % 256)
    if kind == "sides not in shortest form":
        return replace(
            raw, sides=rng.choice([(b"\xe0\x00", b"\x50"), (b"\xe0\x80\x00", b"\x50"), (b"\x80" * 9 + b"\1", b"\1")])
        )
    chosen = {
        "sides of zero": [(0, 80), (96, 0), (0, 0)],
        "sides of 65536 and more": [(65536, 1), (1, 65536), (1 << 40, 1 << 40), ((1 << 63) - 1, 1)],
        "sides of 65535x65535": [(65535, 65535)],
        "sides just over the limit": [(2000, 2001), (65535, 62)],
        "sides of 6000x6000": [(6000, 6000), (6001, 5999)],
        "sides": [(97, 80), (128, 128), (1, 1), (1, 700), (700, 1), (500, 300), (64, 64), (129, 128)],
        "largest sides, tiny streams": [(2000, 2000), (65535, 61)],
    }[kind]
    return raw.sized(*rng.choice(chosen))


def damaged_list(rng: random.Random, kind: str, raw: Raw) -> Raw:
    """Damage the list of sections."""
    sections = list(raw.sections)
    at = rng.randrange(len(sections))
    if kind == "section length":
        wrong = rng.choice([len(sections[at][2]) + rng.choice([-9, -2, -1, 1, 2, 9]), 0, 1 << 20, (1 << 63) - 1])
        sections[at] = sections[at][0], encode_varint(max(0, wrong)), sections[at][2]
    elif kind == "section missing":
        del sections[rng.randrange(2)]
    elif kind == "section twice":
        sections.insert(rng.randint(0, len(sections)), sections[at])
    elif kind == "seventeen sections":
        sections += [(200 + i, b"\0", b"") for i in range(17 - len(sections))]
    elif kind == "critical section unknown":
        sections.insert(at, (rng.randint(5, 127), b"\3", b"abc"))
    elif kind == "optional section unknown":
        sections.insert(at, (rng.randint(130, 255), b"\3", b"abc"))
    elif kind == "sections in another order":
        sections.reverse()
    else:
        assert kind == "end missing"
        return replace(raw, end=b"")
    return raw.with_sections(sections)


def damaged_sealed(rng: random.Random, kind: str, valid: Valid) -> bytes:
    """A file with one kind of damage and a right checksum."""
    plain, full = Raw.of(valid.plain), Raw.of(valid.full)
    if kind.startswith("alpha"):
        return full.with_data(ALPHA, damaged_alpha(rng, kind, full.data(ALPHA), valid.size)).sealed()
    if kind == "EXIF":
        exif = full.data(EXIF)
        data = rng.choice(
            [b"", exif[: len(exif) // 2], overwritten(rng, exif), rng.randbytes(300), b"II*\0" + b"\xff" * 90]
        )
        return full.with_data(EXIF, data).sealed()
    if kind == "y escape values":
        escaped = Raw.of(valid.escaped)
        return escaped.with_data(LATENT, damaged_stream(rng, kind[2:], escaped.data(LATENT))).sealed()
    if kind[:2] in ("z ", "y "):
        section = HYPER if kind[0] == "z" else LATENT
        raw = rng.choice([plain, full])
        return raw.with_data(section, damaged_stream(rng, kind[2:], raw.data(section))).sealed()
    if kind in LARGEST_SYMBOL:
        return written(*valid.size, rng.randrange(256), LARGEST_SYMBOL[kind], rng.randrange(99))
    if kind == "largest sides, flat image":
        return written(2000, 2000, rng.randrange(256), 0)
    if kind in COSTLY:
        tiny = plain.with_data(HYPER, joined(b"", rng.randbytes(8))).with_data(LATENT, joined(b"", rng.randbytes(8)))
        return damaged_header(rng, kind, tiny).sealed()
    if kind.startswith(("section", "seventeen", "critical", "optional", "end")):
        return damaged_list(rng, kind, full).sealed()
    return damaged_header(rng, kind, plain).sealed()


def damaged_plain(rng: random.Random, kind: str, valid: Valid) -> bytes:
    """A file with one kind of damage and whatever checksum that leaves."""
    file = rng.choice([valid.plain, valid.full])
    if kind == "bit flipped":
        out = bytearray(file)
        out[rng.choice([rng.randrange(22), rng.randrange(len(file))])] ^= 1 << rng.randrange(8)
        return bytes(out)
    make: dict[str, Callable[[], bytes]] = {
        "cut": lambda: file[: rng.choice([rng.randint(1, 24), rng.randrange(24, len(file))])],
        "bytes overwritten": lambda: overwritten(rng, file, 40),
        "checksum": lambda: overwritten(rng, file, 4, len(file) - 4),
        "bytes appended": lambda: file + rng.choice([b"\0", b"\n", file, rng.randbytes(4)]),
        "random bytes": lambda: b"\0" + rng.randbytes(rng.choice([1, 7, 40, 5000])),
        "random bytes behind the magic": lambda: (
            file[:8] + rng.choice([b"", b"\1"]) + rng.randbytes(rng.randint(0, 400))
        ),
        "empty": lambda: b"",
        "another file type": lambda: rng.choice(OTHER_TYPES) + rng.randbytes(300),
    }
    return make[kind]()


def kinds(count: int, rng: random.Random) -> Iterator[tuple[str, Row, bool]]:
    """Kind, answers and whether the checksum is right: two of three are sealed, a costly one among 50."""
    sealed, plain, costly = list((SEALED | SEALED_READABLE).items()), list(PLAIN.items()), list(COSTLY.items())
    rng.shuffle(sealed)
    for i in range(count):
        if i % 50 == 49:
            yield *costly[i // 50 % len(costly)], True
        elif i % 3 != 2:
            yield *sealed[(i - i // 3) % len(sealed)], True
        else:
            yield *plain[i // 3 % len(plain)], False


def damaged_files(valid: Valid, count: int, seed: int = 0) -> list[Case]:
    """Return `count` requests with damaged files; about one of five goes to /inspect."""
    rng = random.Random(seed)
    cases = []
    for name, (decode, inspect), sealed in kinds(count, rng):
        body = (damaged_sealed if sealed else damaged_plain)(rng, name, valid)
        route, query, allowed = "/decode", {"steps": "1"}, frozenset(decode)
        if rng.random() < 0.2:
            route, query, allowed = "/inspect", {}, frozenset(inspect)
        size = None
        if OK in allowed:
            header = parse(body).header
            size = header.width, header.height
        content_type = rng.choice(["application/octet-stream", "image/x-cdc", None])
        cases.append(Case(name, route, body, allowed, size, query, content_type, sealed))
    return cases
