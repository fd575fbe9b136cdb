"""How near to the original texture can be whose place the file does not tell: decodes by an oracle.

    CDC_SHARED=FOLDER python -m benchmarks.texture_bound --distance torchscript:FILE.pt [--quality 10 30] [--images N]

The oracle knows the residual x - x_base but for its finest octaves of Haar bands, whose coefficients it leaves out, or
draws at random in the local strength that they have (windows of 3x3). Distances by features as in
`benchmarks.perception`, in all and for each map, finest first, beside that of x_base; Kodak, centre crops.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import record
from benchmarks.perception import SIDE, Row, crops
from benchmarks.weights import codec_at, tensor_of
from model.config import rate_of_quality
from model.distortion import psnr
from model.evaluation.metrics.texture import fine_energy
from model.perceptual import load_distance
from model.training.sampler import haar
from model.types import Pixels
from model.weights.registry import SHIPPED

OCTAVES = (1, 2, 3)


def unhaar(low: Tensor, high: Tensor) -> Tensor:
    """The inverse of `haar`."""
    horizontal, vertical, diagonal = high.chunk(3, dim=1)
    out = low.new_empty(*low.shape[:2], 2 * low.shape[2], 2 * low.shape[3])
    out[..., ::2, ::2] = low + horizontal + vertical + diagonal
    out[..., ::2, 1::2] = low - horizontal + vertical - diagonal
    out[..., 1::2, ::2] = low + horizontal - vertical - diagonal
    out[..., 1::2, 1::2] = low - horizontal - vertical + diagonal
    return out / 2


def guessed(residual: Tensor, octaves: int, strength: float) -> Tensor:
    """residual [B, 3, H, W] with its finest octaves drawn at random, `strength` times as strong as they are."""
    if not octaves:
        return residual
    low, high = haar(residual)
    local = F.avg_pool2d(high.square(), 3, 1, 1, count_include_pad=False).sqrt()
    return unhaar(guessed(low, octaves - 1, strength), strength * local * torch.randn_like(high))


def pixels_of(image: Tensor) -> Pixels:
    levels = (127.5 * (image[0] + 1)).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=SHIPPED / "cdc-lite.safetensors")
    parser.add_argument("--distance", required=True)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--quality", type=int, nargs="+", default=[10, 30])
    options = record.parse(parser)
    torch.manual_seed(0)
    codec, distance, pictures = codec_at(options.weights), load_distance(options.distance), crops(options.images)
    rows: list[Row] = []
    for quality in options.quality:
        files = [codec.pack(codec.analyse(picture), rate_of_quality(quality)) for picture in pictures]
        bases = [tensor_of(codec.decode(file, 1, 0.0)) for file in files]
        for octaves, strength in ((None, 0.0), *((n, s) for n in OCTAVES for s in (0.0, 1.0))):
            decoded = [
                base if octaves is None else base + guessed(tensor_of(picture) - base, octaves, strength)
                for base, picture in zip(bases, pictures, strict=True)
            ]
            shown = [pixels_of(image) for image in decoded]
            with torch.inference_mode():
                maps = [
                    [float(distance.between([u], [v])) for u, v in zip(distance.maps(a), distance.maps(b), strict=True)]
                    for a, b in ((tensor_of(s), tensor_of(p)) for s, p in zip(shown, pictures, strict=True))
                ]
            far = np.mean(maps, axis=0)
            row: Row = {"quality": quality, "guessed": "x_base" if octaves is None else octaves}
            row |= {"strength": strength, "PSNR dB": float(np.mean([*map(psnr, pictures, shown)]))}
            row |= {"fine energy": sum(map(fine_energy, shown)) / sum(map(fine_energy, pictures))}
            row |= {"distance": float(far.sum()), "of each map": " ".join(f"{value:.3f}" for value in far)}
            rows.append(row)
    shown_rows = [{name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()} for row in rows]
    record.finish(options, {"images": len(pictures), "side": SIDE, "decodes": shown_rows})


if __name__ == "__main__":
    main()
