"""Choosing the rate byte: by quality, by bits per pixel, or by a byte budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

from model.codec import Codec
from model.config import DEFAULT_EFFORT, DEFAULT_QUALITY, quality_of_rate, rate_of_quality
from model.container import Section
from model.errors import InvalidParameter, TargetUnreachable
from model.refinement import Between, nothing
from model.types import Latents

MAX_RATE = 255
Target = Literal["met", "unmet"]
GUESSED_GAIN = 1.07  # bytes before the refinement over those after it
MARGIN = 0.995  # of the gain, which is a little less or more at another rate
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
    rates = [rate_of(codec, quality) for _, quality, _ in images]
    files = codec.pack_together(
        [(latents, rate, sections) for (latents, _, sections), rate in zip(images, rates, strict=True)]
    )
    fixed_rate = codec.architecture.fixed_rate
    return [Packed(file, rate, fixed_rate) for file, rate in zip(files, rates, strict=True)]


def rate_of(codec: Codec, quality: int | None) -> int:
    """Quality 1..100, None for the default -> rate byte.

    Raises:
        InvalidParameter: out of range, or asked of a model of one rate.
    """
    if not codec.architecture.fixed_rate:
        return rate_of_quality(DEFAULT_QUALITY if quality is None else quality)
    if quality is not None:
        raise InvalidParameter(f"model {codec.info.name!r} has one rate: leave out quality")
    return 0


def pack_to_target(
    codec: Codec,
    latents: Latents,
    *,
    quality: int | None = None,
    target_bpp: float | None = None,
    max_bytes: int | None = None,
    sections: Sequence[Section] = (),
    effort: int = DEFAULT_EFFORT,
    between: Between = nothing,
) -> Packed:
    """Pack an analysed image at the asked quality or size; the encoder has run once, whatever is asked.

    Args:
        quality: 1..100; 50 if nothing is asked. A model of one rate has no qualities and refuses one.
        target_bpp: bits of the whole file per pixel; the nearest rate is taken, the highest one if even that is below,
            and then `target` says that it was not met.
        max_bytes: the highest rate whose file has at most this many bytes.
        sections: further sections; they count towards the size.
        effort: see `Codec.quantise`. Of a size that is asked for, two rates are refined.
        between: see `Codec.quantise`.

    Raises:
        InvalidParameter: more than one target, one out of range, or an effort that the model does not have.
        TargetUnreachable: even the lowest rate is larger than asked.
    """
    if sum(v is not None for v in (quality, target_bpp, max_bytes)) > 1:
        raise InvalidParameter("choose one of quality, target_bpp and max_bytes")
    fixed_rate = codec.architecture.fixed_rate
    if target_bpp is None and max_bytes is None:
        rate = rate_of(codec, quality)
        return Packed(codec.pack(latents, rate, sections, effort=effort, between=between), rate, fixed_rate)
    if (target_bpp is not None and not 0 < target_bpp <= 1000) or (max_bytes is not None and max_bytes < 1):
        raise InvalidParameter("target_bpp must be above 0 and at most 1000, max_bytes at least 1")
    pixels = latents.width * latents.height
    budget = float(max_bytes) if max_bytes is not None else float(target_bpp or 0) * pixels / 8

    @cache
    def attempt(rate: int) -> Packed:
        if effort > DEFAULT_EFFORT:
            between(0.0, 1)  # whoever waits for minutes may have left before the first gradient
        return Packed(codec.pack(latents, rate, sections), rate, fixed_rate)

    def missed(packed: Packed) -> float:
        return abs(len(packed.data) - budget)

    highest = 0 if fixed_rate else MAX_RATE
    tried = [packed for packed in _bracket(attempt, budget, highest) if packed is not None]
    if effort > DEFAULT_EFFORT:
        refined = _refined(
            codec, latents, budget, partial(_bracket, attempt, highest=highest), sections, effort, between
        )
        tried = refined if max_bytes is None else [tried[0], *refined]  # of these one is sure to fit
    if max_bytes is not None:
        fitting = [packed for packed in tried if len(packed.data) <= budget]
        return replace(max(fitting, key=lambda packed: packed.rate), target="met")
    nearest = min(tried, key=missed)
    return replace(nearest, target="unmet" if missed(nearest) > max(NEAR * budget, NEAR_BYTES) else "met")


def _refined(
    codec: Codec,
    latents: Latents,
    budget: float,
    bracket: Callable[[float], tuple[Packed, Packed | None]],
    sections: Sequence[Section],
    effort: int,
    between: Between,
) -> list[Packed]:
    """Refined files at two rates: a guess, and what the guess's own gain says meets the budget."""
    found: list[Packed] = []
    gain = GUESSED_GAIN
    for number in range(2):

        def within(done: float, of: int, before: int = number) -> None:
            between(before * of + done, 2 * of)

        plain = bracket(budget * gain)[0]
        if plain.rate in (packed.rate for packed in found):
            break
        file = codec.pack(latents, plain.rate, sections, effort=effort, between=within)
        found.append(Packed(file, plain.rate, codec.architecture.fixed_rate))
        gain = MARGIN * len(plain.data) / len(file)
    return found


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
