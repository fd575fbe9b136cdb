"""The codec: the one door to networks, diffusion, entropy coding and container.

encode   pixels --analyse--> Latents --pack--> bytes
decode   bytes --unpack--> Unpacked --start--> DecodeState --denoise_step (K times)--> --finish--> pixels
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.acceleration import Graphs, Inputs, PreparedDenoiser
from model.architecture import architecture_of
from model.config import HYPER_STRIDE, LATENT_STRIDE, MAX_GAMMA, padded
from model.container import Container, Header, Section, SectionType, pack, parse
from model.diffusion.noise import MAX_SEED, normal_noise
from model.diffusion.sampler import ddim_step
from model.entropy.coder import Symbols
from model.errors import InvalidParameter, LimitExceeded, MalformedFile, UnknownCodec
from model.precision import faster_dtype
from model.tiling import Layout, Region, layout_of, tiles
from model.types import Analysis, DecodeState, Injected, Latents, Pixels, Quantised, Unpacked
from model.weights.files import Weights

Precision = Literal["auto", "float32", "bfloat16"]
FINISH_ROWS = 512  # rows converted to 8 bits at a time


def seed_of(container: Container) -> int:
    """The noise seed of a file. It depends on the image alone: with other metadata it decodes to the same pixels."""
    streams = [container.section(kind) or b"" for kind in (SectionType.HYPER, SectionType.LATENT)]
    return int.from_bytes(hashlib.sha256(b"".join(streams)).digest()[:8], "little") & MAX_SEED


class Codec:
    """One model: networks, integer entropy path and schedule. Holds no state of any image; share it freely."""

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
        self.denoiser = PreparedDenoiser(module.denoise)
        self.tiling = self.architecture.tiling

    @property
    def codec_id(self) -> bytes:
        """8 bytes that name the meaning of this model's symbols."""
        return self.entropy.codec_id

    @property
    def reductions(self) -> tuple[int, ...]:
        """Fractions 1/n of its size that this model decodes an image at; 1 is always among them."""
        return (1, *self.networks.reductions)

    # Encoding -----------------------------------------------------------------------------------------------------

    def begin(self, pixels: Pixels) -> Analysis:
        """Prepare an encode; nothing is computed yet.

        Args:
            pixels: uint8 [H, W, 3], sides 1..65535.

        Raises:
            InvalidParameter: wrong shape or dtype, or a side too long.
            LimitExceeded: more pixels than the model takes.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InvalidParameter(f"pixels must be uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        height, width = pixels.shape[:2]
        Header(self.codec_id, width, height, 0)  # checks the sides before anything is allocated
        self._check_canvas(height, width)
        rows, columns = padded(height), padded(width)
        canvas = np.pad(pixels, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
        features = torch.empty((self.networks.features, rows // LATENT_STRIDE, columns // LATENT_STRIDE))
        cover = tiles(rows, columns, self.tiling.tile, self.tiling.encoder_margin)
        return Analysis(canvas, Latents(features, width, height), cover, set(range(len(cover))))

    @torch.inference_mode()
    def analyse_tiles(self, rows: Sequence[tuple[Analysis, int]]) -> None:
        """Run the encoder once on tiles of equal shape, of any images: (image, number of the tile)."""
        windows = np.stack([a.canvas[a.tiles[i].window()] for a, i in rows])
        image = torch.from_numpy(windows).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        features = self.networks.analyse(image.contiguous(memory_format=torch.channels_last)).cpu()
        for row, (analysis, i) in enumerate(rows):
            tile = analysis.tiles[i]
            own = features[row, :, *tile.inner(LATENT_STRIDE)]
            analysis.latents.features[:, *tile.centre(LATENT_STRIDE)] = own
            analysis.pending.discard(i)

    def analyse(self, pixels: Pixels) -> Latents:
        """Run the encoder on a whole image; every rate can be packed from the result. Raises as `begin`."""
        analysis = self.begin(pixels)
        for i in range(len(analysis.tiles)):
            self.analyse_tiles([(analysis, i)])
        return analysis.latents

    @torch.inference_mode()
    def _quantise(
        self, images: Sequence[Latents], rates: Sequence[int]
    ) -> tuple[Symbols, Symbols, Tensor, Tensor, Tensor | None]:
        """What `Quantised` says of each image, one after the other: hyper, latent, means, indices, float means."""
        q = torch.tensor(rates, device=self.device) / 255
        features = images[0].features[None] if len(images) == 1 else torch.stack([i.features for i in images])
        y = self.networks.latent(features.to(self.device, memory_format=torch.channels_last), q)
        hyper = self.entropy.quantise_hyper(self.networks.hyper(y))
        float_means = self._float_means(hyper)
        latent, means, indices = self.entropy.choose_latents(
            y.cpu().contiguous(),
            hyper,
            rates,
            rate_distortion=self.architecture.rate_distortion,
            float_means=float_means,
        )
        return hyper, latent, means, indices, float_means

    def quantise(self, latents: Latents, rate: int) -> Quantised:
        """Finish the analysis at the rate byte, run the hyper-encoder and round. The last floats of an encode."""
        hyper, latent, means, indices, floats = self._quantise([latents], [rate])
        return Quantised(hyper[0], latent[0], means[0], indices[0], rate, None if floats is None else floats[0])

    def pack_together(self, images: Sequence[tuple[Latents, int, Sequence[Section]]]) -> list[bytes]:
        """Return the files of several images whose canvases are of one shape: each is what `pack` gives."""
        found = self._quantise([latents for latents, _, _ in images], [rate for _, rate, _ in images])
        streams = self.entropy.encode_latents(found[1], found[3])
        return [
            pack(
                Header(self.codec_id, latents.width, latents.height, rate),
                (
                    Section(SectionType.HYPER, self.entropy.encode_hyper(hyper)),
                    Section(SectionType.LATENT, stream),
                    *sections,
                ),
            )
            for (latents, rate, sections), hyper, stream in zip(images, found[0], streams, strict=True)
        ]

    def pack(self, latents: Latents, rate: int, sections: Sequence[Section] = ()) -> bytes:
        """Return the file of an analysed image at a rate byte 0..255, with further sections after z and y."""
        return self.pack_together([(latents, rate, sections)])[0]

    # Decoding -----------------------------------------------------------------------------------------------------

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
        if region is not None and not _within(region, header):
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
            crop=_reduced(layout.crop, reduction),
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
        x0 = _image(estimate, state)[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        factor = 1 if side is None else max(1, max(crop.width, crop.height) // side)
        if factor > 1:
            x0 = F.avg_pool2d(x0, factor, ceil_mode=True)
        return _to_pixels(x0, Region(0, 0, x0.shape[2], x0.shape[1]))

    def finish(self, state: DecodeState) -> Pixels:
        """Return the image, uint8 [H, W, 3], cropped; before the last step it is still noisy."""
        return _to_pixels(_image(state.x, state), state.crop)

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

    # Parts --------------------------------------------------------------------------------------------------------

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

    def _modulate(self, indices: tuple[int, ...], rate: int) -> Tensor:
        """What time and rate alone decide in the denoiser at each step, [K, S]."""
        times = self.architecture.times(indices, self.schedule.length)
        t = torch.tensor(times, device=self.device, dtype=torch.float64)
        return self.networks.modulate(t, rate).to(self.dtype)

    def _check_canvas(self, height: int, width: int) -> None:
        """Refuse an image whose canvas the networks cannot take at once."""
        limit = self.architecture.max_pixels
        if limit is not None and padded(height) * padded(width) > limit:
            raise LimitExceeded(
                f"{width}x{height} pixels: model {self.info.name!r} takes images of at most {limit} pixels, "
                "sides counted in multiples of 64"
            )


def _gather(maps: list[Injected | None]) -> Injected:
    """Stack the maps of several tiles into one batch; those of a single tile are used as they are."""
    present = [m for m in maps if m is not None]
    if len(present) != len(maps):
        raise ValueError("a tile is denoised before the conditioner has run on it")
    if len(present) == 1:
        return present[0]
    return tuple(torch.cat(level) for level in zip(*present, strict=True))


def _image(x: Tensor, state: DecodeState) -> Tensor:
    """What is denoised, [3, H, W] -> the image that it stands for."""
    return x if state.base is None else state.base + state.gain * x


def _within(region: Region, header: Header) -> bool:
    """Whether a region has pixels, all of the image."""
    across = 0 <= region.left < region.left + region.width <= header.width
    return across and 0 <= region.top < region.top + region.height <= header.height


def _latents_of(quantised: Quantised, layout: Layout) -> Quantised:
    """The symbols that a layout needs; those of all where it is whole."""
    top, left, rows, columns = (v // LATENT_STRIDE for v in (layout.top, layout.left, layout.rows, layout.columns))
    return quantised.window(top, left, rows, columns)


def _reduced(crop: Region, reduction: int) -> Region:
    """A region at 1/`reduction` of the size, extended to whole pixels."""
    left, top = crop.left // reduction, crop.top // reduction
    right, bottom = -(-(crop.left + crop.width) // reduction), -(-(crop.top + crop.height) // reduction)
    return Region(left, top, right - left, bottom - top)


def _pixels_within(own: slice, kept: slice, side: int) -> slice:
    """Where latents lie in an image of others, of `side` pixels a latent."""
    return slice((own.start - kept.start) * side, (own.stop - kept.start) * side)


def _to_pixels(x: Tensor, crop: Region) -> Pixels:
    """x float [3, H, W] in [-1, 1] -> uint8 [height, width, 3], cropped, some rows at a time to bound memory."""
    out = np.empty((crop.height, crop.width, 3), dtype=np.uint8)
    x = x[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    for top in range(0, crop.height, FINISH_ROWS):
        levels = (x[:, top : top + FINISH_ROWS] * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
        out[top : top + FINISH_ROWS] = levels.permute(1, 2, 0).cpu().numpy()
    return out
