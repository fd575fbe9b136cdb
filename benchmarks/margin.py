"""What tiles change in an image, by their margin: the model's tiles against the whole canvas in one pass, in float32.

    python -m benchmarks.margin [--quality 10] [--quality 80] [--models-dir FOLDER --model NAME] [--json FILE]

A model without a sampler is measured in one step. Encoder margins are compared by the features of the analysis.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib import get_data_path
from PIL import Image

from benchmarks import record
from model.config import rate_of_quality
from model.tiling import Tiling
from model.weights.registry import Registry

MARGINS = (32, 48, 64, 80, 96, 128, 144)
ENCODER_MARGINS = (16, 32, 48, 96, 144)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=int, action="append")
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--model")
    options = record.parse(parser)
    portrait = Image.open(get_data_path() + "/sample_data/grace_hopper.jpg").convert("RGB")
    rows = np.asarray(portrait)[100:356]
    wide = np.ascontiguousarray(np.concatenate([rows, rows[:, ::-1], rows], axis=1)[:, :1280])
    codec = Registry(options.models_dir, precision="float32").get(options.model)
    whole = Tiling(tile=2048)
    codec.tiling = whole
    latents = codec.analyse(wide)
    encoder, decoder = [], []
    for margin in ENCODER_MARGINS:
        codec.tiling = Tiling(512, encoder_margin=margin)
        change = (codec.analyse(wide).features - latents.features).abs().max()
        share = f"{float(change / latents.features.std()):.1e}"
        encoder.append({"encoder margin": margin, "largest change of the features, share of their deviation": share})
    for quality in options.quality or (10, 80):
        codec.tiling = whole
        unpacked = codec.unpack(codec.pack(latents, rate_of_quality(quality)))
        for steps, gamma in ((1, 0.0), (5, 0.8)):
            if steps > codec.max_steps:
                continue

            def decode(tiling: Tiling, steps: int = steps, gamma: float = gamma) -> tuple[torch.Tensor, np.ndarray]:
                codec.tiling = tiling
                state = codec.start(unpacked, steps, gamma)  # noqa: B023 - called before the next turn
                while not state.done:
                    codec.denoise_step(state)
                return state.x, codec.finish(state).astype(int)

            image, pixels = decode(whole)
            for margin in MARGINS:
                tiled, tiled_pixels = decode(replace(whole, tile=512, margin=margin))
                change, levels = float((tiled - image).abs().max()), np.abs(tiled_pixels - pixels)
                row = {"quality": quality, "steps": steps, "gamma": gamma, "margin": margin}
                row |= {
                    "largest change, range 2": f"{change:.1e}",
                    "values changed": round(float((levels > 0).mean()), 5),
                }
                decoder.append(row | {"largest, levels": int(levels.max())})
    record.finish(options, {"encoder": encoder, "decoder": decoder})


if __name__ == "__main__":
    main()
