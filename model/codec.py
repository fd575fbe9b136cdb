"""The codec: the one door to networks, diffusion, entropy coding and container.

encode   pixels --analyse--> Latents --pack--> bytes
decode   bytes --unpack--> Unpacked --start--> DecodeState --denoise_step (K times)--> --finish--> pixels
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import Weights
from model.config import (
    DEFAULT_GAMMA,
    HYPER_STRIDE,
    LATENT_STRIDE,
    MARGIN,
    MAX_GAMMA,
    TILE,
    padded,
)
from model.container import Container, Header, Section, SectionType, pack, parse
from model.diffusion.noise import MAX_SEED, normal_noise
from model.diffusion.sampler import ddim_step
from model.diffusion.schedule import cosine_schedule
from model.entropy.coder import SYMBOL_LIMIT
from model.errors import InvalidParameter, UnknownCodec
from model.networks.lite import interpolate_levels
from model.precision import faster_dtype
from model.tiling import Tile, tiles
from model.types import DecodeState, Injected, Latents, Pixels, Quantised, Unpacked

Precision = Literal["auto", "float32", "bfloat16"]
FINISH_ROWS = 512  # rows converted to 8 bits at a time


@dataclass(frozen=True)
class Tiling:
    """Tile side and margin in pixels. Part of the result, so a constant of the model; tests use smaller ones."""

    tile: int = TILE
    margin: int = MARGIN


class Codec:
    """One model: networks, integer entropy path and schedule. Holds no state of any picture; share it freely."""

    default_steps = 17

    def __init__(self, weights: Weights, precision: Precision = "auto", device: str = "cpu") -> None:
        """Put the networks on `device`. Conditioner and denoiser run in `precision`, everything else in float32."""
        self.info = weights.info
        self.entropy = weights.entropy
        self.prior = weights.prior
        self.device = torch.device(device)
        self.dtype = faster_dtype(self.device) if precision == "auto" else getattr(torch, precision)
        self.schedule = cosine_schedule()
        self.networks = weights.networks.to(self.device).to(memory_format=torch.channels_last)
        self.networks.conditioner.to(self.dtype)
        self.networks.denoiser.to(self.dtype)
        self.networks.denoiser.embed.float()
        self.networks.denoiser.frequencies = self.networks.denoiser.frequencies.float()
        self.parameters = sum(p.numel() for p in self.networks.parameters())
        self.tiling = Tiling()

    @property
    def codec_id(self) -> bytes:
        """8 bytes that name the meaning of this model's symbols."""
        return self.entropy.codec_id

    # Encoding -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def analyse(self, pixels: Pixels, between: Callable[[], None] = lambda: None) -> Latents:
        """Run the encoder once; every rate can be packed from its result.

        Args:
            pixels: uint8 [H, W, 3], sides 1..65535.
            between: called between tiles; may raise to abandon the work.

        Raises:
            InvalidParameter: wrong shape or dtype, or a side too long.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InvalidParameter(f"pixels must be uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        height, width = pixels.shape[:2]
        Header(self.codec_id, width, height, 0)  # checks the sides before anything is computed
        rows, columns = padded(height), padded(width)
        canvas = np.pad(pixels, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
        y = torch.empty((self.networks.config.latents, rows // LATENT_STRIDE, columns // LATENT_STRIDE))
        for tile in self._tiles(rows, columns):
            between()
            window = torch.from_numpy(np.ascontiguousarray(canvas[tile.window()])).to(self.device)
            image = (window.permute(2, 0, 1)[None].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            part = self.networks.encoder(image)[0].cpu()
            y[:, *tile.centre(LATENT_STRIDE)] = part[:, *tile.inner(LATENT_STRIDE)]
        return Latents(y, width, height)

    @torch.inference_mode()
    def quantise(self, latents: Latents, rate: int) -> Quantised:
        """Apply the gain of the rate byte, run the hyper-encoder and round. The last floats of an encode."""
        gain = torch.exp(self._level(self.networks.log_gain, rate))
        y = latents.y * gain[:, None, None].cpu()
        z = self.networks.hyper_encoder(y[None].to(self.device))[0]
        hyper = self.entropy.quantise_hyper(z)
        means, indices = self.entropy.parameters(hyper, rate)
        latent = torch.round(y - means.float() / 16).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT).to(torch.int32)
        return Quantised(hyper, latent.numpy(), means, indices, rate)

    def pack(self, latents: Latents, rate: int, sections: Sequence[Section] = ()) -> bytes:
        """Return the file of an analysed picture at a rate byte 0..255, with further sections after z and y."""
        quantised = self.quantise(latents, rate)
        header = Header(self.codec_id, latents.width, latents.height, rate)
        coded = (
            Section(SectionType.HYPER, self.entropy.encode_hyper(quantised.hyper)),
            Section(SectionType.LATENT, self.entropy.encode_latent(quantised.latent, quantised.indices)),
        )
        return pack(header, (*coded, *sections))

    # Decoding -----------------------------------------------------------------------------------------------------

    def unpack(self, file: bytes | Container, max_pixels: int | None = None) -> Unpacked:
        """Parse a file and decode its symbols: integers only, the same on every machine.

        Raises:
            FileError, LimitExceeded: see `model.errors`.
            UnknownCodec: the file's codec id is not this model's.
        """
        container = parse(file, max_pixels) if isinstance(file, bytes) else file
        header = container.header
        if header.codec_id != self.codec_id:
            raise UnknownCodec(f"codec id {header.codec_id.hex()}; this model decodes {self.codec_id.hex()}")
        streams = [container.section(kind) or b"" for kind in (SectionType.HYPER, SectionType.LATENT)]
        rows, columns = padded(header.height) // HYPER_STRIDE, padded(header.width) // HYPER_STRIDE
        hyper = self.entropy.decode_hyper(streams[0], rows, columns)
        means, indices = self.entropy.parameters(hyper, header.rate)
        latent = self.entropy.decode_latent(streams[1], indices)
        # The seed depends on the picture alone: a file with other metadata decodes to the same pixels.
        seed = int.from_bytes(hashlib.sha256(b"".join(streams)).digest()[:8], "little") & MAX_SEED
        others = tuple(s for s in container.sections if s.type not in (SectionType.HYPER, SectionType.LATENT))
        return Unpacked(header, Quantised(hyper, latent, means, indices, header.rate), others, seed)

    @torch.inference_mode()
    def start(
        self,
        unpacked: Unpacked,
        steps: int | None = None,
        gamma: float = DEFAULT_GAMMA,
        seed: int | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> DecodeState:
        """Run the conditioner and draw the start noise.

        Args:
            unpacked: what `unpack` gave.
            steps: 1..8193, None for the model's default of 17.
            gamma: standard deviation of the start noise, 0..2; 0 starts from zeros.
            seed: of the noise, None for the file's own.
            between: called between tiles; may raise to abandon the work.

        Raises:
            InvalidParameter: a parameter out of range.
        """
        if not 0 <= gamma <= MAX_GAMMA:  # also refuses NaN
            raise InvalidParameter(f"gamma must be 0..{MAX_GAMMA:g}, not {gamma}")
        indices = self.schedule.indices(self.default_steps if steps is None else steps)
        header = unpacked.header
        rows, columns = padded(header.height), padded(header.width)
        cover = self._tiles(rows, columns)
        if gamma > 0:
            noise = normal_noise(unpacked.seed if seed is None else seed, 0, 0, rows, columns)
            x = torch.from_numpy(noise).mul_(gamma)
        else:
            x = torch.zeros((3, rows, columns))
        inverse_gain = torch.exp(self._level(self.networks.log_inverse_gain, header.rate)).cpu()
        y_hat = unpacked.quantised.y_hat * inverse_gain[:, None, None]
        injected = self._inject(y_hat, cover, between)
        return DecodeState(header, indices, 0, x.to(self.device), injected, header.rate / 255, cover)

    @torch.inference_mode()
    def denoise_step(self, state: DecodeState, between: Callable[[], None] = lambda: None) -> None:
        """Advance `state` by one DDIM step, tile by tile.

        Centres go to a second canvas that replaces x when the step is complete: margins must still read x_n. If
        `between` raises, the state is as it was before the step.
        """
        index = state.indices[state.position]
        following = state.indices[state.position + 1] if state.position + 1 < len(state.indices) else -1
        alpha_from, alpha_to = (self.schedule.at(torch.tensor([i], device=self.device)) for i in (index, following))
        t = torch.tensor([(index + 1) / self.schedule.length], device=self.device)
        q = torch.tensor([state.q], device=self.device)
        embedding = self.networks.denoiser.embed_time(t, q).to(self.dtype)
        after = torch.empty_like(state.x) if len(state.tiles) > 1 else None
        for tile in state.tiles:
            between()
            a, b, c = (m[:, :, *tile.window(s)] for m, s in zip(state.injected, (4, 8, 16), strict=True))

            def network(x: Tensor, maps: Injected = (a, b, c)) -> Tensor:
                x = x.to(self.dtype, memory_format=torch.channels_last)
                return self.networks.denoiser(x, embedding, maps)  # type: ignore[no-any-return]

            window = state.x[None, :, *tile.window()]
            x = ddim_step(network, window, alpha_from, alpha_to, self.schedule.parameterization).x[0]
            if after is None:
                after = x
            else:
                after[:, *tile.centre()] = x[:, *tile.inner()]
        assert after is not None
        state.x = after
        state.position += 1

    def finish(self, state: DecodeState) -> Pixels:
        """Return the picture, uint8 [H, W, 3], cropped; before the last step it is still noisy."""
        height, width = state.header.height, state.header.width
        out = np.empty((height, width, 3), dtype=np.uint8)
        for top in range(0, height, FINISH_ROWS):
            rows = state.x[:, top : min(top + FINISH_ROWS, height), :width]
            levels = (rows * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
            out[top : top + FINISH_ROWS] = levels.permute(1, 2, 0).cpu().numpy()
        return out

    def decode(
        self, file: bytes, steps: int | None = None, gamma: float = DEFAULT_GAMMA, seed: int | None = None
    ) -> Pixels:
        """Decode a whole file at once: `unpack`, `start`, every `denoise_step`, `finish`."""
        state = self.start(self.unpack(file), steps, gamma, seed)
        while not state.done:
            self.denoise_step(state)
        return self.finish(state)

    # Parts --------------------------------------------------------------------------------------------------------

    def _level(self, table: Tensor, rate: int) -> Tensor:
        return interpolate_levels(table, torch.tensor([rate / 255], device=table.device))[0]

    def _tiles(self, rows: int, columns: int) -> list[Tile]:
        return tiles(rows, columns, self.tiling.tile, self.tiling.margin)

    def _inject(self, y_hat: Tensor, cover: list[Tile], between: Callable[[], None]) -> Injected:
        """y_hat [M, h, w] -> the denoiser's injected maps, computed tile by tile, [1, C, ...] each."""
        networks, (_, h, w) = self.networks, y_hat.shape
        maps: list[Tensor] = []
        for tile in cover:
            between()
            window = y_hat[None, :, *tile.window(LATENT_STRIDE)].to(self.device, self.dtype)
            context = networks.conditioner(window.contiguous(memory_format=torch.channels_last))
            parts: Injected = networks.denoiser.inject_context(context)
            if len(cover) == 1:
                return parts
            if not maps:
                maps = [
                    torch.empty(
                        (1, p.shape[1], h * f, w * f),
                        dtype=p.dtype,
                        device=p.device,
                    ).contiguous(memory_format=torch.channels_last)
                    for p, f in zip(parts, (4, 2, 1), strict=True)
                ]
            for whole, part, stride in zip(maps, parts, (4, 8, 16), strict=True):
                whole[:, :, *tile.centre(stride)] = part[:, :, *tile.inner(stride)]
        return maps[0], maps[1], maps[2]
