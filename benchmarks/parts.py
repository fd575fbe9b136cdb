"""What a region, and a decode at a smaller size, cost: in seconds beside the whole, and in quality.

    CDC_SHARED=FOLDER python -m benchmarks.parts [--threads 1] [--rounds 3] [--json FILE]

Cost: a mosaic of kodim05 of 4000x3000 at quality 50, one step, gamma 0, float32; PNG as the service writes it. The
decodes of a round follow each other, so that a busy machine slows all of them; each time is the least of its rounds.

Quality: the Kodak images decoded at 1/2 and 1/4, beside the whole decode averaged over squares, both against the
original averaged likewise.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import record
from model.codec import Codec
from model.config import rate_of_quality
from model.tiling import Region
from model.types import Unpacked
from model.weights.registry import Registry
from service.framing import Frame, frame_of
from service.images.resizing import framed
from service.images.writing import write_image

WIDTH, HEIGHT, SIDE = 4000, 3000, 512
QUALITY = 50
QUICK_REPEATS = 5  # in a round, of what takes a second or less


def seconds_of(codec: Codec, unpacked: Unpacked, frame: Frame) -> tuple[float, float]:
    """Seconds of the networks, and of resizing and PNG."""
    start = time.perf_counter()
    whole = frame.region == Region(0, 0, unpacked.header.width, unpacked.header.height)
    reduction = frame.reduction(codec.reductions)
    state = codec.start(unpacked, 1, 0.0, region=None if whole else frame.region, reduction=reduction)
    codec.denoise_step(state)
    pixels = codec.finish(state)
    decoded_at = time.perf_counter()
    write_image(*framed(pixels, None, frame, reduction), None, "png")
    return decoded_at - start, time.perf_counter() - decoded_at


def cost(codec: Codec, picture: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """Rows of times."""
    large = np.tile(picture, (-(-HEIGHT // picture.shape[0]), -(-WIDTH // picture.shape[1]), 1))[:HEIGHT, :WIDTH]
    rate = rate_of_quality(QUALITY)
    files = {
        "large": codec.pack(codec.analyse(np.ascontiguousarray(large)), rate),
        "small": codec.pack(codec.analyse(np.ascontiguousarray(large[:SIDE, :SIDE])), rate),
    }
    size = (WIDTH, HEIGHT)
    cases = {
        "a file of 512x512": ("small", frame_of((SIDE, SIDE))),
        "region of 512x512 within a tile": ("large", frame_of(size, f"200,200,{SIDE},{SIDE}")),
        "region of 512x512 at the edge": ("large", frame_of(size, f"0,0,{SIDE},{SIDE}")),
        "region of 512x512 over four tiles": ("large", frame_of(size, f"704,704,{SIDE},{SIDE}")),
        "whole": ("large", frame_of(size)),
        "at 1/2": ("large", frame_of(size, None, WIDTH // 2)),
        "at 1/4": ("large", frame_of(size, None, WIDTH // 4)),
    }
    entropy: dict[str, list[float]] = {name: [] for name in files}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        unpacked = {}
        for name, file in files.items():
            start = time.perf_counter()
            unpacked[name] = codec.unpack(file)
            entropy[name].append(time.perf_counter() - start)
        for _ in range(QUICK_REPEATS):
            for name, (file_name, frame) in cases.items():
                if frame.scaled[0] <= SIDE or not times[name]:
                    times[name].append(seconds_of(codec, unpacked[file_name], frame))
        for name in ("whole", "at 1/2", "at 1/4"):
            times[name].append(seconds_of(codec, unpacked["large"], cases[name][1]))
    found = {
        name: [min(entropy[cases[name][0]]), *(min(column) for column in zip(*rows, strict=True))]
        for name, rows in times.items()
    }
    whole, small = sum(found["whole"]), sum(found["a file of 512x512"])
    rows = []
    for name, stages in found.items():
        row: dict[str, Any] = {"decode": name}
        row |= zip(
            ("entropy s", "networks s", "image s", "all s"), np.round([*stages, sum(stages)], 3).tolist(), strict=True
        )
        row["of the whole"] = round(sum(stages) / whole, 3)
        row["less entropy, of a small file"] = round(sum(stages[1:]) / small, 2) if name.startswith("region") else None
        rows.append(row)
    return rows


def psnr(error: float) -> float:
    return float(10 * np.log10(4 / error))


def quality(codec: Codec, pictures: list[np.ndarray]) -> list[dict[str, Any]]:
    """Rows of quality, in dB of the mean error over all images."""
    names = ("against the original: decoded at it", "whole, averaged", "against each other")
    measured = []
    for value in (10, 50, 90):
        sums = {factor: np.zeros(3) for factor in (2, 4)}
        for picture in pictures:
            original = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            unpacked = codec.unpack(codec.pack(codec.analyse(picture), rate_of_quality(value)))
            whole = codec.start(unpacked, 1, 0.0)
            codec.denoise_step(whole)
            for factor in sums:
                small = codec.start(unpacked, 1, 0.0, reduction=factor)
                codec.denoise_step(small)
                rows, columns = (side // factor for side in picture.shape[:2])
                images = [small.x[None], F.avg_pool2d(whole.x[None], factor), F.avg_pool2d(original, factor)]
                a, b, c = (image[..., :rows, :columns].clamp(-1, 1) for image in images)
                sums[factor] += [float((x - y).square().mean()) for x, y in ((a, c), (b, c), (a, b))]
        for factor, errors in sums.items():
            found = (round(psnr(error / len(pictures)), 2) for error in errors)
            measured.append({"quality": value, "size": f"1/{factor}", **dict(zip(names, found, strict=True))})
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=24)
    options = record.parse(parser)
    torch.set_num_threads(options.threads)
    codec = Registry(None, "float32").get()
    paths = sorted((Path(os.environ["CDC_SHARED"]) / "data" / "kodak").glob("kodim*.png"))
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    times = cost(codec, pictures[4], options.rounds)
    record.finish(options, {"cost": times, "quality": quality(codec, pictures[: options.images])})


if __name__ == "__main__":
    main()
