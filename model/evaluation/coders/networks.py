"""CompressAI's pretrained networks as baselines, where their weights are in torch's hub cache: nothing is fetched."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation.coders.models import Decoded, Encoded, Parameters, timed_decode, timed_encode
from model.types import Pixels

STRIDE = 64
HEADER = struct.Struct("<HHII")  # height, width, bytes of the two streams


@dataclass(frozen=True)
class NetworkCoder:
    """One of CompressAI's models trained for squared error; `quality` is the number of its checkpoint.

    The file is a 12-byte header and the two streams that the model's `compress` returns.
    """

    name: str
    label: str
    zoo: str
    points: Sequence[Parameters]
    heavy: bool = True

    @property
    def version(self) -> str:
        """Of CompressAI; checkpoints have hashes in their names and never change."""
        try:
            return f"compressai {version('compressai')}"
        except PackageNotFoundError:
            return "missing"

    @property
    def missing(self) -> str | None:
        """Why it cannot be used, None if it can."""
        if find_spec("compressai") is None:
            return "CompressAI is not installed (extra `train`)"
        here = [p for p in self.points if _checkpoint(self.zoo, int(p["quality"])).is_file()]
        if len(here) < len(self.points):
            first = _checkpoint(self.zoo, int(self.points[0]["quality"]))
            return (
                f"weights not in torch's cache: {len(here)} of {len(self.points)} in {first.parent}, e.g. {first.name}"
            )
        return None

    def encode(self, pixels: Pixels, parameters: Parameters) -> Encoded:
        """Pad to multiples of 64 by the last row and column, compress."""
        import torch

        network = _network(self.zoo, int(parameters["quality"]))
        height, width = pixels.shape[:2]
        canvas = np.pad(pixels, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="edge")
        x = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255

        def write() -> bytes:
            with torch.inference_mode():
                (y,), (z,) = network.compress(x)["strings"]
            return HEADER.pack(height, width, len(y), len(z)) + bytes(y) + bytes(z)

        return timed_encode(write)

    def decode(self, data: bytes, parameters: Parameters) -> Decoded:
        """Decompress and crop."""
        import torch

        network = _network(self.zoo, int(parameters["quality"]))
        height, width, first, second = HEADER.unpack_from(data)
        y, z = data[HEADER.size : HEADER.size + first], data[HEADER.size + first : HEADER.size + first + second]

        def read() -> Pixels:
            with torch.inference_mode():
                shape = (-(-height // STRIDE), -(-width // STRIDE))
                x = network.decompress([[y], [z]], shape)["x_hat"][0, :, :height, :width]
                return np.asarray((x.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy(), dtype=np.uint8)

        return timed_decode(read)


def _checkpoint(zoo: str, quality: int) -> Path:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of CompressAI's own imports
        from compressai.zoo.image import model_urls

    url: str = model_urls[zoo]["mse"][quality]
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]


@cache
def _network(zoo: str, quality: int) -> Any:
    import torch
    from compressai.zoo.image import model_architectures
    from compressai.zoo.pretrained import load_pretrained

    state = load_pretrained(torch.load(_checkpoint(zoo, quality), map_location="cpu", weights_only=True))
    network = model_architectures[zoo].from_state_dict(state)
    network.update()
    return network.eval()


NETWORKS = (
    NetworkCoder("mbt2018-mean", "MS-Hyper (mbt2018-mean)", "mbt2018-mean", tuple({"quality": q} for q in range(1, 9))),
    NetworkCoder(
        "cheng2020-attn", "DGML (cheng2020-attn)", "cheng2020-attn", tuple({"quality": q} for q in range(1, 7))
    ),
)
