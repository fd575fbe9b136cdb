"""The paper's networks written down as plainly as the paper describes them: the oracle for `model.networks.paper`.

The product's means to speed are absent: contexts are concatenated at every step, attention forms q, k and v,
norms are spelt out, memory is contiguous, all is float32. Attributes are named so that `state_dict()` has the keys of
the published checkpoints; `published_checkpoint` lays one out as a published file, with random weights.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Variant = Literal["x", "eps"]


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True)
        variance = (x - mean).square().mean(dim=1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * self.g + self.b


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), Norm(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Resnet(nn.Module):
    def __init__(self, inputs: int, outputs: int, embedding: int | None = None, kernel: int = 3) -> None:
        super().__init__()
        if embedding is not None:
            self.mlp = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(embedding, outputs))
        self.block1 = Block(inputs, outputs, kernel)
        self.block2 = Block(outputs, outputs)
        self.res_conv = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.block1(x)
        if time is not None:
            h = h + self.mlp(time)[:, :, None, None]
        return self.block2(h) + self.res_conv(x)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.to_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.flatten(2) for t in self.to_qkv(x).chunk(3, dim=1))
        context = torch.einsum("bdn,ben->bde", k.softmax(dim=-1), v)
        out = torch.einsum("bde,bdn->ben", context, q * x.shape[1] ** -0.5)
        return self.to_out(out.view(x.shape))


class PreNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fn = Attention(width)
        self.norm = Norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fn = PreNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(x)


class Down(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Unet(nn.Module):
    def __init__(self, d: int, contexts: list[int]) -> None:
        super().__init__()
        widths = [3, *(d * (i + 1) for i in range(6))]
        self.time_mlp = nn.Sequential(nn.Linear(1, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i in range(6):
            extra = contexts[i] if i < 4 else 0
            first = Resnet(widths[i] + extra, widths[i + 1], d, 3 if i else 7)
            last: nn.Module = Down(widths[i + 1]) if i < 5 else nn.Identity()
            parts = [first, Resnet(widths[i + 1], widths[i + 1], d), Residual(widths[i + 1]), last]
            self.downs.append(nn.ModuleList(parts))
        self.mid_block1 = Resnet(6 * d, 6 * d, d)
        self.mid_attn = Residual(6 * d)
        self.mid_block2 = Resnet(6 * d, 6 * d, d)
        for i in range(5, 0, -1):
            parts = [Resnet(2 * widths[i + 1], widths[i], d), Resnet(widths[i], widths[i], d), Residual(widths[i])]
            self.ups.append(nn.ModuleList([*parts, Up(widths[i], widths[i])]))
        self.final_conv = nn.Sequential(Norm(d), nn.Conv2d(d, 3, 7, padding=3))

    def forward(self, x: Tensor, time: Tensor, contexts: list[Tensor]) -> Tensor:
        t = self.time_mlp(time)
        h, skips = x, []
        for i, (first, second, attention, down) in enumerate(self.downs):  # type: ignore[misc]
            if i < len(contexts):
                h = torch.cat([h, contexts[i]], dim=1)
            h = attention(second(first(h, t), t))
            skips.append(h)
            h = down(h)
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, t)), t)
        for first, second, attention, up in self.ups:  # type: ignore[misc]
            h = up(attention(second(first(torch.cat([h, skips.pop()], dim=1), t), t)))
        return self.final_conv(h)


class Prior(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self._medians = nn.Parameter(torch.randn(1, channels, 1, 1) * 0.3)
        sizes = (1, 3, 3, 3, 1)
        self.affine, self.a = nn.ModuleList(), nn.ParameterList()
        for i in range(4):
            layer = nn.Module()
            layer.weight = nn.Parameter(torch.rand(channels, 1, 1, sizes[i], sizes[i + 1]) - 0.5)
            layer.bias = nn.Parameter(torch.rand(channels, 1, 1, 1, sizes[i + 1]) - 0.5)
            self.affine.append(layer)
            if i < 3:
                self.a.append(nn.Parameter(torch.zeros(channels, 1, 1, 1, sizes[i + 1])))


class Compressor(nn.Module):
    def __init__(self, d: int, finest: int, *, gap: bool) -> None:
        super().__init__()

        def stage(block: nn.Module, resample: nn.Module) -> nn.ModuleList:
            return nn.ModuleList([block, nn.Identity(), resample] if gap else [block, resample])

        m, widths = 4 * d, (3, d, 2 * d, 3 * d, 4 * d)
        back = ((4 * d, 3 * d, 3 * d), (3 * d, 2 * d, 2 * d), (2 * d, d, d), (d, d, finest))
        self.prior = Prior(m)
        self.enc = nn.ModuleList(
            stage(Resnet(widths[i], widths[i + 1], kernel=3 if i else 7), Down(widths[i + 1])) for i in range(4)
        )
        self.dec = nn.ModuleList(stage(Resnet(i, o), Up(o, out)) for i, o, out in back)
        leaky = nn.LeakyReLU(0.2)
        convs = (nn.Conv2d(m, m, 3, 1, 1), nn.Conv2d(m, m, 5, 2, 2), nn.Conv2d(m, m, 5, 2, 2))
        self.hyper_enc = nn.ModuleList(nn.Sequential(c, leaky if i < 2 else nn.Identity()) for i, c in enumerate(convs))
        ups = (nn.ConvTranspose2d(m, m, 5, 2, 2, 1), nn.ConvTranspose2d(m, m, 5, 2, 2, 1), nn.Conv2d(m, 2 * m, 3, 1, 1))
        self.hyper_dec = nn.ModuleList(nn.Sequential(c, leaky if i < 2 else nn.Identity()) for i, c in enumerate(ups))

    def contexts(self, y_hat: Tensor) -> list[Tensor]:
        h, maps = y_hat, []
        for parts in self.dec:
            for part in parts:  # type: ignore[attr-defined]
                h = part(h)
            maps.append(h)
        return maps[::-1]

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return y and z."""
        y = image
        for parts in self.enc:
            for part in parts:  # type: ignore[attr-defined]
                y = part(y)
        z = y
        for layer in self.hyper_enc:
            z = layer(z)
        return y, z

    def parameters_of(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale."""
        h = z_hat
        for layer in self.hyper_dec:
            h = layer(h)
        mean, scale = h.chunk(2, dim=1)
        return mean, scale.clamp(min=0.1)


class Oracle(nn.Module):
    def __init__(self, variant: Variant, d: int = 64) -> None:
        super().__init__()
        finest = d if variant == "x" else 3
        self.denoise_fn = Unet(d, [finest, d, 2 * d, 3 * d])
        self.context_fn = Compressor(d, finest, gap=variant == "eps")


def published_checkpoint(variant: Variant, d: int, seed: int = 0) -> tuple[Oracle, dict[str, Any]]:
    """Return an oracle with random weights, and the same weights laid out as a published checkpoint.

    The gains of the hyper-decoder's scale are set so that sigma is about the spread of the latents: with plain random
    weights nearly every symbol would be an escape.
    """
    torch.manual_seed(seed)
    oracle = Oracle(variant, d).eval().requires_grad_(False)
    final = oracle.context_fn.hyper_dec[2][0]  # type: ignore[index]
    final.bias[4 * d :] += spread(oracle, d)
    weights = oracle.state_dict()
    if variant == "eps":
        return oracle, {"step": 1, "model": weights}
    ema = {f"ema_model.{k}": v for k, v in weights.items()}
    other = {f"online_model.{k}": v + 1 for k, v in weights.items()}
    extra = {"initted": torch.tensor(True), "step": torch.tensor(1), "ema_model.loss_fn_vgg.lin0.weight": torch.ones(1)}
    return oracle, {"step": 1, "model": {k: v + 1 for k, v in weights.items()}, "ema": {**other, **ema, **extra}}


def spread(oracle: Oracle, d: int) -> Tensor:
    """Standard deviation of each latent channel on a smooth random image, [4 d]."""
    noise = F.interpolate(torch.rand(1, 3, 16, 16), size=(128, 128), mode="bicubic").clamp(0, 1)
    y, _ = oracle.context_fn.encode(2 * noise - 1)
    return y.std(dim=(0, 2, 3)).clamp(min=0.2)
