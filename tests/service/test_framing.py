"""Which part of an image, at what size."""

from __future__ import annotations

import pytest

from model.errors import InvalidParameter
from model.tiling import Region
from service.framing import Frame, frame_of

SIZE = (400, 300)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Region(0, 0, 400, 300)),
        ("10,20,30,40", Region(10, 20, 30, 40)),
        ("390,290,30,40", Region(390, 290, 10, 10)),
        ("0,0,99999,99999", Region(0, 0, 400, 300)),
        ("pct:25,50,50,25", Region(100, 150, 200, 75)),
        ("pct:0.1,0.1,0.5,0.5", Region(0, 0, 2, 2)),
    ],
)
def test_regions(text: str | None, expected: Region) -> None:
    frame = frame_of(SIZE, text)
    assert frame == Frame(expected, (expected.width, expected.height), (expected.width, expected.height))


@pytest.mark.parametrize(
    "text",
    ["400,0,5,5", "0,300,5,5", "5,5,0,5", "5,5,5,0", "pct:100,0,5,5", "pct:0,0,0,0", "pct:10,10,0.01,10"],
)
def test_regions_without_a_pixel_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="no pixels"):
        frame_of(SIZE, text)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "-1,0,5,5", "1.5,0,5,5", "pct:1e3,0,5,5", "1,2,3,4,5", "nan,0,1,1", "٣,0,1,1"]
)
def test_regions_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="region must be"):
        frame_of(SIZE, text)


@pytest.mark.parametrize(
    ("width", "height", "fit", "scaled", "size"),
    [
        (200, None, "inside", (200, 150), (200, 150)),
        (None, 100, "inside", (133, 100), (133, 100)),
        (None, 100, "cover", (133, 100), (133, 100)),
        (100, 100, "inside", (100, 75), (100, 75)),
        (100, 100, "contain", (100, 75), (100, 100)),
        (100, 100, "cover", (100, 100), (100, 100)),
        (1, 1, "cover", (1, 1), (1, 1)),
        (1, None, "inside", (1, 1), (1, 1)),
        (5000, None, "inside", (400, 300), (400, 300)),
        (5000, 30, "inside", (40, 30), (40, 30)),
        (500, 500, "contain", (400, 300), (500, 500)),
        (400, 300, "cover", (400, 300), (400, 300)),
    ],
)
def test_sizes(width: int | None, height: int | None, fit: str, scaled: tuple[int, int], size: tuple[int, int]) -> None:
    frame = frame_of(SIZE, None, width, height, fit)  # type: ignore[arg-type]
    assert (frame.scaled, frame.size) == (scaled, size)


def test_cover_takes_the_middle_at_the_right_proportions() -> None:
    assert frame_of(SIZE, None, 100, 100, "cover").region == Region(50, 0, 300, 300)
    assert frame_of(SIZE, "100,0,100,300", 50, 50, "cover").region == Region(100, 100, 100, 100)


@pytest.mark.parametrize("sides", [(401, 10), (10, 301)])
def test_cover_enlarges_nothing(sides: tuple[int, int]) -> None:
    with pytest.raises(InvalidParameter, match="nothing is enlarged"):
        frame_of(SIZE, None, *sides, "cover")


@pytest.mark.parametrize(("width", "expected"), [(400, 1), (201, 1), (200, 2), (101, 2), (100, 4), (1, 4), (None, 1)])
def test_the_largest_reduction_that_has_the_pixels(width: int | None, expected: int) -> None:
    assert frame_of(SIZE, None, width).reduction((1, 2, 4)) == expected
    assert frame_of(SIZE, None, width).reduction((1,)) == 1


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [((1, 1), None, 1), ((2, 2), 1, 2), ((3, 3), 1, 2), ((1023, 767), 256, 4), ((7, 1), None, 1), ((5, 4), 1, 4)],
)
def test_what_is_decoded_at_full_size_keeps_its_pixels(size: tuple[int, int], width: int | None, expected: int) -> None:
    assert frame_of(size, None, width).reduction((1, 2, 4)) == expected
