"""What the engine does for one request: its parts on the device, and those that CPU threads do beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from model.codec import Codec, seed_of
from model.config import DEFAULT_EFFORT
from model.rate_control import Packed, pack_to_quality, pack_to_target
from model.refinement import Between, nothing
from model.types import Analysis, DecodeState
from service.engine.port import REDUCED, DecodeRequest, DecodeResult, EncodeRequest, EncodeResult, Kind
from service.engine.request import Key, Report, Unit
from service.images.preview import SIDE, preview_file
from service.work import Progress

NOISE_BESIDE_PIXELS = 1 << 22
TOGETHER_PIXELS = 1 << 14  # of a canvas: larger images gain little from being packed together


Share = Callable[[int], None]  # chooses the cores of this thread, by the pixels that it is to work on


class EncodeTask:
    """An encode: pad (CPU thread), encoder tiles (device), hyper-encoder and entropy coding (CPU thread)."""

    codec: Codec  # from `prepare` on: a model that was unloaded is read again in a CPU thread, not between two ticks

    def __init__(self, number: int, request: EncodeRequest, model: Callable[[], Codec], share: Share) -> None:
        self._model = model
        self.share = share
        self._number = number
        self.request = request
        self._offered = False
        self.analysis: Analysis
        self.packed: Packed | None = None
        self.seconds: dict[str, float] = {}

    def prepare(self) -> None:
        """Fetch the model and pad the image."""
        self.share(self.request.pixels[..., 0].size)
        self.codec = self._model()
        self.analysis = self.codec.begin(self.request.pixels)

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

    @property
    def refines(self) -> bool:
        """True when more than one pass over the symbols was asked for."""
        return self.request.effort > DEFAULT_EFFORT

    def refine(self, report: Report) -> None:
        """Choose the rate and write the file, with effort."""
        start = time.perf_counter()
        self.packed = self.pack(lambda done, of: report(Progress(int(done), of)))
        self.seconds = {"refinement": time.perf_counter() - start}

    def pack(self, between: Between = nothing) -> Packed:
        """Choose the rate and write the file."""
        request = self.request
        return pack_to_target(
            self.codec,
            self.analysis.latents,
            quality=request.quality,
            target_bpp=request.target_bpp,
            max_bytes=request.max_bytes,
            sections=request.sections,
            effort=request.effort,
            between=between,
        )

    @property
    def company(self) -> tuple[str, int, int] | None:
        """Small images of one shape are packed together, unless they look for a rate of their own or are refined."""
        height, width = self.analysis.canvas.shape[:2]
        searches = self.request.target_bpp is not None or self.request.max_bytes is not None
        searches = searches or self.refines
        return None if searches or height * width > TOGETHER_PIXELS else (self.codec.info.name, height, width)


def finish_encodes(tasks: Sequence[EncodeTask]) -> list[EncodeResult]:
    """Choose the rate and write the file, of one encode or of several of one company."""
    start = time.perf_counter()
    tasks[0].share(sum(task.analysis.canvas[..., 0].size for task in tasks))
    codec, company = tasks[0].codec, [(t.analysis.latents, t.request) for t in tasks]
    if len(tasks) > 1:
        files = pack_to_quality(codec, [(latents, r.quality, r.sections) for latents, r in company])
    else:
        files = [tasks[0].packed or tasks[0].pack()]
    seconds = tasks[0].seconds or {"entropy": time.perf_counter() - start}
    return [
        EncodeResult(
            data=file.data,
            model=codec.info.name,
            codec_id=codec.codec_id.hex(),
            width=latents.width,
            height=latents.height,
            rate=file.rate,
            quality=file.quality,
            bpp=8 * len(file.data) / (latents.width * latents.height),
            seconds=seconds,
            target=file.target,
        )
        for (latents, _), file in zip(company, files, strict=True)
    ]


class DecodeTask:
    """A decode: entropy decoding and noise (CPU thread), conditioner and K steps (device), 8 bits (CPU thread)."""

    codec: Codec  # as in EncodeTask

    def __init__(self, number: int, request: DecodeRequest, model: Callable[[], Codec], share: Share) -> None:
        self._model = model
        self._share = share
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
        self._share(header.pixels)
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
        preview = self.codec.preview(self.state, SIDE)
        return Progress(self.state.position, self.state.steps, None if preview is None else preview_file(preview))

    def done(self) -> bool:
        """True when all steps are."""
        return self.state.done

    refines = False

    def refine(self, report: Report) -> None:
        """A decode has nothing to refine."""

    @property
    def company(self) -> None:
        """A decode is finished alone."""
        return None

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
