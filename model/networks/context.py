"""Context of cdc-lite's entropy model: what is decoded already corrects mean and scale of what comes next."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.entropy.passes import INDEX_STEP, LATENT_BITS, RATE_BITS, Pass, passes_of
from model.errors import WeightsError

MAX_HIDDEN = 1024  # hidden channels that a weights file may ask for

# Pass, mask of its positions [h, w] in 0 and 1, its means and scale numbers [B, stop - start, h, w] -> its y_hat, same
# shape. What lies outside the mask is ignored.
Take = Callable[[Pass, Tensor, Tensor, Tensor], Tensor]


class ContextPass(nn.Module):
    """Corrections of one pass: 3x3 over the known latents beside 1x1 over features and rate, two more 1x1 layers.

    Starts at zero corrections.
    """

    def __init__(self, known: int, outputs: int, features: int, hidden: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(known, hidden, 3, padding=1)
        self.point = nn.Conv2d(features + 1, hidden, 1, bias=False)
        self.mix = nn.Conv2d(hidden, hidden, 1)
        self.head = nn.Conv2d(hidden, 2 * outputs, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, y_hat: Tensor, features: Tensor) -> Tensor:
        """y_hat [B, known, h, w] in steps, features with rate [B, F + 1, h, w] -> corrections [B, 2 outputs, h, w]."""
        h = F.relu(self.near(y_hat * 2.0**-LATENT_BITS) + self.point(features))
        corrections: Tensor = self.head(F.relu(self.mix(h)))
        return corrections


class ContextModel(nn.Module):
    """All passes but the first, which sees the hyper-decoder alone.

    Args:
        groups: channels of each group, the most telling first; they sum to the latents.
        features: channels of the hyper-decoder's last hidden layer.
        hidden: width of the corrections' hidden layers.
    """

    def __init__(self, groups: tuple[int, ...], features: int, hidden: int) -> None:
        super().__init__()
        self.passes = passes_of(groups, sum(groups))
        nets = [ContextPass(p.known, p.stop - p.start, features, hidden) for p in self.passes[1:]]
        self.nets = nn.ModuleList(nets)

    def forward(self, features: Tensor, base: Tensor, q: Tensor, take: Take) -> tuple[Tensor, Tensor]:
        """Run the passes in order; `take` decides y_hat of each from its means and scales.

        Args:
            features: [B, F, h, w], the hyper-decoder's last hidden layer.
            base: [B, 2 M, h, w], its means and scale numbers.
            q: [B] in [0, 1].
            take: see `Take`.

        Returns:
            Means and scale numbers [B, M, h, w].
        """
        mean, scale = base.chunk(2, dim=1)
        rows, _, height, width = mean.shape
        rate = (torch.round(q * 2.0**RATE_BITS) * 2.0**-RATE_BITS)[:, None, None, None].expand(rows, 1, height, width)
        seen = torch.cat([features, rate.to(features.dtype)], dim=1)
        odd = (torch.arange(height)[:, None] + torch.arange(width)).remainder(2).to(mean)
        halves: list[tuple[Tensor, Tensor, Tensor]] = []
        whole: list[Tensor] = []
        for number, part in enumerate(self.passes):
            m, s = mean[:, part.start : part.stop], scale[:, part.start : part.stop]
            mask = odd if part.parity else 1 - odd
            if number:
                known = [*whole, halves[-1][0]] if part.parity else whole
                correction = self.nets[number - 1](torch.cat(known, dim=1), seen)
                delta_mean, delta_scale = correction.chunk(2, dim=1)
                m, s = m + delta_mean, s + INDEX_STEP * delta_scale
            halves.append((take(part, mask, m, s) * mask, m * mask, s * mask))
            if part.parity:
                whole.append(halves[-2][0] + halves[-1][0])
        pairs = list(zip(halves[::2], halves[1::2], strict=True))
        means = torch.cat([even[1] + odd_[1] for even, odd_ in pairs], dim=1)
        scales = torch.cat([even[2] + odd_[2] for even, odd_ in pairs], dim=1)
        return means, scales

    def layers(self) -> list[tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d, nn.Conv2d]]:
        """near, point, mix and head of each network, in order."""
        nets = [net for net in self.nets if isinstance(net, ContextPass)]
        return [(net.near, net.point, net.mix, net.head) for net in nets]


def context_sizes(tensors: Mapping[str, Tensor]) -> tuple[tuple[int, ...], int] | None:
    """Channels of each group and the hidden width of the context model in a state dict; None if it has none.

    Raises:
        WeightsError: its last layers are no convolutions, or too wide.
    """
    heads: list[Tensor] = []
    while (head := tensors.get(f"context.nets.{len(heads)}.head.weight")) is not None:
        if head.ndim != 4:
            raise WeightsError("the context model does not end in convolutions")
        heads.append(head)
    if not heads:
        return None
    if heads[0].shape[1] > MAX_HIDDEN:
        raise WeightsError("the context model is too wide")
    return tuple(head.shape[0] // 2 for head in heads[::2]), heads[0].shape[1]
