"""Many varints at once are those of one at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import CodecError, MalformedFile, TruncatedFile
from model.varint import decode_varint, decode_varints, encode_varint, encode_varints

VALUES = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1)), max_size=40)


@given(VALUES)
def test_many_are_as_one_at_a_time(values: list[int]) -> None:
    data = encode_varints(np.array(values, np.int64))
    assert data == b"".join(map(encode_varint, values))
    found, end = decode_varints(b"??" + data + b"\x05", 2, len(values))
    assert found.tolist() == values
    assert end == 2 + len(data)


@given(st.binary(max_size=60), st.integers(0, 10))
def test_what_is_refused_one_at_a_time_is_refused(data: bytes, count: int) -> None:
    expected: list[int] | None = []
    offset = 0
    try:
        for _ in range(count):
            value, offset = decode_varint(data, offset)
            expected.append(value)
    except CodecError:
        expected = None
    if expected is None:
        with pytest.raises(CodecError):
            decode_varints(data, 0, count)
    else:
        found, end = decode_varints(data, 0, count)
        assert (found.tolist(), end) == (expected, offset)


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", TruncatedFile), (b"\x80", TruncatedFile), (b"\x80\x00", MalformedFile), (b"\xff" * 10, MalformedFile)],
)
def test_faults(data: bytes, error: type[CodecError]) -> None:
    with pytest.raises(error):
        decode_varints(data, 0, 1)
