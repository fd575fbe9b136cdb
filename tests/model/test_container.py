from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.container import Header, Section, SectionType, pack, parse, read_header
from model.container.header import MAGIC, MAX_SIDE
from model.errors import (
    ChecksumMismatch,
    FileError,
    InvalidParameter,
    LimitExceeded,
    MalformedFile,
    NotACdcFile,
    TruncatedFile,
    UnsupportedVersion,
)
from model.varint import decode_varint, encode_varint

CODEC_ID = bytes(range(8))
HEADER = Header(CODEC_ID, 768, 512, 128)
STREAMS = (Section(SectionType.HYPER, b"zz"), Section(SectionType.LATENT, b"yyy"))


def seal(body: bytes) -> bytes:
    """Add a right checksum to a damaged body."""
    return body + google_crc32c.value(body).to_bytes(4, "little")


def test_layout_is_fixed() -> None:
    expected = (
        b"\x8fCDC\r\n\x1a\n"
        + b"\x01"
        + CODEC_ID
        + b"\x80\x06"
        + b"\x80\x04"
        + b"\x80"
        + b"\x01\x02zz"
        + b"\x02\x03yyy\x00"
    )
    assert pack(HEADER, STREAMS) == expected + bytes.fromhex("90cf4763")


def test_crc_is_castagnoli() -> None:
    assert google_crc32c.value(b"123456789") == 0xE3069283  # RFC 3720, B.4: the check value of CRC-32C


def test_overhead_is_below_40_bytes() -> None:
    largest = Header(CODEC_ID, MAX_SIDE, MAX_SIDE, 255)
    streams = (Section(SectionType.HYPER, bytes(1 << 20)), Section(SectionType.LATENT, bytes(1 << 23)))
    assert len(pack(largest, streams)) - (1 << 20) - (1 << 23) <= 40


def test_round_trip_keeps_unknown_optional_sections() -> None:
    sections = (*STREAMS, Section(SectionType.ALPHA, b"a"), Section(0xF0, b"later"))
    container = parse(pack(HEADER, sections))
    assert container.header == HEADER
    assert container.sections == sections
    assert container.section(SectionType.ALPHA) == b"a"
    assert container.section(SectionType.EXIF) is None


def test_every_prefix_is_refused() -> None:
    data = pack(HEADER, STREAMS)
    for length in range(1, len(data)):
        with pytest.raises(TruncatedFile):
            parse(data[:length])
    with pytest.raises(NotACdcFile):
        parse(b"")


def test_every_flipped_bit_is_refused() -> None:
    data = pack(HEADER, STREAMS)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FileError):
            parse(bytes(damaged))


def test_damage_behind_the_checksum() -> None:
    data = bytearray(pack(HEADER, STREAMS))
    data[-7] ^= 1
    with pytest.raises(ChecksumMismatch):
        parse(bytes(data))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"GIF89a" + bytes(40), NotACdcFile),
        (MAGIC + b"\x02" + CODEC_ID + b"\x01\x01\x00\x00", UnsupportedVersion),
        (MAGIC + b"\x01" + CODEC_ID + b"\x00\x01\x00\x00", MalformedFile),  # width 0
        (MAGIC + b"\x01" + CODEC_ID + b"\x80\x80\x04\x01\x00\x00", MalformedFile),  # width 65536
        (MAGIC + b"\x01" + CODEC_ID + b"\x81\x00\x01\x00\x00", MalformedFile),  # not the shortest form
        (MAGIC + b"\x01" + CODEC_ID + b"\xff" * 9 + b"\x01\x00\x00", MalformedFile),  # integer of 10 bytes
        (HEADER.to_bytes() + b"\x00", MalformedFile),  # no streams
        (HEADER.to_bytes() + b"\x01\x00\x01\x00\x00", MalformedFile),  # a type twice
        (HEADER.to_bytes() + b"\x01\x00\x02\x00\x10\x00\x00", UnsupportedVersion),  # unknown critical section
        (HEADER.to_bytes() + b"\x01\xff\xff\xff\xff\x7f\x00", TruncatedFile),  # section beyond the end
        (HEADER.to_bytes() + b"".join(bytes([t, 0]) for t in range(1, 20)) + b"\x00", MalformedFile),  # too many
    ],
)
def test_malformed_files_with_right_checksums(body: bytes, error: type[FileError]) -> None:
    with pytest.raises(error):
        parse(seal(body))


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(MalformedFile):
        parse(pack(HEADER, STREAMS) + b"\x00")


def test_pixel_limit_comes_before_everything_else() -> None:
    huge = Header(CODEC_ID, MAX_SIDE, MAX_SIDE, 0).to_bytes()
    with pytest.raises(LimitExceeded):
        read_header(huge, max_pixels=1_000_000)
    assert read_header(huge)[0].pixels == MAX_SIDE**2


@pytest.mark.parametrize(
    "bad", [(b"short", 1, 1, 0), (CODEC_ID, 0, 1, 0), (CODEC_ID, 1, 70000, 0), (CODEC_ID, 1, 1, 256)]
)
def test_header_checks_its_fields(bad: tuple[bytes, int, int, int]) -> None:
    with pytest.raises(InvalidParameter):
        Header(*bad)


def test_pack_refuses_a_type_twice() -> None:
    with pytest.raises(InvalidParameter):
        pack(HEADER, (*STREAMS, STREAMS[0]))


@given(st.integers(0, 2**63 - 1))
def test_varint_round_trip(value: int) -> None:
    assert decode_varint(encode_varint(value), 0) == (value, len(encode_varint(value)))


@settings(max_examples=300)
@given(st.binary(max_size=80), st.booleans())
def test_parse_of_any_bytes_is_a_typed_error(tail: bytes, with_header: bool) -> None:
    data = seal(HEADER.to_bytes() + tail) if with_header else tail
    try:
        parse(data)
    except FileError:
        return
    assert parse(data).header == HEADER
