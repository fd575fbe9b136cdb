"""Compare weights files on validation images: BD-rate of the one-step decode, and feature distance at all steps.

    CDC_SHARED=FOLDER python -m benchmarks.weights OLD.safetensors NEW.safetensors [--images N] [--distance NAME]

Choices between weights are made here, on FOLDER/data/val.tar, never on Kodak. NAME is a distance as `cdc train` takes
it (`vgg19:FILE.pth`), other than the one that was trained on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import bjontegaard as bd
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from model.codec import Codec
from model.config import rate_of_quality
from model.distortion import psnr
from model.errors import WeightsError
from model.perceptual import load_distance
from model.training.validation import codec_of, pictures_of
from model.types import Pixels
from model.weights.files import load_weights

QUALITIES = (5, 25, 50, 75, 95)
SAMPLED_QUALITY = 50
Curve = list[tuple[float, float]]


def codec_at(path: Path) -> Codec:
    """The codec of a weights file, or of the averaged weights of a run."""
    try:
        return Codec(load_weights(path), "float32")
    except WeightsError:
        return codec_of(load_file(path))


def curve(codec: Codec, pictures: Sequence[Pixels]) -> Curve:
    """Mean bits per pixel and PSNR of one-step decodes of whole files, at five qualities."""
    points = []
    latents = [codec.analyse(picture) for picture in pictures]
    for quality in QUALITIES:
        rows = []
        for picture, latent in zip(pictures, latents, strict=True):
            file = codec.pack(latent, rate_of_quality(quality))
            rows.append((8 * len(file) / picture[..., 0].size, psnr(picture, codec.decode(file, 1, 0.0))))
        bpp, decibels = np.mean(rows, axis=0)
        points.append((float(bpp), float(decibels)))
    return points


def distances(codec: Codec, pictures: Sequence[Pixels], distance: nn.Module) -> dict[str, float]:
    """Mean feature distance of decodes of the same files with one step and gamma 0, and with 17 and gamma 0.8."""
    found: dict[str, list[float]] = {}
    for picture in pictures:
        file = codec.pack(codec.analyse(picture), rate_of_quality(SAMPLED_QUALITY))
        for steps, gamma in ((1, 0.0), (17, 0.8)):
            decoded = codec.decode(file, steps, gamma)
            with torch.inference_mode():
                value = float(distance(tensor_of(decoded), tensor_of(picture)))
            found.setdefault(f"{steps} steps, gamma {gamma:g}", []).append(value)
            found.setdefault(f"{steps} steps, gamma {gamma:g}, dB", []).append(psnr(picture, decoded))
    return {name: float(np.mean(values)) for name, values in found.items()}


def tensor_of(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=14)
    parser.add_argument("--sampled", type=int, default=4, help="pictures for the feature distance")
    parser.add_argument("--distance")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pictures = pictures_of(Path(os.environ["CDC_SHARED"]) / "data" / "val.tar", options.images)
    distance = load_distance(options.distance) if options.distance else None
    reference: Curve | None = None
    for path in options.files:
        codec = codec_at(path)
        points = curve(codec, pictures)
        print(path.name, codec.codec_id.hex(), ", ".join(f"{b:.4f} bpp {d:.3f} dB" for b, d in points), flush=True)
        if reference is not None:
            (old_rates, old_levels), (rates, levels) = (list(zip(*c, strict=True)) for c in (reference, points))
            rate = bd.bd_rate(old_rates, old_levels, rates, levels, method="akima", require_matching_points=False)
            print(f"  BD-rate against the first: {rate:+.2f} %")
        reference = reference or points
        if distance is not None:
            for name, value in distances(codec, pictures[: options.sampled], distance).items():
                print(f"  {name}: {value:.4f}")


if __name__ == "__main__":
    main()
