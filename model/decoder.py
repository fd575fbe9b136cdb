"""The decoding half of the codec.

bytes --unpack--> Unpacked --start--> DecodeState --denoise_step (K times)--> --finish--> pixels
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.acceleration import Graphs, Inputs, PreparedDenoiser
from model.canvas import image_of, pixels_of
from model.config import HYPER_STRIDE, LATENT_STRIDE, MAX_GAMMA, padded
from model.container import Container, Header, SectionType, parse
from model.diffusion.noise import MAX_SEED, normal_noise
from model.diffusion.sampler import ddim_step
from model.errors import InvalidParameter, MalformedFile, UnknownCodec
from model.loaded import LoadedModel, Precision
from model.tiling import Layout, Region, layout_of
from model.types import DecodeState, Injected, Pixels, Quantised, Unpacked
from model.weights.files import Weights


def seed_of(container: Container) -> int:
    """The noise seed of a file. It depends on the image alone: with other metadata it decodes to the same pixels."""
    streams = [container.section(kind) or b"" for kind in (SectionType.HYPER, SectionType.LATENT)]
    return int.from_bytes(hashlib.sha256(b"".join(streams)).digest()[:8], "little") & MAX_SEED


class Decoder(LoadedModel):
    """What a decode asks of a model."""

    def __init__(self, weights: Weights, precision: Precision = "auto", device: str = "cpu") -> None:
        super().__init__(weights, precision, device)
        self.denoiser = PreparedDenoiser(self.networks.denoise)

    def unpack(self, file: bytes | Container, max_pixels: int | None = None) -> Unpacked:
        """Parse a file and decode its symbols: integers only, the same on every machine.

        Raises:
            FileError, LimitExceeded: see `model.errors`.
            UnknownCodec: the file's codec id is not this model's.
        """
        container = parse(file, max_pixels) if isinstance(file, bytes) else file
        header = container.header
        self._check_canvas(header.height, header.width)
        if header.codec_id != self.codec_id:
            raise UnknownCodec(f"codec id {header.codec_id.hex()}; this model decodes {self.codec_id.hex()}")
        if self.architecture.fixed_rate and header.rate:
            raise MalformedFile(f"the rate byte is {header.rate}; this model has one rate, 0")
        streams = [container.section(kind) or b"" for kind in (SectionType.HYPER, SectionType.LATENT)]
        rows, columns = padded(header.height) // HYPER_STRIDE, padded(header.width) // HYPER_STRIDE
        hyper = self.entropy.decode_hyper(streams[0], rows, columns)
        latent, means, indices = self.entropy.decode_latent(streams[1], hyper, header.rate)
        seed = seed_of(container)
        others = tuple(s for s in container.sections if s.type not in (SectionType.HYPER, SectionType.LATENT))
        float_means = self._float_means(hyper[None])
        own_means = None if float_means is None else float_means[0]
        quantised = Quantised(hyper, latent, means, indices, header.rate, own_means)
        return Unpacked(header, quantised, others, seed)

    def layout(self, header: Header, steps: int, gamma: float, region: Region | None = None) -> Layout:
        """What a decode of a file, or of a region of it, computes.

        Raises:
            InvalidParameter: the region is not within the image.
        """
        if region is not None and not region.within(header.width, header.height):
            raise InvalidParameter(f"{region} is not within {header.width}x{header.height} pixels")
        sampled = 0 if self.networks.has_base and not gamma else steps
        whole = self.architecture.whole_canvas
        return layout_of(header.width, header.height, self.tiling, region, sampled, whole_canvas=whole)

    def noise(self, layout: Layout, gamma: float, seed: int) -> Tensor:
        """The start of a decode, standard normal noise on its canvas, float32 [3, rows, columns].

        It is multiplied by gamma, but for models whose gamma is the share of the residual.
        """
        if not gamma:
            return torch.zeros((3, layout.rows, layout.columns))
        noise = torch.from_numpy(normal_noise(seed, layout.top, layout.left, layout.rows, layout.columns))
        return noise if self.networks.has_base else noise.mul_(gamma)

    @torch.inference_mode()
    def start(
        self,
        unpacked: Unpacked,
        steps: int | None = None,
        gamma: float | None = None,
        seed: int | None = None,
        *,
        region: Region | None = None,
        reduction: int = 1,
        keep_x0: bool = False,
        noise: Tensor | None = None,
    ) -> DecodeState:
        """Lay out the canvas and draw the start noise; no network but that of time and rate runs.

        An image smaller than its tile is extended by the last row and column of y_hat: zero padding would change the
        image as much as the signal does.

        Args:
            unpacked: what `unpack` gave.
            steps: 1..`max_steps`, None for the model's default.
            gamma: 0..2, None for the model's default: the share of the sampled residual that is added to the image of
                least error, or, for models without such an image, the standard deviation of the start noise.
            seed: of the noise, None for the file's own.
            region: decode these pixels alone; they are those of the whole decode.
            reduction: one of `reductions`: decode at that fraction of the size, at gamma 0. The result covers the
                region to the next whole pixel outwards.
            keep_x0: keep the present guess of the image for `preview`.
            noise: what `noise` gave for this layout, gamma and seed, where it was drawn before; it is used up.

        Raises:
            InvalidParameter: a parameter out of range.
        """
        gamma = self.default_gamma if gamma is None else gamma
        steps = self.default_steps if steps is None else steps
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise InvalidParameter(f"seed must be 0..2**63-1, not {seed}")
        indices = self._sampling(steps, gamma)
        direct = self.networks.has_base and not gamma
        if reduction not in self.reductions or (reduction > 1 and not direct):
            raise InvalidParameter(f"model {self.info.name!r} does not decode at 1/{reduction} with gamma {gamma}")
        header = unpacked.header
        layout = self.layout(header, steps, gamma, region)
        latents = self._dequantise(_latents_of(unpacked.quantised, layout))
        beyond = (
            0,
            layout.columns // LATENT_STRIDE - latents.shape[2],
            0,
            layout.rows // LATENT_STRIDE - latents.shape[1],
        )
        latents = F.pad(latents[None], beyond, mode="replicate")[0]
        if reduction > 1:
            x = torch.zeros((3, layout.rows // reduction, layout.columns // reduction))
        elif noise is None:
            x = self.noise(layout, gamma, unpacked.seed if seed is None else seed)
        else:
            x = noise
        x, cover, q = x.to(self.device), layout.tiles, header.rate / 255
        size = self.networks.residual_size(torch.tensor([q], device=self.device)) if self.networks.has_base else None
        return DecodeState(
            header=header,
            crop=layout.crop.reduced(reduction),
            alpha_bar=self.schedule.at(torch.tensor([*indices, -1], device=self.device)),
            modulation=self._modulate(indices, header.rate),
            position=0,
            x=x,
            after=x.clone() if len(cover) > 1 and not direct else None,  # what no tile owns keeps its noise
            x0=torch.zeros_like(x) if keep_x0 and not direct else None,
            q=q,
            latents=latents,
            injected=[None] * len(cover),
            tiles=cover,
            pending=set(range(len(cover))),
            base=torch.zeros_like(x) if self.networks.has_base and not direct else None,
            gain=gamma * float(size) if size is not None else 1.0,
            direct=direct,
            keep_x0=keep_x0,
            reduction=reduction,
        )

    @torch.inference_mode()
    def condition_tiles(self, rows: Sequence[tuple[DecodeState, int]]) -> None:
        """Run the conditioner once on tiles of equal shape, of any images: (decode, number of the tile).

        Of a direct decode it gives the image itself, at the reduction that all of them have in common.
        """
        windows = [s.latents[:, *s.tiles[i].window(LATENT_STRIDE)] for s, i in rows if s.latents is not None]
        latents = torch.stack(windows).to(self.device).contiguous(memory_format=torch.channels_last)
        q = torch.tensor([s.q for s, _ in rows], device=self.device)
        if all(state.direct for state, _ in rows):
            self._paint(rows, latents, q)
            maps: Injected = ()
        else:
            maps = self.networks.inject(latents, q)
        for row, (state, i) in enumerate(rows):
            if maps and (base := state.x if state.direct else state.base) is not None:
                tile = state.tiles[i]
                base[:, *tile.centre()] = maps[0][row, :, *tile.inner()]
            if not state.direct:
                own = maps[1:] if self.networks.has_base else maps
                state.injected[i] = tuple(m[row : row + 1].clone(memory_format=torch.preserve_format) for m in own)
            state.pending.discard(i)
            if not state.pending:
                state.latents, state.pending = None, set(range(len(state.tiles)))
                if state.direct:
                    state.position = state.steps

    def _paint(self, rows: Sequence[tuple[DecodeState, int]], latents: Tensor, q: Tensor) -> None:
        """The image itself of tiles that need no denoising: what any of them owns is computed of all, and no more."""
        inner = [state.tiles[i].inner(LATENT_STRIDE) for state, i in rows]
        keep = (
            slice(min(y.start for y, _ in inner), max(y.stop for y, _ in inner)),
            slice(min(x.start for _, x in inner), max(x.stop for _, x in inner)),
        )
        reduction = rows[0][0].reduction
        image, side = self.networks.base(latents, q, reduction, keep), LATENT_STRIDE // reduction
        for row, ((state, i), own) in enumerate(zip(rows, inner, strict=True)):
            y, x = (_pixels_within(o, k, side) for o, k in zip(own, keep, strict=True))
            state.x[:, *state.tiles[i].centre(reduction)] = image[row, :, y, x]

    @torch.inference_mode()
    def denoise_tiles(self, rows: Sequence[tuple[DecodeState, int]]) -> None:
        """Run the denoiser once on tiles of equal shape: each row has its own image, step, rate and noise.

        A decode moves to its next step when all its tiles have been through. If this raises, no decode has moved.
        """
        x = torch.stack([s.x[:, *s.tiles[i].window()] for s, i in rows])
        modulation = torch.stack([s.modulation[s.position] for s, _ in rows])
        alpha_from = torch.stack([s.alpha_bar[s.position] for s, _ in rows])
        alpha_to = torch.stack([s.alpha_bar[s.position + 1] for s, _ in rows])
        injected = _gather([s.injected[i] for s, i in rows])

        def network(x: Tensor) -> Tensor:
            x = x.to(self.dtype, memory_format=torch.channels_last)
            return self.denoiser(x, modulation, injected)

        step = ddim_step(network, x, alpha_from, alpha_to, self.schedule.parameterization)
        for row, (state, i) in enumerate(rows):
            tile = state.tiles[i]
            if state.x0 is not None:
                state.x0[:, *tile.centre()] = step.x0[row, :, *tile.inner()]
            if state.after is None:
                state.x = step.x[row].clone() if len(rows) > 1 else step.x[row]  # a view would keep all rows alive
            else:
                state.after[:, *tile.centre()] = step.x[row, :, *tile.inner()]
            state.pending.discard(i)
            if not state.pending:
                if state.after is not None:
                    state.x, state.after = state.after, state.x
                state.position += 1
                state.pending = set(range(len(state.tiles)))

    def denoise_step(self, state: DecodeState) -> None:
        """Advance one decode by one step, running the conditioner first where it has not run."""
        if not state.conditioned:
            for i in range(len(state.tiles)):
                self.condition_tiles([(state, i)])
        if not state.done:
            for i in range(len(state.tiles)):
                self.denoise_tiles([(state, i)])

    def prepare(self, rows: int, height: int, width: int) -> None:
        """Capture denoising passes of up to that many rows of tiles of that shape, on a CUDA device.

        Families without a denoiser to prepare are left as they are.

        Raises:
            torch.OutOfMemoryError: not prepared; such passes run as before.
        """
        blank = self.networks.blank(rows, height, width)
        if blank is not None:
            self.denoiser.prepare(Inputs(*blank))

    def compile(self) -> None:
        """Compile the denoiser; pays on a GPU. What is compiled are the shapes prepared afterwards, and no others."""
        network = self.networks.denoise
        self.denoiser = PreparedDenoiser(network, Graphs(torch.compile(network, dynamic=False)))

    def preview(self, state: DecodeState, side: int | None = None) -> Pixels | None:
        """Return the present x0 estimate, uint8 [H, W, 3]; None unless `keep_x0` was set.

        Args:
            state: a decode under way.
            side: make it smaller on its device, by a whole factor that leaves at least so many pixels of the longer
                side, or all there are.
        """
        estimate = (state.x if state.keep_x0 else None) if state.direct else state.x0
        if estimate is None:
            return None
        crop = state.crop
        x0 = image_of(estimate, state)[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        factor = 1 if side is None else max(1, max(crop.width, crop.height) // side)
        if factor > 1:
            x0 = F.avg_pool2d(x0, factor, ceil_mode=True)
        return pixels_of(x0, Region(0, 0, x0.shape[2], x0.shape[1]))

    def finish(self, state: DecodeState) -> Pixels:
        """Return the image, uint8 [H, W, 3], cropped; before the last step it is still noisy."""
        return pixels_of(image_of(state.x, state), state.crop)

    def decode(
        self,
        file: bytes,
        steps: int | None = None,
        gamma: float | None = None,
        seed: int | None = None,
        *,
        region: Region | None = None,
        reduction: int = 1,
    ) -> Pixels:
        """Decode a file, or a region of it, at once: `unpack`, `start`, every `denoise_step`, `finish`."""
        state = self.start(self.unpack(file), steps, gamma, seed, region=region, reduction=reduction)
        while not state.done:
            self.denoise_step(state)
        return self.finish(state)

    def _sampling(self, steps: int, gamma: float) -> tuple[int, ...]:
        """Check steps and gamma against what the model has been trained for; return the steps' indices."""
        if not 0 <= gamma <= MAX_GAMMA:  # also refuses NaN
            raise InvalidParameter(f"gamma must be 0..{MAX_GAMMA:g}, not {gamma}")
        if not 1 <= steps <= self.max_steps:
            raise InvalidParameter(f"model {self.info.name!r} takes 1..{self.max_steps} steps, not {steps}")
        return self.schedule.indices(steps)

    def _dequantise(self, quantised: Quantised) -> Tensor:
        """What the conditioner reads, float32 [C, H/16, W/16]."""
        parts = (quantised.y_hat, quantised.mean, quantised.indices.float())
        y_hat, mean, index = (part[None].to(self.device) for part in parts)
        q = torch.tensor([quantised.rate / 255], device=self.device)
        return self.networks.dequantise(y_hat, mean, index, q)[0].cpu()

    def _modulate(self, indices: tuple[int, ...], rate: int) -> Tensor:
        """What time and rate alone decide in the denoiser at each step, [K, S]."""
        times = self.architecture.times(indices, self.schedule.length)
        t = torch.tensor(times, device=self.device, dtype=torch.float64)
        return self.networks.modulate(t, rate).to(self.dtype)


def _gather(maps: list[Injected | None]) -> Injected:
    """Stack the maps of several tiles into one batch; those of a single tile are used as they are."""
    present = [m for m in maps if m is not None]
    if len(present) != len(maps):
        raise ValueError("a tile is denoised before the conditioner has run on it")
    if len(present) == 1:
        return present[0]
    return tuple(torch.cat(level) for level in zip(*present, strict=True))


def _latents_of(quantised: Quantised, layout: Layout) -> Quantised:
    """The symbols that a layout needs; those of all where it is whole."""
    top, left, rows, columns = (v // LATENT_STRIDE for v in (layout.top, layout.left, layout.rows, layout.columns))
    return quantised.window(top, left, rows, columns)


def _pixels_within(own: slice, kept: slice, side: int) -> slice:
    """Where latents lie in an image of others, of `side` pixels a latent."""
    return slice((own.start - kept.start) * side, (own.stop - kept.start) * side)
