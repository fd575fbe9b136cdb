"""The average of the weights over training, which is what ships."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor


class Ema:
    """Exponential moving average of named tensors, in float32, with a decay that grows from 0.1 to its limit."""

    def __init__(self, tensors: Mapping[str, Tensor], decay: float, fixed: Collection[str] = ()) -> None:
        """Start at the present values. `decay` 0 follows them exactly; those named in `fixed` stay, to the bit."""
        self.decay, self.fixed = decay, frozenset(fixed)
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Move towards the values after `step` steps (counted from 1)."""
        decay = min(self.decay, step / (step + 9))
        floats = [
            name for name, tensor in self.tensors.items() if tensor.is_floating_point() and name not in self.fixed
        ]
        torch._foreach_lerp_(
            [self.tensors[name] for name in floats], [tensors[name].detach() for name in floats], 1 - decay
        )

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over stored averages of the same names."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
