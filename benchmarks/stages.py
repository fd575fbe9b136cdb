"""Time of an encode and of a decode by stage, on a Kodak image of 768x512, in float32.

    CDC_SHARED=FOLDER python -m benchmarks.stages [--threads 1 --threads 2] [--side WIDTH HEIGHT] [--json FILE]

Times are the least of all rounds. The decode is of one step and gamma 0; `--side` takes a mosaic of the image instead.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from benchmarks import record
from model.codec import Codec
from model.config import rate_of_quality
from model.entropy.entropy_model import RDO
from model.types import Pixels
from model.weights.registry import DEFAULT_MODEL, Registry

T = TypeVar("T")
STAGES = ("analyse", "latent, h_a", "predict, choose", "write", "encode", "unpack", "networks", "8 bits", "decode")


def seconds_by_stage(codec: Codec, pixels: Pixels, quality: int) -> list[float]:
    """Seconds of each of STAGES, once."""
    rate, entropy = rate_of_quality(quality), codec.entropy
    times: list[float] = []

    def timed(work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
        return result

    q = torch.tensor([rate / 255])
    with torch.inference_mode():
        latents = timed(lambda: codec.analyse(pixels))

        def analyse_at_rate() -> tuple[torch.Tensor, torch.Tensor]:
            y = codec.networks.latent(latents.features[None].to(memory_format=torch.channels_last), q)
            return y.contiguous(), codec.networks.hyper(y)

        y, z = timed(analyse_at_rate)
        hyper = entropy.quantise_hyper(z)
        chosen = timed(lambda: entropy.choose_latents(y, hyper, [rate], worth=RDO))
        timed(lambda: (entropy.encode_hyper(hyper[0]), entropy.encode_latents(chosen[0], chosen[2])))
    file = timed(lambda: codec.pack(codec.analyse(pixels), rate))
    unpacked = timed(lambda: codec.unpack(file))
    state = codec.start(unpacked, 1, 0.0)
    timed(lambda: codec.denoise_step(state))
    timed(lambda: codec.finish(state))
    timed(lambda: codec.decode(file, 1, 0.0))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, nargs=2, help="width and height of a mosaic")
    options = record.parse(parser)
    codec = Registry(options.models_dir, "float32").get(options.model)
    path = Path(os.environ["CDC_SHARED"]) / "data" / "kodak" / "kodim05.png"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    if options.side:
        width, height = options.side
        pixels = np.tile(pixels, (-(-height // pixels.shape[0]), -(-width // pixels.shape[1]), 1))[:height, :width]
    rows = []
    for threads in options.threads or (1,):
        torch.set_num_threads(threads)
        for quality in (10, 50, 100):
            rounds = [seconds_by_stage(codec, pixels, quality) for _ in range(options.rounds + 1)]
            least = dict(zip(STAGES, (round(1000 * s) for s in np.min(rounds, axis=0)), strict=True))
            rows.append({"quality": quality, "threads": threads, **least})
    record.finish(options, {"size": f"{pixels.shape[1]}x{pixels.shape[0]}", "milliseconds": rows})


if __name__ == "__main__":
    main()
