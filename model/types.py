"""Records that the codec hands out. Shapes, dtypes and ranges stand beside each field."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.container import Header, Section
from model.tiling import Region, Tile

Pixels = npt.NDArray[np.uint8]  # [H, W, 3], sRGB
Injected = tuple[Tensor, ...]  # the context's share of the denoiser, the same at every step


@dataclass(frozen=True)
class Latents:
    """An analysed image, before any rate is chosen.

    Attributes:
        features: what `Family.analyse` gives, float32 [F, H/16, W/16] of the padded canvas; y before the gain where
            the rate takes no part in the analysis transform.
        width, height: of the image, in pixels.
        canvas: uint8 [H, W, 3], padded to multiples of 64 by its last row and column; None where no refinement may
            ask for it.
    """

    features: Tensor
    width: int
    height: int
    canvas: Pixels | None = None


@dataclass(frozen=True)
class Quantised:
    """What the entropy coder sees of an image at one rate. Equal on every machine for the same file.

    Attributes:
        hyper: symbols of z, int32 [C, H/64, W/64].
        latent: symbols of y, int32 [M, H/16, W/16].
        means: means of y in 1/16, int32 [M, H/16, W/16].
        indices: scale indices 0..63, uint8 [M, H/16, W/16].
        rate: rate byte 0..255.
        float_means: means of y before they were rounded, float32, where the model adds these; equal on every machine
            to the precision of floats.
    """

    hyper: npt.NDArray[np.int32]
    latent: npt.NDArray[np.int32]
    means: Tensor
    indices: Tensor
    rate: int
    float_means: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """Means of y, float32 [M, H/16, W/16]."""
        return self.means.float() / 16 if self.float_means is None else self.float_means

    @property
    def y_hat(self) -> Tensor:
        """Quantised latent before the inverse gain, float32 [M, H/16, W/16]; exact: multiples of 1/16 below 2**17."""
        return torch.from_numpy(self.latent).float() + self.mean

    def window(self, top: int, left: int, height: int, width: int) -> Quantised:
        """The symbols of y in a rectangle, in latents, and what goes with them; z stays whole."""
        cut = (slice(None), slice(top, top + height), slice(left, left + width))
        return replace(self, latent=self.latent[cut], means=self.means[cut], indices=self.indices[cut])


@dataclass(frozen=True)
class Unpacked:
    """A parsed and entropy-decoded file: header, symbols, the sections beside z and y, and a seed drawn from it."""

    header: Header
    quantised: Quantised
    sections: tuple[Section, ...]
    seed: int


@dataclass
class Analysis:
    """An encode between two tiles. Only `Codec` changes it.

    Attributes:
        canvas: of the latents.
        latents: what is filled in, tile by tile.
        tiles: what covers the canvas.
        pending: numbers of the tiles that are still to be computed.
    """

    canvas: Pixels
    latents: Latents
    tiles: list[Tile]
    pending: set[int]


@dataclass
class DecodeState:
    """A decode between two tiles. Only `Codec` changes it.

    Attributes:
        header: of the file.
        crop: where the pixels that were asked for lie on the canvas, in its own pixels.
        alpha_bar: float32 [K + 1], from the noisiest step's to 1 (the clean image).
        modulation: what time and rate alone decide in the denoiser at each step, [K, S].
        position: how many steps are done, 0..K.
        x: x_n, float32 [3, H, W] of the canvas.
        after: x of the next step, filled in tile by tile; margins must still read x_n, hence a second canvas.
        x0: the present guess of the image, float32 [3, H, W]; kept only where previews are asked for.
        q: rate in [0, 1].
        latents: what `Family.dequantise` gives, float32 [C, H/16, W/16]; dropped when every tile is conditioned.
        injected: step-invariant maps of the denoiser for each tile, None before the conditioner has run on it.
        base: the image of least error that the residual x is added to, float32 [3, H, W]; None where x is an image.
        gain: what x is multiplied by first.
        direct: the decode is the synthesis transform's own image: no denoising pass runs.
        keep_x0: whether previews are asked for.
        reduction: sides of the canvas are this many times smaller than what the tiles count in: 1, 2 or 4.
        tiles: what covers the canvas.
        pending: numbers of the tiles that this step, or the conditioner, still has to compute.
    """

    header: Header
    crop: Region
    alpha_bar: Tensor
    modulation: Tensor
    position: int
    x: Tensor
    after: Tensor | None
    x0: Tensor | None
    q: float
    latents: Tensor | None
    injected: list[Injected | None]
    tiles: list[Tile]
    pending: set[int]
    base: Tensor | None = None
    gain: float = 1.0
    direct: bool = False
    keep_x0: bool = False
    reduction: int = 1

    @property
    def steps(self) -> int:
        """K, the number of steps of the whole decode."""
        return len(self.modulation)

    @property
    def conditioned(self) -> bool:
        """True when the conditioner has run on every tile, so that denoising may begin."""
        return self.latents is None

    @property
    def done(self) -> bool:
        """True when x is the decoded image."""
        return self.position == self.steps
