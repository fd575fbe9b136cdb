"""Visible blocks: squared differences across the edges of blocks against those between other neighbours.

    CDC_SHARED=FOLDER python -m benchmarks.blocks [--quality 50] [--images 24] [--json FILE]

For Kodak images and decodes of one step without noise: the mean over columns (and rows) at multiples of 16, and of 8,
divided by the mean over the others; 1 where nothing shows, and so near 1 for the originals. "Flat" is over neighbours
whose originals differ by at most two levels, skies for instance, where blocks show first.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks import record
from model.config import rate_of_quality
from model.types import Pixels
from model.weights.registry import Registry

FLAT_LEVELS = 2
Sums = npt.NDArray[np.float64]


def sums(picture: Pixels, original: Pixels, block: int, *, flat: bool) -> Sums:
    """Squared difference and count at edges of blocks, and elsewhere, [2, 2], over both directions."""
    found = np.zeros((2, 2))
    for turn in (False, True):
        a, b = (p.swapaxes(0, 1) if turn else p for p in (picture, original))
        difference = np.diff(a.astype(np.float64), axis=1)
        kept = np.abs(np.diff(b.astype(np.int64), axis=1)) <= (FLAT_LEVELS if flat else 255)
        edge = (np.arange(1, a.shape[1]) % block == 0)[None, :, None]
        for row, mask in enumerate((kept & edge, kept & ~edge)):
            found[row] += (np.square(difference)[mask].sum(), mask.sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=int, default=50)
    parser.add_argument("--images", type=int, default=24)
    options = record.parse(parser)
    codec = Registry(precision="float32").get()
    cases = [(block, flat) for block in (16, 8) for flat in (False, True)]
    totals = {case: [np.zeros((2, 2)), np.zeros((2, 2))] for case in cases}
    paths = sorted((Path(os.environ["CDC_SHARED"]) / "data" / "kodak").glob("kodim*.png"))
    for path in paths[: options.images]:
        original = np.asarray(Image.open(path).convert("RGB"))
        decoded = codec.decode(codec.pack(codec.analyse(original), rate_of_quality(options.quality)), 1, 0.0)
        for block, flat in cases:
            for total, picture in zip(totals[block, flat], (original, decoded), strict=True):
                total += sums(picture, original, block, flat=flat)
    rows = []
    for (block, flat), both in totals.items():
        original, decoded = (round((t[0, 0] / t[0, 1]) / (t[1, 0] / t[1, 1]), 3) for t in both)
        rows.append({"block": block, "where": "flat" if flat else "all", "original": original, "decoded": decoded})
    record.finish(options, {"images": len(paths[: options.images]), "edges": rows})


if __name__ == "__main__":
    main()
