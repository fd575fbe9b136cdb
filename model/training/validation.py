"""Evaluation during training: real files of the averaged weights, their bits and distortion, and sample images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from model.codec import Codec
from model.config import rate_of_quality
from model.distortion import psnr
from model.sources import Source, open_sources, read_frame
from model.types import Pixels
from model.weights.files import Weights, WeightsInfo, build_networks, entropy_model_of

QUALITIES = (10, 50, 90)
SIDE = 384  # of the centre crops


@dataclass(frozen=True)
class Point:
    """Means over the images at one quality: bits per pixel of whole files, PSNR in dB of a one-step decode."""

    quality: int
    bpp: float
    psnr: float


@dataclass(frozen=True)
class Evaluation:
    """Points of the curve, and sample images: original, one step, default steps side by side, uint8 [H, 3 W, 3]."""

    points: tuple[Point, ...]
    samples: tuple[Pixels, ...]


def pictures_of(path: Path, count: int) -> list[Pixels]:
    """Return centre crops of at most 384x384 of `count` images spread over a folder or shard."""
    source: Source = open_sources([path])[0]
    chosen = np.linspace(0, len(source.clips) - 1, min(count, len(source.clips))).astype(int)
    return [_centre(read_frame(source.clips[i])) for i in chosen]


def codec_of(tensors: Mapping[str, Tensor], architecture: str = "cdc-lite", device: str = "cpu") -> Codec:
    """Return a codec of float tensors, with integer tables as an export would make them. Raises WeightsError."""
    copies = {k: t.detach().cpu().clone() for k, t in tensors.items()}
    networks, prior = build_networks(copies, "averaged weights", architecture)
    entropy = entropy_model_of(networks, prior, architecture)
    info = WeightsInfo("in-training", 0, architecture, entropy.codec_id.hex(), "in training")
    return Codec(Weights(info, networks, prior, entropy), device=device)


def evaluate(codec: Codec, pictures: Sequence[Pixels], samples: int = 2) -> Evaluation:
    """Encode every image at three qualities and decode the files in one step; some also in the default steps."""
    points, shown = [], []
    qualities = (1,) if codec.architecture.fixed_rate else QUALITIES
    for quality in qualities:
        bits, decibels = [], []
        for number, picture in enumerate(pictures):
            file = codec.pack(codec.analyse(picture), rate_of_quality(quality))
            decoded = codec.decode(file, steps=1, gamma=0.0)
            bits.append(8 * len(file) / (picture.shape[0] * picture.shape[1]))
            decibels.append(psnr(picture, decoded))
            if number < samples and quality == qualities[len(qualities) // 2]:
                shown.append(np.concatenate([picture, decoded, codec.decode(file)], axis=1))
        points.append(Point(quality, float(np.mean(bits)), float(np.mean(decibels))))
    return Evaluation(tuple(points), tuple(shown))


def _centre(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    return np.ascontiguousarray(picture[top : top + SIDE, left : left + SIDE])
