"""Peak memory of encoding and decoding large images on the CPU, each in a process of its own.

    python -m benchmarks.memory [--megapixels 2 6 12 40] [--steps 1] [--precision float32] [--json FILE]

Bytes a pixel are the slope of least squares over the sizes: what `model.architecture` tells admission.

Exits with 1 when one needs 6 GiB or more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_data_path
from PIL import Image

from benchmarks import record

LIMIT_GIB = 6.0


def make_picture(megapixels: float, path: Path) -> tuple[int, int]:
    """A photograph enlarged to 8:5 and that many pixels, with grain so that it does not compress to nothing."""
    height = round((megapixels * 1e6 / 1.6) ** 0.5)
    width = round(1.6 * height)
    portrait = Image.open(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
    pixels = np.asarray(portrait.resize((width, height), Image.Resampling.BILINEAR))
    rng = np.random.default_rng(0)
    noisy = np.empty_like(pixels)
    for top in range(0, height, 500):
        rows = pixels[top : top + 500]
        noisy[top : top + 500] = (rows + rng.integers(-8, 9, rows.shape)).clip(0, 255)
    Image.fromarray(noisy).save(path, compress_level=1)
    return width, height


def run(*argv: str) -> tuple[float, float]:
    """Run `cdc` and return its peak resident memory in GiB and its seconds."""
    start = time.perf_counter()
    code = (
        "import resource, sys; from cdc_client.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as e: code = e.code\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], check=True, capture_output=True, text=True)
    peak = int(done.stderr.split("peak")[-1]) / 2**20
    return peak, time.perf_counter() - start


def measure(megapixels: float, steps: int, precision: str) -> dict[str, Any]:
    """Encode and decode an image of that size; peaks, seconds and bytes of the file."""
    with tempfile.TemporaryDirectory() as name:
        image, file, out = (str(Path(name) / part) for part in ("in.png", "x.cdc", "out.png"))
        width, height = make_picture(megapixels, Path(image))
        encode = run("encode", image, file)
        decode = run("decode", file, out, "--steps", str(steps), "--precision", precision)
        size = Path(file).stat().st_size
    row: dict[str, Any] = {"size": f"{width}x{height}", "pixels": width * height, "file bytes": size}
    for work, (peak, seconds) in (("encode", encode), ("decode", decode)):
        row |= {f"{work} GiB": round(peak, 3), f"{work} s": round(seconds, 1)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[40.0])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    options = record.parse(parser)
    rows = [measure(megapixels, options.steps, options.precision) for megapixels in options.megapixels]
    figures = {"steps": options.steps, "bar_gib": LIMIT_GIB, "peaks": rows}
    if len(rows) > 1:
        pixels = [row["pixels"] for row in rows]
        for work in ("encode", "decode"):
            slope = np.polyfit(pixels, [row[f"{work} GiB"] * 2**30 for row in rows], 1)[0]
            figures[f"{work}_bytes_a_pixel"] = round(float(slope), 1)
    record.finish(options, figures)
    sys.exit(int(any(max(row["encode GiB"], row["decode GiB"]) >= LIMIT_GIB for row in rows)))


if __name__ == "__main__":
    main()
