"""Distortion and perception of one file's decodes over steps and gamma, at the same bytes.

    CDC_SHARED=FOLDER python -m benchmarks.perception --distance torchscript:FILE.pt [--weights FILE ...] [--images N]

Kodak images of FOLDER/data/kodak, decoded by the codec itself: PSNR, MS-SSIM, a feature distance, which must not be the
one that was trained on (`benchmarks.lite0_features` makes one), the energy of the finest octave's Haar bands as a share
of the original's, and the spread of two seeds, their standard deviation at a pixel in levels of 255. Prints a table for
each weights file and draws perception.png.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import record
from benchmarks.weights import codec_at, tensor_of
from model.config import rate_of_quality
from model.distortion import ms_ssim, psnr
from model.evaluation.metrics.texture import fine_energy
from model.perceptual import load_distance
from model.weights.registry import SHIPPED

MODES = ((1, 0.0), (1, 0.25), (1, 0.5), (1, 0.75), (1, 1.0), (4, 0.5), (4, 1.0), (17, 0.5), (17, 1.0))
SIDE = 384  # centre crops: 17 steps of a whole image take long on a CPU
Row = dict[str, float | str]


def crops(count: int) -> list[np.ndarray]:
    folder = Path(os.environ["CDC_SHARED"]) / "data" / "kodak"
    out = []
    for path in sorted(folder.glob("kodim*.png"))[:count]:
        picture = np.asarray(Image.open(path).convert("RGB"))
        top, left = (picture.shape[0] - SIDE) // 2, (picture.shape[1] - SIDE) // 2
        out.append(np.ascontiguousarray(picture[top : top + SIDE, left : left + SIDE]))
    return out


def spread(a: np.ndarray, b: np.ndarray) -> float:
    """Standard deviation of a sample at a pixel, from two of them."""
    return float(np.sqrt(np.square(a.astype(float) - b).mean() / 2))


def measure(path: Path, pictures: list[np.ndarray], qualities: list[int], distance: torch.nn.Module) -> list[Row]:
    codec = codec_at(path)
    rows: list[Row] = []
    for quality in qualities:
        files = [codec.pack(codec.analyse(picture), rate_of_quality(quality)) for picture in pictures]
        bpp = float(np.mean([8 * len(file) / SIDE**2 for file in files]))
        for steps, gamma in MODES:
            decoded = [codec.decode(file, steps, gamma) for file in files]
            others = [codec.decode(file, steps, gamma, seed=1) for file in files] if gamma else decoded
            with torch.inference_mode():
                far = [float(distance(tensor_of(a), tensor_of(b))) for a, b in zip(decoded, pictures, strict=True)]
            row: Row = {"weights": path.stem, "quality": quality, "bpp": bpp, "steps": steps, "gamma": gamma}
            row |= {
                "PSNR dB": float(np.mean([psnr(b, a) for a, b in zip(decoded, pictures, strict=True)])),
                "MS-SSIM": float(np.mean([ms_ssim(b, a) for a, b in zip(decoded, pictures, strict=True)])),
                "distance": float(np.mean(far)),
                "fine energy": sum(map(fine_energy, decoded)) / sum(map(fine_energy, pictures)),
                "spread": float(np.mean([spread(a, b) for a, b in zip(decoded, others, strict=True)])),
            }
            rows.append(row)
    return rows


def draw(rows: list[Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({(float(r["quality"]), str(r["weights"])) for r in rows})
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4), constrained_layout=True, squeeze=False)
    for axis, (quality, weights) in zip(axes[0], panels, strict=True):
        own = [r for r in rows if (r["quality"], r["weights"]) == (quality, weights)]
        for steps in sorted({int(r["steps"]) for r in own}):
            line = [(float(r["PSNR dB"]), float(r["distance"]), r["gamma"]) for r in own if r["steps"] == steps]
            axis.plot(*zip(*[point[:2] for point in line], strict=True), "o-", label=f"steps {steps}")
            for x, y, gamma in line:
                axis.annotate(f"{gamma:g}", (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
        axis.set(xlabel="PSNR (dB)", title=f"{weights}, quality {quality:g}")
        axis.ticklabel_format(useOffset=False)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("feature distance (gamma at the points)")
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, nargs="+", default=[SHIPPED / "cdc-lite.safetensors"])
    parser.add_argument("--distance", required=True)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--quality", type=int, nargs="+", default=[50])
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = record.parse(parser)
    distance = load_distance(options.distance)
    pictures = crops(options.images)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [row for path in options.weights for row in measure(path, pictures, options.quality, distance)]
    shown = [{name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()} for row in rows]
    record.finish(options, {"images": len(pictures), "decodes": shown})
    draw(rows, options.out / "perception.png")


if __name__ == "__main__":
    main()
