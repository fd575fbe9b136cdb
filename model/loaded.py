"""One model on one device: what encoder and decoder share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from model.architecture import architecture_of
from model.config import padded
from model.entropy.coder import Symbols
from model.errors import LimitExceeded
from model.precision import faster_dtype
from model.weights.files import Weights

Precision = Literal["auto", "float32", "bfloat16"]


class LoadedModel:
    """Networks, integer entropy path and schedule. Holds no state of any image; share it freely."""

    def __init__(self, weights: Weights, precision: Precision = "auto", device: str = "cpu") -> None:
        """Put the networks on `device`. Conditioner and denoiser run in `precision`, everything else in float32."""
        self.info = weights.info
        self.entropy = weights.entropy
        self.prior = weights.prior
        self.device = torch.device(device)
        self.dtype = faster_dtype(self.device) if precision == "auto" else getattr(torch, precision)
        self.architecture = architecture_of(weights.info.architecture)
        self.default_steps = self.architecture.default_steps
        self.default_gamma = self.architecture.default_gamma
        self.schedule = self.architecture.schedule()
        self.max_steps = self.schedule.length
        module = weights.networks.to(self.device).to(memory_format=torch.channels_last)
        self.parameters = sum(p.numel() for p in module.parameters())
        self.networks = module
        module.cast(self.dtype)
        self.bytes = sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
        self.bytes += sum(a.nbytes for a in self.entropy.to_tensors().values())
        self.tiling = self.architecture.tiling

    @property
    def codec_id(self) -> bytes:
        """8 bytes that name the meaning of this model's symbols."""
        return self.entropy.codec_id

    @property
    def reductions(self) -> tuple[int, ...]:
        """Fractions 1/n of its size that this model decodes an image at; 1 is always among them."""
        return (1, *self.networks.reductions)

    @torch.inference_mode()
    def _float_means(self, hyper: Symbols) -> Tensor | None:
        """What the paper's code adds to symbols, float32 [B, M, H/16, W/16]; None where the integers' means are added.

        Args:
            hyper: symbols of z, [B, C, H/64, W/64].
        """
        if not self.entropy.float_means:
            return None
        medians = self.prior.medians[:, None, None]
        z_hat = torch.from_numpy(hyper).float() + medians.cpu()
        means: Tensor = self.networks.hyper_decoder(z_hat.to(self.device)).chunk(2, dim=1)[0]
        return means.cpu()

    def _check_canvas(self, height: int, width: int) -> None:
        """Refuse an image whose canvas the networks cannot take at once."""
        limit = self.architecture.max_pixels
        if limit is not None and padded(height) * padded(width) > limit:
            raise LimitExceeded(
                f"{width}x{height} pixels: model {self.info.name!r} takes images of at most {limit} pixels, "
                "sides counted in multiples of 64"
            )
