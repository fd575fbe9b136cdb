"""Peak memory of encoding and decoding with the full-size cdc-x, beyond that of the loaded model.

    python -m benchmarks.paper_memory [--side 1024] [--threads 1] [--precision float32]

Weights are random; one denoising step holds as much as any number of them.
"""

from __future__ import annotations

import argparse
import ctypes
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import record
from model.codec import Codec
from model.weights.files import load_weights
from model.weights.published import import_checkpoint
from tests.model.paper_oracle import published_checkpoint


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int:
    """Resident memory at present."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--weights", type=Path, help="A weights file; made with random weights if unset.")
    options = record.parse(parser)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = options.weights or Path(folder) / "w.safetensors"
        if options.weights is None:
            torch.save(published_checkpoint("x", 64)[1], Path(folder) / "c.pt")
            import_checkpoint(Path(folder) / "c.pt", path)
        codec = Codec(load_weights(path), options.precision)
    ctypes.CDLL(None).malloc_trim(0)  # what making the weights left behind
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    loaded = resident_bytes()
    pixels = np.random.default_rng(0).integers(0, 256, (options.side, options.side, 3), dtype=np.uint8)
    count = options.side**2
    start = time.perf_counter()
    latents = codec.analyse(pixels)
    figures: dict[str, float] = {
        "encode_bytes_a_pixel": round((peak_bytes() - loaded) / count),
        "encode_s": round(time.perf_counter() - start),
    }
    data = codec.pack(latents, 0)
    start = time.perf_counter()
    codec.decode(data, 1)
    figures |= {
        "decode_bytes_a_pixel": round((peak_bytes() - loaded) / count),
        "decode_s": round(time.perf_counter() - start),
        "model_mib": round(codec.bytes / 2**20),
        "parameters": codec.parameters,
    }
    record.finish(options, figures)


if __name__ == "__main__":
    main()
