"""What tiles change in a picture, by their margin: the model's tiles against the whole canvas in one pass, in float32.

    python -m tests.bars.margin [--quality 10] [--quality 80] [--models-dir FOLDER --model NAME]

A model without a sampler is measured in one step. Encoder margins are compared by the features of the analysis.
"""

from __future__ import annotations

import argparse

import numpy as np
from matplotlib import get_data_path
from PIL import Image

from model.config import rate_of_quality
from model.registry import Registry
from model.tiling import Tiling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=int, action="append")
    options = parser.parse_args()
    portrait = Image.open(get_data_path() + "/sample_data/grace_hopper.jpg").convert("RGB")
    rows = np.asarray(portrait)[100:356]
    wide = np.ascontiguousarray(np.concatenate([rows, rows[:, ::-1], rows], axis=1)[:, :1280])
    codec = Registry(precision="float32").get()
    print("| quality | steps | gamma | margin | largest change, range 2 | values changed | largest, levels |")
    print("|---" * 7 + "|")
    for quality in options.quality or (10, 80):
        codec.tiling = Tiling(tile=2048)
        unpacked = codec.unpack(codec.pack(codec.analyse(wide), rate_of_quality(quality)))
        for steps, gamma in ((1, 0.0), (5, 0.8)):
            results = {}
            for margin in (0, 32, 64, 96, 128):
                codec.tiling = Tiling(tile=512, margin=margin) if margin else Tiling(tile=2048)
                state = codec.start(unpacked, steps, gamma)
                while not state.done:
                    codec.denoise_step(state)
                results[margin] = (state.x, codec.finish(state).astype(int))
            for margin in (32, 64, 96, 128):
                change = float((results[margin][0] - results[0][0]).abs().max())
                levels = np.abs(results[margin][1] - results[0][1])
                cells = (quality, steps, gamma, margin, f"{change:.1e}", f"{(levels > 0).mean():.5f}", levels.max())
                print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
