"""Images side by side: the same detail as several codecs decode it, several seeds, and states along the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.distortion import psnr
from model.errors import InvalidParameter
from model.evaluation.coders.models import Coder, Value
from model.evaluation.figures.curves import label_of
from model.evaluation.figures.plots import pyplot
from model.evaluation.runs.cache import Cache, Row
from model.evaluation.runs.datasets import DataSet, prepare
from model.types import Pixels

SIDE = 192


@dataclass(frozen=True)
class Tile:
    """A detail and what stands above it: uint8 [S, S, 3] and one or two lines."""

    pixels: Pixels
    caption: str


@dataclass(frozen=True)
class Window:
    """Where a detail lies: its upper left corner and its side in pixels."""

    top: int
    left: int
    side: int

    def of(self, pixels: Pixels) -> Pixels:
        """Cut it out."""
        return pixels[self.top : self.top + self.side, self.left : self.left + self.side]


def busiest_window(pixels: Pixels, side: int = SIDE) -> Window:
    """The window with the largest sum of gradients on a grid of half sides: the detail in which codecs differ most."""
    height, width = pixels.shape[:2]
    side = min(side, height, width)
    grey = pixels.astype(np.float64).mean(axis=2)
    energy = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    places = [
        (top, left)
        for top in range(0, height - side + 1, max(1, side // 2))
        for left in range(0, width - side + 1, max(1, side // 2))
    ]
    top, left = max(places, key=lambda p: energy[p[0] : p[0] + side, p[1] : p[1] + side].sum())
    return Window(top, left, side)


def compared(
    data: DataSet, rows: Sequence[Row], coders: Sequence[Coder], cache: Cache, bpp: float, count: int, side: int = SIDE
) -> list[list[Tile]]:
    """For each of the first `count` images: the original's detail, then that of each codec and mode.

    Of each codec and mode the measured point nearest to `bpp` is shown, of baselines that nearest to what the first
    codec spent.
    """
    by_name = {c.name: c for c in coders}
    lines = []
    for item in data.items[:count]:
        original = prepare(item).pixels
        window = busiest_window(original, side)
        tiles = [Tile(window.of(original), "original")]
        own = [r for r in rows if r.image == item.name and r.data == data.name]
        target = bpp
        for kind in dict.fromkeys(_kind(r) for r in own):
            row = min((r for r in own if _kind(r) == kind), key=lambda r: abs(r.bpp - target))
            coded = cache.file(row.coded_sha256)
            if coded is None:
                raise InvalidParameter(f"{row.codec}, {row.image}: the coded file is not in the cache")
            if len(tiles) == 1:
                target = row.bpp
            picture = by_name[row.codec].decode(coded, row.parameters).pixels
            tiles.append(Tile(window.of(picture), f"{kind}\n{row.bpp:.3f} bpp, {psnr(original, picture):.2f} dB"))
        lines.append(tiles)
    return lines


def seeds(
    data: DataSet, coder: Coder, quality: int, steps: int, gamma: float, numbers: Sequence[int]
) -> list[list[Tile]]:
    """One image's detail decoded with several seeds, and the standard deviation over them (times 8)."""
    original = prepare(data.items[0]).pixels
    window = busiest_window(original)
    common: dict[str, Value] = {"steps": steps, "gamma": gamma}
    # A model of one rate has no qualities.
    parameters = {"quality": quality, **common} if "quality" in coder.points[0] else common
    coded = coder.encode(original, parameters).data
    tiles, decoded = [Tile(window.of(original), "original")], []
    for number in numbers:
        picture = coder.decode(coded, {**parameters, "seed": number}).pixels
        decoded.append(window.of(picture).astype(np.float64))
        tiles.append(Tile(window.of(picture), f"seed {number}\n{psnr(original, picture):.2f} dB"))
    spread = np.stack(decoded).std(axis=0).mean(axis=2, keepdims=True)
    shown = (8 * spread).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
    return [[*tiles, Tile(shown, f"8 x deviation\nmean {spread.mean():.2f} of 255")]]


def states(
    data: DataSet, models_dir: Path | None, name: str, quality: int, steps: int, gamma: float, shown: int = 6
) -> list[list[Tile]]:
    """One image's detail along a decode: the states x_n above, the guesses of x_0 below."""
    from model.rate_control import pack_to_target
    from model.weights.registry import Registry

    codec = Registry(models_dir).get(name)
    original = prepare(data.items[0]).pixels
    window = busiest_window(original)
    chosen = None if codec.architecture.fixed_rate else quality
    file = pack_to_target(codec, codec.analyse(original), quality=chosen).data
    state = codec.start(codec.unpack(file), steps, gamma, 0, keep_x0=True)
    keep = set(np.linspace(0, steps, min(shown, steps + 1)).round().astype(int).tolist())
    above, below = [], []
    for done in range(steps + 1):
        if done in keep or state.done:
            above.append(Tile(window.of(codec.finish(state)), f"$x_n$ after {done} of {steps}"))
            guess = codec.preview(state)
            if done and guess is not None:
                caption = f"guess of $x_0$\n{psnr(original, guess):.2f} dB"
                below.append(Tile(window.of(guess), caption))
            else:
                below.append(Tile(window.of(original), "original"))
        if state.done:  # of cdc-lite at once at gamma 0
            break
        codec.denoise_step(state)
    return [above, below]


def draw(lines: Sequence[Sequence[Tile]], path: Path, title: str = "", dpi: int = 110) -> Path:
    """Write lines of details as one PNG; returns `path`."""
    plt = pyplot()
    columns = max(len(line) for line in lines)
    figure, axes = plt.subplots(
        len(lines), columns, figsize=(2.1 * columns, 2.5 * len(lines) + 0.4), squeeze=False, constrained_layout=True
    )
    for axis in axes.flat:
        axis.axis("off")
    for line, row in zip(lines, axes, strict=True):
        for tile, axis in zip(line, row, strict=False):
            axis.imshow(tile.pixels, interpolation="nearest")
            axis.set_title(tile.caption, fontsize=7.5)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
    return path


def _kind(row: Row) -> str:
    return label_of(row.codec, row.parameters)
