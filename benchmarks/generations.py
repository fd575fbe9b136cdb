"""The first generation of cdc-lite against the second: time by stage at 768x512, and real bytes and PSNR on Kodak.

    CDC_SHARED=FOLDER python -m benchmarks.generations MODELS_DIR [--second NAME] [--threads 1 --threads 2] [--every 3]

MODELS_DIR holds the second generation's weights file. Both run in float32, in turns, so that what else the machine does
falls on both alike; times are the least of all rounds. Decodes are of one step without noise.
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

from model.codec import Codec
from model.config import rate_of_quality
from model.evaluation.metrics import psnr
from model.registry import DEFAULT_MODEL, Registry
from model.types import Pixels

T = TypeVar("T")
QUALITIES = (1, 10, 25, 40, 55, 70, 85, 100)
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
            return y[0].contiguous(), codec.networks.hyper(y)[0]

        y, z = timed(analyse_at_rate)
        hyper = entropy.quantise_hyper(z)
        chosen = timed(lambda: entropy.choose_latent(y, hyper, rate, rate_distortion=True))
        timed(lambda: (entropy.encode_hyper(hyper), entropy.encode_latent(chosen[0], chosen[2])))
    file = timed(lambda: codec.pack(codec.analyse(pixels), rate))
    unpacked = timed(lambda: codec.unpack(file))
    state = codec.start(unpacked, 1, 0.0)
    timed(lambda: codec.denoise_step(state))
    timed(lambda: codec.finish(state))
    timed(lambda: codec.decode(file, 1, 0.0))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models_dir", type=Path)
    parser.add_argument("--second", default="cdc-lite-2", help="name of the second generation's model")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=3, help="every so many Kodak images; 0 for none")
    options = parser.parse_args()
    images = sorted((Path(os.environ["CDC_SHARED"]) / "data" / "kodak").glob("kodim*.png"))
    registry = Registry(options.models_dir, "float32")
    codecs = {name: registry.get(name) for name in (DEFAULT_MODEL, options.second)}
    pixels = np.asarray(Image.open(images[4]).convert("RGB"))
    print(f"| ms, {images[4].stem} | quality | threads | " + " | ".join(STAGES) + " |")
    print("|---" * (len(STAGES) + 3) + "|")
    for threads in options.threads or (1,):
        torch.set_num_threads(threads)
        for quality in (10, 50, 100):
            found = {name: [seconds_by_stage(codec, pixels, quality)] for name, codec in codecs.items()}
            for _ in range(options.rounds):
                for name, codec in codecs.items():
                    found[name].append(seconds_by_stage(codec, pixels, quality))
            for name, rounds in found.items():
                cells = " | ".join(f"{1000 * least:.0f}" for least in np.min(rounds, axis=0))
                print(f"| {name} | {quality} | {threads} | {cells} |", flush=True)
    if not options.every:
        return
    print("\n| model | quality | bpp | PSNR dB | images |\n|---|---|---|---|---|")
    for name, codec in codecs.items():
        rows = []
        for path in images[:: options.every]:
            original = np.asarray(Image.open(path).convert("RGB"))
            latents = codec.analyse(original)
            for quality in QUALITIES:
                file = codec.pack(latents, rate_of_quality(quality))
                decoded = codec.decode(file, 1, 0.0)
                rows.append((quality, 8 * len(file) / (original.size // 3), psnr(original, decoded)))
        table = np.array(rows)
        for quality in QUALITIES:
            own = table[table[:, 0] == quality]
            print(f"| {name} | {quality} | {own[:, 1].mean():.4f} | {own[:, 2].mean():.3f} | {len(own)} |", flush=True)


if __name__ == "__main__":
    main()
