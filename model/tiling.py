"""How a canvas too large for one forward pass is covered by overlapping tiles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from model.config import ENCODER_MARGIN, MARGIN, TILE, canvas_side, padded


@dataclass(frozen=True)
class Tiling:
    """Tile side, and margins around a tile's centre in the decoder and in the encoder, in pixels.

    Part of the result, so a constant of each family; tests use smaller ones.
    """

    tile: int = TILE
    margin: int = MARGIN
    encoder_margin: int = ENCODER_MARGIN


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


def encode_area(height: int, width: int, margin: int = ENCODER_MARGIN) -> int:
    """Pixels that the encoder computes for an image of that size, padding and margins of tiles included."""
    return _covered(padded(height), margin) * _covered(padded(width), margin)


def decode_area(height: int, width: int, margin: int = MARGIN, *, whole_canvas: bool = False) -> int:
    """Pixels that a pass of the decoder computes: as `encode_area`, on its own canvas, for some models in one piece."""
    if whole_canvas:
        return padded(height) * padded(width)
    return _covered(canvas_side(height), margin) * _covered(canvas_side(width), margin)


def _covered(length: int, margin: int) -> int:
    return sum(span.size for span in spans(length, TILE, margin))


def _slice(start: int, size: int, stride: int) -> slice:
    return slice(start // stride, (start + size) // stride)
