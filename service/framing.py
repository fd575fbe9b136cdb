"""Which part of an image a decode gives, and at what size: `region`, `width`, `height` and `fit`.

A region is taken first, then scaled, as in the IIIF Image API 3.0 (section 4). Nothing is enlarged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from model.errors import InvalidParameter
from model.tiling import Region

Fit = Literal["inside", "contain", "cover", "fill"]
ROUNDING = 0.005  # of a side, that sizes in proportion are off by
NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,6})?"
# x,y,w,h in pixels, or in percent of the sides behind pct: (IIIF Image API 3.0, 4.1).
REGION_PATTERN = rf"^(?:pct:{NUMBER}(?:,{NUMBER}){{3}}|[0-9]{{1,5}}(?:,[0-9]{{1,5}}){{3}})$"


@dataclass(frozen=True)
class Frame:
    """What becomes of an image.

    Attributes:
        region: the part of it that is decoded, in its own pixels.
        scaled: width and height that the region is scaled to, at most its own.
        size: width and height of the answer; larger than `scaled` where `contain` pads.
    """

    region: Region
    scaled: tuple[int, int]
    size: tuple[int, int]

    def part(self, width: int, height: int) -> Region | None:
        """The region, None where it is the whole of an image of that size."""
        return None if self.region == Region(0, 0, width, height) else self.region

    def reduction(self, offered: tuple[int, ...]) -> int:
        """The largest of the offered fractions 1/n that still has all the pixels that are asked for."""
        pairs = list(zip(self.scaled, (self.region.width, self.region.height), strict=True))
        enough = [n for n in offered if all(n * want < have + max(1.0, ROUNDING * have) for want, have in pairs)]
        return max(enough, default=1)


def frame_of(
    size: tuple[int, int],
    region: str | None = None,
    width: int | None = None,
    height: int | None = None,
    fit: Fit = "inside",
) -> Frame:
    """Work out what a decode gives.

    Args:
        size: width and height of the image, in pixels.
        region: as REGION_PATTERN says; what of it lies outside the image is left out. None: all of it.
        width, height: of the answer, in pixels; with one of them the other follows from the region.
        fit: with both of them. inside: as large as fits, at the region's own proportions. contain: the same, padded to
            exactly that size. cover: exactly that size, the middle of the region. fill: exactly that size, out of
            proportion, at most the region's.

    Raises:
        InvalidParameter: the region has no pixels of the image, or `cover` would enlarge it.
    """
    part = Region(0, 0, *size) if region is None else _region(region, size)
    if width is None and height is None:
        return Frame(part, (part.width, part.height), (part.width, part.height))
    if width is not None and height is not None and fit == "cover":
        return _covering(part, width, height)
    if width is not None and height is not None and fit == "fill":
        return Frame(part, (width, height), (width, height))
    across = 1.0 if width is None else width / part.width
    down = 1.0 if height is None else height / part.height
    scale = min(1.0, across, down)
    scaled = _scaled(part.width, scale), _scaled(part.height, scale)
    padded = fit == "contain" and width is not None and height is not None
    return Frame(part, scaled, (width, height) if padded and width and height else scaled)


def _covering(part: Region, width: int, height: int) -> Frame:
    if width > part.width or height > part.height:
        raise InvalidParameter(
            f"{width}x{height} pixels cannot cover more than the {part.width}x{part.height} there are: "
            "nothing is enlarged"
        )
    scale = max(width / part.width, height / part.height)
    kept = min(part.width, max(1, round(width / scale))), min(part.height, max(1, round(height / scale)))
    left, top = part.left + (part.width - kept[0]) // 2, part.top + (part.height - kept[1]) // 2
    return Frame(Region(left, top, *kept), (width, height), (width, height))


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _region(text: str, size: tuple[int, int]) -> Region:
    if re.fullmatch(REGION_PATTERN, text) is None:
        raise InvalidParameter("region must be x,y,w,h in pixels or pct:x,y,w,h in percent")
    values = [float(part) for part in text.removeprefix("pct:").split(",")]
    if text.startswith("pct:"):
        values = [value * size[axis % 2] / 100 for axis, value in enumerate(values)]
    ends = [min(size[axis], round(values[axis] + values[axis + 2])) for axis in (0, 1)]
    left, top = round(values[0]), round(values[1])
    if left >= ends[0] or top >= ends[1]:
        raise InvalidParameter(f"the region {text} has no pixels of the {size[0]}x{size[1]} of the image")
    return Region(left, top, ends[0] - left, ends[1] - top)
