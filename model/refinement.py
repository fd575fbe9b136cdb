"""Encoder effort: the symbols of one image, refined by gradients. Decoders do not change.

The cost of a file is D / lambda + R: with squared errors summed over the image, D / (3 lambda) + bits. Every round
moves what is to be quantised against the gradient of that cost at the present y_hat, through g_s and through the
entropy model, which predicts later symbols from earlier ones; then the symbols are chosen anew. This is proximal
gradient descent (Parikh and Boyd 2014, section 4.2) whose proximal operator is the quantiser by rate and distortion.
The step falls from round to round, as a temperature does where the rounding itself is annealed (Yang et al. 2020,
"Improving inference for neural image compression").
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from model.config import EFFORT_ROUNDS, LATENT_STRIDE
from model.entropy.entropy_model import EntropyModel
from model.entropy.likelihood import LEVELS_PER_NAT, gaussian_bits, sigma_of_index
from model.entropy.passes import Pass
from model.networks.family import Family, interpolate_levels
from model.networks.lite import LARGEST_INDEX
from model.tiling import Tile, tiles
from model.types import Latents, Quantised

WORTH = 0.11  # squared error in quantisation steps that a bit is worth in the last round
HOTTEST = 1.5  # times that in the first of ten rounds
DAMPING = 0.5  # of the way to the new target
TILE, MARGIN = 512, 64  # pixels: bounds the memory of a backward pass, about 0.4 GB
Between = Callable[[float, int], None]  # gradients that are done, and of how many; may raise to abandon the work


def nothing(done: float, of: int) -> None:
    """Nothing is to be done between two tiles."""


class Refiner:
    """Refines symbols under one model; holds no state of any image.

    Args:
        networks: of a family that has x_base and a lambda for every rate.
        entropy: its integer half.
        device: where the networks are.
    """

    def __init__(self, networks: Family, entropy: EntropyModel, device: torch.device) -> None:
        self._networks = networks
        self._entropy = entropy
        self._device = device
        self._medians = torch.from_numpy(entropy.medians / 256.0).float()[:, None, None]

    def refine(
        self, latents: Latents, y: Tensor, start: Quantised, rounds: int, between: Between = nothing
    ) -> Quantised:
        """Return the symbols whose file costs least of those found: `start`, or better.

        Args:
            latents: of the image, with its pixels.
            y: what `start` was quantised from, float32 [M, h, w] in quantisation steps.
            start: symbols, chosen in one pass.
            rounds: how often they are chosen anew.
            between: see `Between`.
        """
        with torch.inference_mode(mode=False):
            target, now = y.clone(), start
            best, least = now, math.inf
            for number in range(rounds + 1):

                def within(share: float, before: int = number) -> None:
                    between(before + share, rounds + 1)

                gradient, cost = self._gradient(latents, now, within)
                if cost < least:
                    best, least = now, cost
                if number == rounds:
                    between(rounds + 1, rounds + 1)
                    break
                worth = WORTH * HOTTEST ** ((rounds - 1 - number) / (EFFORT_ROUNDS[-1] - 1))
                target += DAMPING * (now.y_hat - worth / 2 * gradient - target)
                symbols, means, indices = self._entropy.choose_latents(
                    target[None], now.hyper[None], [now.rate], worth=worth
                )
                now = Quantised(now.hyper, symbols[0], means[0], indices[0], now.rate)
        return best

    def _gradient(self, latents: Latents, now: Quantised, between: Callable[[float], None]) -> tuple[Tensor, float]:
        """The cost in bit and its gradient [M, h, w] by y_hat, less what y_hat itself costs: the quantiser's part."""
        gradient = torch.zeros(now.latent.shape)
        rows, columns = (LATENT_STRIDE * side for side in now.latent.shape[1:])
        bits = 8 * len(self._entropy.encode_latent(now.latent, now.indices))
        scale, error = 3 * self._networks.lambda_of(now.rate / 255), 0.0
        cover = tiles(rows, columns, TILE, MARGIN)
        for number, tile in enumerate(cover):
            between(number / len(cover))
            of_error, squared = self._of_error(latents, now, tile)
            own = of_error / scale + self._of_rate(now, tile)
            gradient[:, *tile.centre(LATENT_STRIDE)] = own[:, *tile.inner(LATENT_STRIDE)]
            error += squared
        return gradient, error / scale + bits

    def _of_error(self, latents: Latents, now: Quantised, tile: Tile) -> tuple[Tensor, float]:
        """Gradient [M, h, w] of the squared error of a tile, and the error of what it owns."""
        part = _part(now, tile)
        q = torch.tensor([now.rate / 255], device=self._device)
        y_hat = part.y_hat[None].to(self._device).requires_grad_()
        mean, index = part.mean[None].to(self._device), part.indices[None].to(self._device).float()
        image, inside = _window(latents, tile)
        with torch.enable_grad():
            base = self._networks.base(self._networks.dequantise(y_hat, mean, index, q), q)[0].float()
            squared = (base - image.to(self._device)).square() * inside.to(self._device)
            (gradient,) = torch.autograd.grad(squared.sum(), y_hat)
        return gradient[0].float().cpu(), float(squared.detach()[:, *tile.inner()].sum())

    def _of_rate(self, now: Quantised, tile: Tile) -> Tensor:
        """Gradient [M, h, w] of the bits of a tile's symbols, by what they are predicted from."""
        networks, part = self._networks, _part(now, tile)
        q = torch.tensor([now.rate / 255], device=self._device)
        y, x = tile.window(4 * LATENT_STRIDE)
        z_hat = (torch.from_numpy(now.hyper[:, y, x]).float() + self._medians)[None].to(self._device)
        y_hat = part.y_hat[None].to(self._device).requires_grad_()
        coded = part.indices[None].to(self._device) >= self._entropy.silent

        def take(step: Pass, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
            return y_hat[:, step.start : step.stop]

        with torch.enable_grad():
            mean, scale = networks.prior(z_hat, q, take)
            shift = interpolate_levels(networks.log_gain, q)[:, :, None, None] * LEVELS_PER_NAT
            sigma = sigma_of_index((scale + shift).clamp(0, LARGEST_INDEX))
            bits = (gaussian_bits(y_hat.detach() - mean, sigma) * coded).sum()
            (gradient,) = torch.autograd.grad(bits, y_hat)
        return gradient[0].cpu()


def _part(now: Quantised, tile: Tile) -> Quantised:
    (y, x), (height, width) = tile.window(LATENT_STRIDE), (side // LATENT_STRIDE for side in tile.shape)
    return now.window(y.start, x.start, height, width)


def _window(latents: Latents, tile: Tile) -> tuple[Tensor, Tensor]:
    """The tile's pixels [3, H, W] in [-1, 1], and 1 where the image is, not its padding, [H, W]."""
    y, x = tile.window()
    assert latents.canvas is not None
    image = torch.from_numpy(latents.canvas[y, x]).permute(2, 0, 1).float() / 127.5 - 1
    inside = torch.zeros(tile.shape)
    inside[: max(0, latents.height - y.start), : max(0, latents.width - x.start)] = 1
    return image, inside
