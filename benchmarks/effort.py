"""What effort buys: BD-rate against effort 1 on Kodak, and seconds of an encode.

    CDC_SHARED=FOLDER python -m benchmarks.effort [--images N] [--effort 2 5 9] [--json FILE]

Whole files, decoded with one step at gamma 0; PSNR. Seconds are of `pack` alone, one thread, and worth comparing within
a run; those of AVIF at speed 0 and of WebP's method 6, at a middling quality, stand beside them.
"""

from __future__ import annotations

import argparse
import os
import time
from io import BytesIO
from pathlib import Path

import bjontegaard as bd
import numpy as np
import torch
from PIL import Image

from benchmarks import record
from model.codec import Codec
from model.config import rate_of_quality
from model.distortion import psnr
from model.weights.files import load_weights
from model.weights.registry import SHIPPED

QUALITIES = (10, 30, 50, 70, 90)


def others(picture: Image.Image) -> dict[str, float]:
    """Seconds of other encoders at their most."""
    found = {}
    for name, options in (
        ("AVIF, speed 0", {"quality": 60, "speed": 0}),
        ("WebP, method 6", {"quality": 75, "method": 6}),
    ):
        start = time.perf_counter()
        picture.save(BytesIO(), name.split(",")[0], **options)
        found[name] = time.perf_counter() - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--effort", type=int, nargs="+", default=[2, 5, 9])
    options = record.parse(parser)
    torch.set_num_threads(1)
    codec = Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")
    paths = sorted((Path(os.environ["CDC_SHARED"]) / "data" / "kodak").glob("kodim*.png"))[:: 24 // options.images]
    efforts = [1, *options.effort]
    rows: dict[int, list[list[tuple[float, float, float]]]] = {effort: [] for effort in efforts}
    beside: list[dict[str, float]] = []
    for path in paths:
        picture = Image.open(path).convert("RGB")
        pixels = np.asarray(picture)
        latents = codec.analyse(pixels)
        beside.append(others(picture))
        for effort in efforts:
            curve = []
            for quality in QUALITIES:
                start = time.perf_counter()
                file = codec.pack(latents, rate_of_quality(quality), effort=effort)
                seconds = time.perf_counter() - start
                curve.append((8 * len(file) / pixels[..., 0].size, psnr(pixels, codec.decode(file, 1, 0.0)), seconds))
            rows[effort].append(curve)
        print(path.stem, {e: f"{bd_rate(rows[1][-1], rows[e][-1]):+.2f} %" for e in options.effort}, flush=True)
    found = []
    for effort in efforts:
        rates = [bd_rate(a, b) for a, b in zip(rows[1], rows[effort], strict=True)]
        seconds = np.mean([point[2] for curve in rows[effort] for point in curve])
        row = {"effort": effort, "BD-rate %": round(float(np.mean(rates)), 2), "worst image %": round(max(rates), 2)}
        found.append(row | {"seconds of `pack`": round(float(seconds), 2)})
    others_s = {name: round(float(np.mean([seconds[name] for seconds in beside])), 2) for name in beside[0]}
    record.finish(options, {"images": len(paths), "efforts": found, "other_encoders_s": others_s})


def bd_rate(anchor: list[tuple[float, float, float]], test: list[tuple[float, float, float]]) -> float:
    """Percent of rate at equal PSNR."""
    (r0, d0, _), (r1, d1, _) = zip(*anchor, strict=True), zip(*test, strict=True)
    return float(bd.bd_rate(np.array(r0), np.array(d0), np.array(r1), np.array(d1), method="akima"))


if __name__ == "__main__":
    main()
