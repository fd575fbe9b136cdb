"""The device side of the engine: the only file of the service that knows torch and the codec."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from model.codec import Codec, seed_of
from model.config import TILE_SIDES
from model.rate_control import pack_to_target
from model.tiling import Region
from model.types import Analysis, DecodeState, Pixels
from model.weights.registry import DEFAULT_MODEL, Registry
from service.engine.messages import DeviceOptions
from service.engine.port import (
    REDUCED,
    DecodeRequest,
    DecodeResult,
    EncodeRequest,
    EncodeResult,
    Kind,
    ModelInfo,
    Order,
)
from service.engine.profile import Profile, cached, measure, store
from service.engine.request import Key, Task, Unit
from service.images.preview import SIDE, preview_file
from service.work import Progress

log = logging.getLogger(__name__)
WARM_UP_SIDE = 64
PROBE_ROUNDS = 5
# Denoising passes that a GPU's worker prepares: small ones, whose kernels take less time than their launches.
PREPARED_SHAPES = (*((side, side) for side in TILE_SIDES if side <= 512), (512, 768), (768, 512))
PREPARED_ROWS = (1, 2, 4, 8, 16)
PREPARED_PIXELS = 1 << 20  # in one pass
NOISE_BESIDE_PIXELS = 1 << 22
SMALL_PASS_PIXELS = 1 << 16
CPU_PASS_PIXELS = 1 << 19  # of several rows: on a CPU larger passes gain nothing and make others wait


class EncodeTask:
    """An encode: pad (CPU thread), encoder tiles (device), hyper-encoder and entropy coding (CPU thread)."""

    codec: Codec  # from `prepare` on: a model that was unloaded is read again in a CPU thread, not between two ticks

    def __init__(self, number: int, request: EncodeRequest, model: Callable[[], Codec]) -> None:
        self._model = model
        self._number = number
        self._request = request
        self._offered = False
        self.analysis: Analysis

    def prepare(self) -> None:
        """Fetch the model and pad the image."""
        self.codec = self._model()
        self.analysis = self.codec.begin(self._request.pixels)

    def ready(self) -> list[Unit]:
        """All tiles at once: they do not depend on each other."""
        if self._offered:
            return []
        self._offered = True
        name, step_cost = self.codec.info.name, self.codec.architecture.step_cost
        return [
            Unit(self._number, i, Key(name, "analyse", t.shape, step_cost)) for i, t in enumerate(self.analysis.tiles)
        ]

    def progress(self) -> None:
        """An encode has no steps."""

    def done(self) -> bool:
        """True when all tiles are analysed."""
        return not self.analysis.pending

    def finish(self) -> EncodeResult:
        """Choose the rate and write the file."""
        start = time.perf_counter()
        request, latents = self._request, self.analysis.latents
        packed = pack_to_target(
            self.codec,
            latents,
            quality=request.quality,
            target_bpp=request.target_bpp,
            max_bytes=request.max_bytes,
            sections=request.sections,
        )
        return EncodeResult(
            data=packed.data,
            model=self.codec.info.name,
            codec_id=self.codec.codec_id.hex(),
            width=latents.width,
            height=latents.height,
            rate=packed.rate,
            quality=packed.quality,
            bpp=8 * len(packed.data) / (latents.width * latents.height),
            seconds={"entropy": time.perf_counter() - start},
            target=packed.target,
        )


class DecodeTask:
    """A decode: entropy decoding and noise (CPU thread), conditioner and K steps (device), 8 bits (CPU thread)."""

    codec: Codec  # as in EncodeTask

    def __init__(self, number: int, request: DecodeRequest, model: Callable[[], Codec]) -> None:
        self._model = model
        self._number = number
        self._request = request
        self._entropy_seconds = 0.0
        self._offered: tuple[bool, int] | None = None  # phase and step whose tiles are with the scheduler
        self._reported = 0
        self.state: DecodeState

    def prepare(self) -> None:
        """Fetch the model, decode the symbols, lay out the canvas, draw the noise.

        The noise of a small image is drawn beside the symbols; of a large one after them, for the memory's sake.
        """
        self.codec = self._model()
        start = time.perf_counter()
        request, container = self._request, self._request.container
        header = container.header
        seed = seed_of(container) if request.seed is None else request.seed
        self._gamma = self.codec.default_gamma if request.gamma is None else request.gamma
        steps = self.codec.default_steps if request.steps is None else request.steps
        layout = self.codec.layout(header, steps, self._gamma, request.region)
        with ThreadPoolExecutor(1) as beside:
            small = self._gamma and layout.rows * layout.columns <= NOISE_BESIDE_PIXELS
            noise = beside.submit(self.codec.noise, layout, self._gamma, seed) if small else None
            unpacked = self.codec.unpack(container)
            self._entropy_seconds = time.perf_counter() - start
        self.state = self.codec.start(
            unpacked,
            request.steps,
            self._gamma,
            request.seed,
            region=request.region,
            reduction=request.reduction,
            keep_x0=request.previews,
            noise=None if noise is None else noise.result(),
        )
        self._seed = unpacked.seed if request.seed is None else request.seed
        self._sections = unpacked.sections

    def ready(self) -> list[Unit]:
        """The tiles of the present step, when they have not been handed out."""
        now = (self.state.conditioned, self.state.position)
        if now == self._offered:
            return []
        self._offered = now
        kind: Kind = "denoise" if self.state.conditioned else REDUCED[self._request.reduction]
        name, alone, step_cost = self.codec.info.name, self._request.deterministic, self.codec.architecture.step_cost
        return [
            Unit(self._number, i, Key(name, kind, t.shape, step_cost), alone) for i, t in enumerate(self.state.tiles)
        ]

    def progress(self) -> Progress | None:
        """A record for every step that is complete."""
        if self.state.position == self._reported:
            return None
        self._reported = self.state.position
        estimate = self.codec.estimate(self.state)
        preview = None if estimate is None else preview_file(small_image(estimate, self.state.crop))
        return Progress(self.state.position, self.state.steps, preview)

    def done(self) -> bool:
        """True when all steps are."""
        return self.state.done

    def finish(self) -> DecodeResult:
        """Turn the canvas into 8-bit pixels."""
        return DecodeResult(
            pixels=self.codec.finish(self.state),
            model=self.codec.info.name,
            codec_id=self.codec.codec_id.hex(),
            steps=self.state.steps,
            gamma=self._gamma,
            seed=self._seed,
            sections=self._sections,
            seconds={"entropy": self._entropy_seconds},
        )


def small_image(x0: Tensor, crop: Region) -> Pixels:
    """An estimate of the image [3, H, W] as uint8 [H, W, 3], made smaller than two previews on its device."""
    factor = max(1, max(crop.width, crop.height) // SIDE)
    x0 = x0[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    if factor > 1:
        x0 = torch.nn.functional.avg_pool2d(x0, factor, ceil_mode=True)
    levels = (x0 * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
    pixels: Pixels = levels.permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


class TorchDevice:
    """The models on one device."""

    def __init__(self, options: DeviceOptions) -> None:
        """Load every installed model once and measure the device. Raises `model.errors.WeightsError`."""
        if options.threads:
            torch.set_num_threads(options.threads)
        self._threads = torch.get_num_threads()
        torch.set_flush_denormal(True)
        gpu = options.device == "auto" and torch.cuda.is_available()
        self.device = "cuda:0" if gpu else "cpu" if options.device == "auto" else options.device
        self.registry = Registry(options.models_dir, options.precision, self.device, options.models_memory_bytes)
        self.models = tuple(self._describe(info.name) for info in self.registry.infos())
        self.warm_up()
        if self.device != "cpu" and options.acceleration != "none":
            self._accelerate(compiled=options.acceleration == "compile")
        measured = (
            measure(self._probe, options.tick_seconds)
            if options.cache_dir is None
            else cached(options.cache_dir, self._fingerprint(), lambda: measure(self._probe, options.tick_seconds))
        )
        self._cache_dir = options.cache_dir
        self.profile = Profile(measured, options.tick_seconds, CPU_PASS_PIXELS if self.device == "cpu" else None)

    def task(self, number: int, order: Order) -> Task:
        """Make the task of a request, whose `prepare` finds its model."""
        if isinstance(order, EncodeRequest):
            return EncodeTask(number, order, lambda: self.registry.get(order.model))
        codec_id = order.container.header.codec_id
        return DecodeTask(number, order, lambda: self.registry.for_file(codec_id, order.model))

    def run(self, units: Sequence[tuple[Task, Unit]]) -> None:
        """One forward pass. Raises MemoryError when the device has too little memory for so many rows."""
        encodes = [(w, u) for w, u in units if isinstance(w, EncodeTask)]
        decodes = [(w, u) for w, u in units if isinstance(w, DecodeTask)]
        self._share_cores(units)
        try:
            if encodes:
                encodes[0][0].codec.analyse_tiles([(w.analysis, u.tile) for w, u in encodes])
            elif units[0][1].key.kind == "denoise":
                decodes[0][0].codec.denoise_tiles([(w.state, u.tile) for w, u in decodes])
            else:
                decodes[0][0].codec.condition_tiles([(w.state, u.tile) for w, u in decodes])
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)  # a tick ends when its work has: caps and cancels depend on it
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(str(error)) from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error):  # what torch's CPU allocator says
                raise MemoryError(str(error)) from error
            raise

    def _share_cores(self, units: Sequence[tuple[Task, Unit]]) -> None:
        """Choose how many threads an operation takes, here and in the CPU threads: one for small encodes.

        Their parts are shorter than a meeting of threads; requests beside one another fill the cores.
        """
        key = units[0][1].key
        small = key.kind == "analyse" and len(units) * key.shape[0] * key.shape[1] <= SMALL_PASS_PIXELS
        threads = 1 if small else self._threads
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    def keep_profile(self) -> None:
        """Store what was learned of the device's speed for the next start."""
        if self._cache_dir is not None:
            store(self._cache_dir, self._fingerprint(), self.profile.seconds)

    def warm_up(self) -> None:
        """Run a small image through, so that the first request does not pay for lazy initialisation."""
        codec = self.registry.get()
        data = codec.pack(codec.analyse(np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)), 128)
        codec.decode(data, steps=1)

    def _accelerate(self, *, compiled: bool) -> None:
        """Prepare passes of the default model, as many as memory allows; no others are prepared later."""
        codec = self.registry.get()
        if compiled:
            codec.compile()
        try:
            for height, width in PREPARED_SHAPES:
                for rows in PREPARED_ROWS:
                    if rows == 1 or rows * height * width <= PREPARED_PIXELS:
                        codec.prepare(rows, height, width)
        except torch.OutOfMemoryError:
            log.warning("memory for %d prepared passes only", len(codec.denoiser.prepared))
            torch.cuda.empty_cache()

    def _describe(self, name: str) -> ModelInfo:
        codec = self.registry.get(name)
        is_default = name == DEFAULT_MODEL
        kind = codec.architecture
        return ModelInfo(
            name,
            codec.codec_id.hex(),
            codec.default_steps,
            codec.max_steps,
            codec.parameters,
            is_default,
            fixed_rate=kind.fixed_rate,
            max_pixels=kind.max_pixels,
            step_cost=kind.step_cost,
            decode_bytes=kind.decode_bytes,
            encode_bytes=kind.encode_bytes,
            version=codec.info.version,
            whole_canvas=kind.whole_canvas,
            margin=kind.tiling.margin,
            encoder_margin=kind.tiling.encoder_margin,
            direct=codec.networks.has_base,
            default_gamma=codec.default_gamma,
            reductions=codec.reductions,
            radius=kind.tiling.radius,
            step_radius=kind.tiling.step_radius,
        )

    def _probe(self, pixels: int) -> float:
        """Seconds of one denoising pass of that many pixels, a square: the least of five rounds."""
        codec = self.registry.get()
        side = round(pixels**0.5)
        black = codec.unpack(codec.pack(codec.analyse(np.zeros((side, side, 3), np.uint8)), 0))
        state = codec.start(black, steps=PROBE_ROUNDS + 1, gamma=1.0)
        codec.denoise_step(state)
        seconds = []
        for _ in range(PROBE_ROUNDS):
            start = time.perf_counter()
            codec.denoise_step(state)
            if self.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def _fingerprint(self) -> str:
        """Names all that decides speed: device, threads, arithmetic, torch, default model."""
        name = torch.cuda.get_device_name(self.device) if self.device != "cpu" else f"cpu{torch.get_num_threads()}"
        codec = self.registry.get()
        parts = (name, str(codec.dtype), torch.__version__, codec.info.architecture, str(codec.parameters))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
