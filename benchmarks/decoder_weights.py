"""What the decoder's stored weights cost beside float32: `python -m benchmarks.decoder_weights FOLDER` of photographs.

The same files are decoded in one step without noise by torch from the weights file, and by onnxruntime from the graphs
that `cdc weights export --onnx` made. Prints, at each rate byte, the mean and the largest loss of PSNR against the
photograph, and which share of all values differs at all, and by more than a level.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks import record
from cdc_client.decoder import Decoder, find_files
from model.codec import Codec
from model.shipped import decoder_folder
from model.weights.files import load_weights
from model.weights.registry import SHIPPED

RATES = (0, 35, 96, 142, 206, 255)


def psnr(image: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]) -> float:
    """Of 8-bit images, in dB."""
    return float(10 * np.log10(65025 / np.square(image.astype(float) - reference).mean()))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=4, help="Take every n-th photograph.")
    given = record.parse(parser)
    codec = Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")
    decoder = Decoder(find_files(decoder_folder()))
    found: dict[int, list[tuple[float, float, float]]] = {rate: [] for rate in RATES}
    for path in sorted(given.folder.glob("*.png"))[:: given.every]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        latents = codec.analyse(pixels)
        for rate in RATES:
            data = codec.pack(latents, rate)
            whole, small = codec.decode(data, 1, 0.0), decoder.decode(data, 1, 0.0).pixels
            difference = np.abs(whole.astype(int) - small)
            loss = psnr(whole, pixels) - psnr(small, pixels)
            found[rate].append((loss, float((difference > 0).mean()), float((difference > 1).mean())))
    table = []
    for rate, rows in found.items():
        loss, differing, far = np.mean(rows, axis=0)
        row = {
            "rate byte": rate,
            "mean loss, dB": round(loss, 4),
            "largest loss, dB": round(max(r[0] for r in rows), 4),
        }
        row |= {"values that differ, %": round(100 * differing, 1), "by more than a level, %": round(100 * far, 4)}
        table.append(row)
    record.finish(given, {"losses": table})


if __name__ == "__main__":
    main()
