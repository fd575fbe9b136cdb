"""Building blocks of the paper's networks, arranged for channels_last memory, where a pixel's channels lie together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Normalise the channels of each pixel: (x - mean) / sqrt(biased variance + 1e-5) * gain + bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> the same shape; in channels_last both permutations are views."""
        pixels = x.permute(0, 2, 3, 1)
        return F.layer_norm(pixels, self.gain.shape, self.gain, self.bias, 1e-5).permute(0, 3, 1, 2)


class ResnetBlock(nn.Module):
    """h = relu(norm1(conv1(x))) + shift; h = relu(norm2(conv2(h))); h + shortcut(x).

    With `context` set the block's input is [x, context]: the context's share of conv1 and shortcut, biases included,
    comes from `inject`. Where input and output are of one width the shortcut is the input itself.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int | None = None, *, context: int = 0, kernel: int = 3
    ) -> None:
        super().__init__()
        alone = context == 0
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=alone)
        self.norm1 = ChannelNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = ChannelNorm(outputs)
        projects = inputs + context != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=alone) if projects else None
        self.modulation = nn.Linear(embedding, outputs) if embedding is not None else None
        self.context_conv1 = None if alone else nn.Conv2d(context, outputs, kernel, padding=kernel // 2)
        self.context_shortcut = None if alone or not projects else nn.Conv2d(context, outputs, 1)

    def inject(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """context [B, C, H, W] -> its share of conv1 and of the shortcut, both [B, ., H, W]."""
        if self.context_conv1 is None:
            raise ValueError("this block takes no context")
        share = context if self.context_shortcut is None else self.context_shortcut(context)
        return self.context_conv1(context), share

    def forward(self, x: Tensor, shift: Tensor | None = None, injected: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x [B, inputs, H, W], shift [B, outputs] or None, the maps of `inject` or None -> [B, outputs, H, W]."""
        h: Tensor = self.conv1(x)
        if injected is not None:
            h = _added(h, injected[0])
        h = F.relu(self.norm1(h), inplace=True)
        if shift is not None:
            h = _added(h, shift[:, :, None, None])
        h = F.relu(self.norm2(self.conv2(h)), inplace=True)
        if self.shortcut is not None:
            h = _added(h, self.shortcut(x))
            return h if injected is None else _added(h, injected[1])
        if injected is None:
            return _added(h, x)
        if torch.is_grad_enabled():
            return h + torch.cat([x, injected[1]], dim=1)
        h[:, : x.shape[1]] += x
        h[:, x.shape[1] :] += injected[1]
        return h


class LinearAttention(nn.Module):
    """x + to_out((softmax(k) v^T)^T q) of one head as wide as x; q, k, v = qkv(norm(x)), q scaled by C^-0.5.

    The softmax of k runs over all pixels. The products are reassociated: with t the normalised pixels [P, C],

        to_out(...) = t M + bias,  M = C^-0.5 W_q^T (softmax(k)^T t) (W_out W_v)^T  of C x C,

    which is exact, needs half of the multiply-adds, and never forms q and v.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.qkv = nn.Parameter(torch.empty(3, width, width).uniform_(-(width**-0.5), width**-0.5))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> the same shape."""
        batch, width, height, columns = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height * columns, width)
        t = self.norm(x).permute(0, 2, 3, 1).reshape(pixels.shape)
        w_q, w_k, w_v = self.qkv
        k = torch.matmul(w_k, t.transpose(1, 2))  # [B, C, P]
        weights = torch.softmax(k, dim=2, dtype=torch.float32).to(t.dtype)  # sums over all pixels: not in bfloat16
        state = torch.matmul(weights, t).float()  # [B, C, C]
        mixed = w_q.float().T @ state @ (self.out.weight.float() @ w_v.float()).T * width**-0.5
        out = torch.baddbmm(pixels + self.out.bias, t, mixed.to(t.dtype))
        return out.view(batch, height, columns, width).permute(0, 3, 1, 2)


def _added(h: Tensor, other: Tensor) -> Tensor:
    """h + other; in place where no gradient needs h as it was."""
    return h + other if torch.is_grad_enabled() else h.add_(other)
