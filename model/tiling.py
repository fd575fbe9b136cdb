"""How a canvas too large for one forward pass is covered by overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from model.config import ENCODER_MARGIN, LATENT_STRIDE, MARGIN, TILE, canvas_side, padded


@dataclass(frozen=True)
class Tiling:
    """Tile side, and margins around a tile's centre in the decoder and in the encoder, in pixels.

    Part of the result, so a constant of each family; tests use smaller ones. `radius` is the receptive radius of the
    conditioner, `step_radius` what a denoising step adds to it: pixels that far from a region decide it.
    """

    tile: int = TILE
    margin: int = MARGIN
    encoder_margin: int = ENCODER_MARGIN
    radius: int = 144
    step_radius: int = 80


@dataclass(frozen=True)
class Region:
    """A rectangle of an image, in pixels: sides at least 1."""

    left: int
    top: int
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    def grown(self, margin: int) -> Region:
        """The rectangle with `margin` pixels more on every side; its corner may lie outside the image."""
        return Region(self.left - margin, self.top - margin, self.width + 2 * margin, self.height + 2 * margin)

    def within(self, width: int, height: int) -> bool:
        """Whether it has pixels, all of them of an image of that size."""
        across = 0 <= self.left < self.left + self.width <= width
        return across and 0 <= self.top < self.top + self.height <= height

    def reduced(self, reduction: int) -> Region:
        """The rectangle at 1/`reduction` of the size, extended to whole pixels."""
        left, top = self.left // reduction, self.top // reduction
        right, bottom = -(-(self.left + self.width) // reduction), -(-(self.top + self.height) // reduction)
        return Region(left, top, right - left, bottom - top)


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels: it reads origin .. origin + size and owns start .. stop."""

    origin: int
    size: int
    start: int
    stop: int


@dataclass(frozen=True)
class Tile:
    """A rectangle to compute (`y`, `x` origins and sizes) and the centre of it to keep."""

    y: Span
    x: Span

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what is computed, in pixels."""
        return self.y.size, self.x.size

    def window(self, stride: int = 1) -> tuple[slice, slice]:
        """Slices of what the tile reads, on a map with `stride` pixels a side."""
        return _slice(self.y.origin, self.y.size, stride), _slice(self.x.origin, self.x.size, stride)

    def centre(self, stride: int = 1) -> tuple[slice, slice]:
        """Slices of what the tile owns, on the whole map."""
        return (
            _slice(self.y.start, self.y.stop - self.y.start, stride),
            _slice(self.x.start, self.x.stop - self.x.start, stride),
        )

    def inner(self, stride: int = 1) -> tuple[slice, slice]:
        """Slices of what the tile owns, within its own window."""
        return (
            _slice(self.y.start - self.y.origin, self.y.stop - self.y.start, stride),
            _slice(self.x.start - self.x.origin, self.x.stop - self.x.start, stride),
        )


@dataclass(frozen=True)
class Layout:
    """What of the decoder's canvas a decode computes.

    Attributes:
        top, left: of the part of the canvas that is held, in pixels, multiples of 16.
        rows, columns: sides of that part.
        tiles: of the part, in its own coordinates.
        crop: where the region that was asked for lies in the part.
    """

    top: int
    left: int
    rows: int
    columns: int
    tiles: list[Tile]
    crop: Region

    @property
    def area(self) -> int:
        """Pixels that a pass computes, margins of tiles included."""
        return sum(tile.y.size * tile.x.size for tile in self.tiles)


def spans(length: int, tile: int = TILE, margin: int = MARGIN) -> list[Span]:
    """Cover `length` pixels by tiles of `tile` pixels whose centres keep `margin` from inner edges.

    The last tile is shifted inside. All values must be multiples of 16 and tile > 2 * margin.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    out: list[Span] = []
    start = 0
    while start < length:
        origin = min(max(0, start - margin), length - tile)
        stop = length if origin + tile == length else origin + tile - margin
        out.append(Span(origin, tile, start, stop))
        start = stop
    return out


def tiles(height: int, width: int, tile: int = TILE, margin: int = MARGIN) -> list[Tile]:
    """Cover a canvas, row by row."""
    return [Tile(y, x) for y, x in product(spans(height, tile, margin), spans(width, tile, margin))]


SAMPLED_STEPS = 2  # whose reach counts: what lies further away is not seen (docs/benchmarks.md)


def layout_of(
    width: int,
    height: int,
    tiling: Tiling,
    region: Region | None = None,
    steps: int = 0,
    *,
    whole_canvas: bool = False,
) -> Layout:
    """How a decode covers an image of that size, or the part of it that `region` needs.

    A region is computed in the tiles of the whole image, each cut to what decides the region: its pixels are those of
    the whole decode.

    Args:
        width, height: of the image, in pixels.
        tiling: of the family.
        region: within the image; None: all of it.
        steps: denoising steps; 0: the conditioner gives the image itself.
        whole_canvas: the family sees the canvas in one piece: then all of it is computed.
    """
    side = padded if whole_canvas else canvas_side
    rows, columns = side(height), side(width)
    whole = Region(0, 0, width, height)
    cover = tiles(rows, columns, max(rows, columns) if whole_canvas else tiling.tile, tiling.margin)
    if region in (None, whole) or whole_canvas:
        return Layout(0, 0, rows, columns, cover, region or whole)
    assert region is not None
    sampled = min(steps, SAMPLED_STEPS)
    area = region.grown(max(0, sampled - 1) * tiling.step_radius)
    radius = tiling.radius + (tiling.step_radius if steps else 0)
    cut = [
        Tile(y, x)
        for tile in cover
        if (y := _cut(tile.y, area.top, area.height, radius)) and (x := _cut(tile.x, area.left, area.width, radius))
    ]
    top, left = min(t.y.origin for t in cut), min(t.x.origin for t in cut)
    bottom, right = max(t.y.origin + t.y.size for t in cut), max(t.x.origin + t.x.size for t in cut)
    moved = [Tile(_moved(t.y, top), _moved(t.x, left)) for t in cut]
    crop = replace(region, left=region.left - left, top=region.top - top)
    return Layout(top, left, bottom - top, right - left, moved, crop)


def _cut(span: Span, start: int, size: int, radius: int) -> Span | None:
    """What of a tile decides start .. start + size, aligned to latents; None where the tile owns nothing of it."""
    begin = max(span.start, start // LATENT_STRIDE * LATENT_STRIDE)
    stop = min(span.stop, -(-(start + size) // LATENT_STRIDE) * LATENT_STRIDE)
    if begin >= stop:
        return None
    origin = max(span.origin, begin - radius)
    return Span(origin, min(span.origin + span.size, stop + radius) - origin, begin, stop)


def _moved(span: Span, origin: int) -> Span:
    return replace(span, origin=span.origin - origin, start=span.start - origin, stop=span.stop - origin)


def encode_area(height: int, width: int, margin: int = ENCODER_MARGIN) -> int:
    """Pixels that the encoder computes for an image of that size, padding and margins of tiles included."""
    return _covered(padded(height), margin) * _covered(padded(width), margin)


def _covered(length: int, margin: int) -> int:
    return sum(span.size for span in spans(length, TILE, margin))


def _slice(start: int, size: int, stride: int) -> slice:
    return slice(start // stride, (start + size) // stride)
