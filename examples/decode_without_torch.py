"""Decode a .cdc file by onnxruntime and numpy: `python examples/decode_without_torch.py photo.cdc photo.png`.

Needs `pip install 'cdc-client[decode]' pillow` and a folder of `cdc weights export --onnx`, which CDC_DECODER names; an
installed cdc-codec brings one. `cdc_client.decoder.Decoder` does all of this, large images and noise included: what
follows is how little it takes on a phone or a desktop that has onnxruntime. The symbols come from exact integers
(FORMAT.md); everything after them is one network.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from cdc_client.decoder import LatentDecoder, find_files, parse


def main(source: str, out: str) -> None:
    files = find_files()
    file = parse(Path(source).read_bytes(), max_pixels=1024 * 1024)
    latents = LatentDecoder(files.integers()).decode(file)

    # A canvas of one of a few sizes, extended by the last row and column.
    sides = [next(s for s in files.manifest["sides"] if s >= side) // 16 for side in (file.height, file.width)]
    beyond = [(0, 0), *((0, side - known) for side, known in zip(sides, latents.y.shape[1:], strict=True))]
    feeds = {"y_hat": latents.y + latents.means / 16, "mean": latents.means / 16, "index": latents.indices}
    inputs = {name: np.pad(v, beyond, mode="edge")[None].astype(np.float32) for name, v in feeds.items()}
    inputs["q"] = np.array([file.rate / 255], np.float32)

    synthesis = onnxruntime.InferenceSession(files.read("synthesis"), providers=["CPUExecutionProvider"])
    (base,) = synthesis.run(["base"], inputs)
    levels = np.rint(base[0, :, : file.height, : file.width] * 127.5 + 127.5).clip(0, 255).astype(np.uint8)
    Image.fromarray(levels.transpose(1, 2, 0)).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
