"""Peak memory of encoding and decoding a large image on the CPU, each in a process of its own.

    python -m benchmarks.memory [--megapixels 40] [--steps 1]

Exits with 1 when either needs 6 GiB or more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=40)
    parser.add_argument("--steps", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        width, height = make_picture(options.megapixels, folder / "in.png")
        encode = run("encode", str(folder / "in.png"), str(folder / "x.cdc"))
        size = (folder / "x.cdc").stat().st_size
        print(f"encode {width}x{height}: {encode[0]:.2f} GiB, {encode[1]:.0f} s, {size} bytes", flush=True)
        decode = run("decode", str(folder / "x.cdc"), str(folder / "out.png"), "--steps", str(options.steps))
        print(f"decode {width}x{height}, {options.steps} steps: {decode[0]:.2f} GiB, {decode[1]:.0f} s")
    sys.exit(int(max(encode[0], decode[0]) >= LIMIT_GIB))


if __name__ == "__main__":
    main()
