"""Choosing the rate byte: by quality, by bits per pixel, or by a byte budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from model.codec import Codec
from model.config import DEFAULT_QUALITY, quality_of_rate, rate_of_quality
from model.container import Section
from model.errors import InvalidParameter, TargetUnreachable
from model.types import Latents

MAX_RATE = 255
Target = Literal["met", "unmet"]
NEAR, NEAR_BYTES = 0.05, 32  # of the bytes that target_bpp asks for: as close is as good as met


@dataclass(frozen=True)
class Packed:
    """A finished file, its rate byte 0..255, and whether its model has one rate alone.

    `target` says of a `target_bpp` or `max_bytes` whether it was met; None where neither was asked for.
    """

    data: bytes
    rate: int
    fixed_rate: bool = False
    target: Target | None = None

    @property
    def quality(self) -> int | None:
        """Quality 1..100 whose rate byte is nearest; None where the model has one rate."""
        return None if self.fixed_rate else quality_of_rate(self.rate)


def pack_to_quality(codec: Codec, images: Sequence[tuple[Latents, int | None, Sequence[Section]]]) -> list[Packed]:
    """Pack images whose canvases are of one shape, each at its quality 1..100 (None: 50) and with further sections.

    Raises:
        InvalidParameter: a quality out of range, or asked of a model of one rate.
    """
    fixed_rate = codec.architecture.fixed_rate
    if fixed_rate and any(quality is not None for _, quality, _ in images):
        raise InvalidParameter(f"model {codec.info.name!r} has one rate: leave out quality")
    rates = [0 if fixed_rate else rate_of_quality(DEFAULT_QUALITY if q is None else q) for _, q, _ in images]
    files = codec.pack_together(
        [(latents, rate, sections) for (latents, _, sections), rate in zip(images, rates, strict=True)]
    )
    return [Packed(file, rate, fixed_rate) for file, rate in zip(files, rates, strict=True)]


def pack_to_target(
    codec: Codec,
    latents: Latents,
    *,
    quality: int | None = None,
    target_bpp: float | None = None,
    max_bytes: int | None = None,
    sections: Sequence[Section] = (),
) -> Packed:
    """Pack an analysed image at the asked quality or size; the encoder has run once, whatever is asked.

    Args:
        quality: 1..100; 50 if nothing is asked. A model of one rate has no qualities and refuses one.
        target_bpp: bits of the whole file per pixel; the nearest rate is taken, the highest one if even that is below,
            and then `target` says that it was not met.
        max_bytes: the highest rate whose file has at most this many bytes.
        sections: further sections; they count towards the size.

    Raises:
        InvalidParameter: more than one target, or one out of range.
        TargetUnreachable: even the lowest rate is larger than asked.
    """
    if sum(v is not None for v in (quality, target_bpp, max_bytes)) > 1:
        raise InvalidParameter("choose one of quality, target_bpp and max_bytes")
    if target_bpp is None and max_bytes is None:
        return pack_to_quality(codec, [(latents, quality, sections)])[0]
    if (target_bpp is not None and not 0 < target_bpp <= 1000) or (max_bytes is not None and max_bytes < 1):
        raise InvalidParameter("target_bpp must be above 0 and at most 1000, max_bytes at least 1")
    fixed_rate, pixels = codec.architecture.fixed_rate, latents.width * latents.height
    budget = float(max_bytes) if max_bytes is not None else float(target_bpp or 0) * pixels / 8

    def attempt(rate: int) -> Packed:
        return Packed(codec.pack(latents, rate, sections), rate, fixed_rate)

    below, above = _bracket(attempt, budget, 0 if fixed_rate else MAX_RATE)
    if max_bytes is not None:
        return replace(below, target="met")
    if above is not None and len(above.data) - budget < budget - len(below.data):
        below = above
    far = abs(len(below.data) - budget) > max(NEAR * budget, NEAR_BYTES)
    return replace(below, target="unmet" if far else "met")


def _bracket(attempt: Callable[[int], Packed], budget: float, highest: int) -> tuple[Packed, Packed | None]:
    """Bisect the rate byte: return the last file within `budget` bytes and the first one beyond it, if there is one.

    Size grows with the rate but for rare single steps; the bracket then is one of several right answers, and the file
    returned as within the budget always is.
    """
    low = attempt(0)
    high = attempt(highest) if highest else low
    if len(low.data) > budget:
        raise TargetUnreachable(f"the smallest file of this image has {len(low.data)} bytes; {int(budget)} were asked")
    if len(high.data) <= budget:
        return high, None
    while high.rate - low.rate > 1:
        middle = attempt((low.rate + high.rate) // 2)
        if len(middle.data) <= budget:
            low = middle
        else:
            high = middle
    return low, high
