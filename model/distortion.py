"""Distortion between 8-bit images."""

from __future__ import annotations

import math

import numpy as np

from model.types import Pixels


def psnr(reference: Pixels, picture: Pixels) -> float:
    """Peak signal-to-noise ratio over all RGB values in dB; infinite for equal images. Both uint8 [H, W, 3]."""
    error = float(np.square(reference.astype(np.float64) - picture).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ms_ssim(reference: Pixels, picture: Pixels) -> float:
    """Multi-scale structural similarity of RGB (Wang et al. 2003, five scales), 0..1; sides above 160 pixels.

    Needs pytorch-msssim, which the `dev` extra installs.
    """
    import torch
    from pytorch_msssim import ms_ssim as compute

    a, b = (torch.from_numpy(np.array(p)).permute(2, 0, 1)[None].float() for p in (reference, picture))
    return float(compute(a, b, data_range=255))
