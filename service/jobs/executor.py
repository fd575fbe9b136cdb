"""The codec as the road uses it: what is checked at the door, and the work itself. Knows no HTTP.

admit    upload -> limits, price -> Work
run      image file -> pixels, sections -> engine -> .cdc file
         .cdc file -> engine -> pixels, sections -> image file
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from model.config import rounds_of
from model.container import Container, Header, parse
from model.errors import CorruptStream, InvalidParameter, UnknownCodec, UnknownModel
from service.engine.port import (
    Decode,
    DecodeRequest,
    DecodeResult,
    EncodeRequest,
    Engine,
    EngineView,
    ModelInfo,
    refinement_steps,
)
from service.errors import Draining, NotReady, TooManyPixels
from service.framing import frame_of
from service.images.drawings import LOSSY_QUALITY, check_worth
from service.images.reading import probe_image, read_image
from service.images.sections import image_file, sections_of
from service.images.writing import check_output_size
from service.jobs.canary import Canary, canary_of
from service.jobs.limits import Budget, Limits, limits_of
from service.logs import request_id
from service.metrics import Metrics
from service.settings import Settings
from service.work import DecodeOptions, EncodeOptions, Metadata, Options, Progress, Result, Work

T = TypeVar("T")
OnProgress = Callable[[Progress], None]
CDC_TYPE = "image/x-cdc"
SMALL_BYTES = 1 << 16  # hashed and checked in less time than a thread takes to start


@dataclass(frozen=True)
class Inspection:
    """What a file says of itself, and the models that decode it. `steps` and `pixel_steps` are of a default decode."""

    container: Container
    size: int
    models: tuple[ModelInfo, ...]
    steps: int | None
    pixel_steps: int | None
    within_limits: bool


class Door:
    """Decides by a look at an upload what becomes of it; reads headers in threads of its own.

    Args:
        engine: whose models and speed decide.
        limits: of one request.
        threads: that read and write image files.
        canary: a model that takes a share of the work that names none.
    """

    def __init__(self, engine: EngineView, limits: Limits, threads: int = 2, canary: Canary | None = None) -> None:
        self.engine = engine
        self._canary = canary
        self._limits = limits
        self._threads = anyio.CapacityLimiter(threads)

    def check_open(self) -> None:
        """Raise Draining or NotReady when the engine takes no work; while a worker is replaced, work waits for it."""
        status = self.engine.status()
        if status.draining:
            raise Draining("the service is shutting down")
        if not status.ready and not self.engine.models():
            raise NotReady("the models are still being loaded")

    def check_ready(self) -> None:
        """Raise Draining or NotReady unless work that came now would be done now."""
        self.check_open()
        status = self.engine.status()
        if not status.ready:
            raise NotReady(status.reason)

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the installed models. Raises NotReady until they are known."""
        infos = self.engine.models()
        if not infos:
            raise NotReady("the models are still being loaded")
        return infos

    def generation(self) -> str:
        """What results depend on beside the work: name, codec id and version of every model."""
        models = sorted(self.engine.models(), key=lambda m: m.name)
        return ",".join(f"{m.name}:{m.codec_id}:{m.version}" for m in models)

    def seconds_of(self, work: Work) -> float:
        """Estimate the device seconds of the work alone."""
        return self.engine.seconds_of(work.cost) - self.engine.seconds_of(0)

    async def admit(self, body: bytes, options: Options, seconds_left: float = math.inf) -> Work:
        """Check all that shows without doing the work, before it is kept or waits; `steps=auto` has `seconds_left`.

        Raises:
            ImageError, TooLarge, NotReady: see `service.errors`.
            FileError, UnknownCodec, UnknownModel, InvalidParameter: see `model.errors`.
        """
        if isinstance(options, EncodeOptions):
            return await self._in_thread(partial(self._open_image, body, options, request_id.get()))
        open_file = partial(self._open_file, body, options, seconds_left, request_id.get())
        return open_file() if len(body) <= SMALL_BYTES else await self._in_thread(open_file)

    def _open_image(self, body: bytes, options: EncodeOptions, request: str | None) -> Work:
        """The work of an encode; blocks."""
        digest = hashlib.sha256(body).hexdigest()
        if options.model is None and self._canary is not None:
            models = self.models()
            options = replace(options, model=self._canary.choose(models, next(m for m in models if m.default), digest))
        info = self._named(options.model)
        if info.fixed_rate and options.quality is not None:
            raise InvalidParameter(f"model {info.name!r} has one rate: leave out quality")
        width, height = probe_image(body, max_pixels=self._limits.max_pixels, frame=options.frame)
        _check_canvas(info, width, height)
        rounds = rounds_of(options.effort, info.max_effort)
        sized = options.target_bpp is not None or options.max_bytes is not None
        steps = refinement_steps(rounds, sized=sized)
        self._limits.check_refinement(width * height, steps)
        cost = info.encode_cost(width, height) + info.refinement_cost(width, height, rounds, sized=sized)
        return Work(options, body, digest, width, height, steps=steps, cost=cost, request_id=request)

    def _open_file(self, body: bytes, options: DecodeOptions, seconds_left: float, request: str | None) -> Work:
        """The work of a decode; blocks."""
        container = parse(body, self._limits.max_pixels)
        header = container.header
        frame = frame_of((header.width, header.height), options.region, options.width, options.height, options.fit)
        self._limits.check_size(*frame.size)
        check_output_size(*frame.size, options.format)
        info, digest = self._decoder(header, options.model), hashlib.sha256(body).hexdigest()
        if options.model is None and self._canary is not None:
            fitting = tuple(m for m in self.models() if m.codec_id == info.codec_id)
            options = replace(options, model=self._canary.choose(fitting, info, digest))
            info = self._named(options.model)
        _check_canvas(info, header.width, header.height)
        noiseless = (info.default_gamma if options.gamma is None else options.gamma) == 0
        reduction = frame.reduction(info.reductions) if noiseless else 1
        asked = Decode(header.width, header.height, 1, frame.part(header.width, header.height), noiseless, reduction)
        if options.steps == "auto":
            steps = self._affordable_steps(asked, frame.region.pixels, info, seconds_left)
        else:
            steps = options.steps if options.steps is not None else info.default_steps
        if steps > info.max_steps:
            raise InvalidParameter(f"model {info.name!r} takes 1..{info.max_steps} steps, not {steps}")
        self._limits.check_cost(frame.region.pixels, steps)
        cost = info.decode_cost(replace(asked, steps=steps))
        sides = frame.region.width, frame.region.height
        return Work(options, body, digest, *sides, container, frame, reduction, steps, cost, request)

    async def inspect(self, body: bytes) -> Inspection:
        """Parse and verify a `.cdc` file without decoding it; images over the pixel limit are described as well.

        Raises:
            FileError: see `model.errors`.
            NotReady: the models are not known yet.
        """
        infos, limits = self.models(), self._limits
        container = await self._in_thread(lambda: parse(body))
        header = container.header
        fitting = tuple(m for m in infos if m.codec_id == header.codec_id.hex())
        if not fitting:
            return Inspection(container, len(body), (), None, None, within_limits=False)
        steps = fitting[0].default_steps
        cost = header.pixels * steps
        within = (
            steps <= limits.max_steps
            and header.pixels <= limits.max_pixels
            and fitting[0].takes(header.width, header.height)
            and cost <= limits.max_pixel_steps
        )
        return Inspection(container, len(body), fitting, steps, cost, within)

    def _named(self, name: str | None) -> ModelInfo:
        """Return the model of that name, the default one for None. Raises UnknownModel."""
        for info in self.models():
            if info.name == name or (name is None and info.default):
                return info
        raise UnknownModel(f"no model {name!r} is installed; GET /models lists them")

    def _decoder(self, header: Header, name: str | None) -> ModelInfo:
        """Return the model that decodes a file. Raises UnknownModel, UnknownCodec."""
        codec_id = header.codec_id.hex()
        if name is None:
            fitting = [m for m in self.models() if m.codec_id == codec_id]
            if not fitting:
                raise UnknownCodec(f"no installed model decodes files with the codec id {codec_id}")
            return max(fitting, key=lambda m: m.version)  # as the engine chooses
        info = self._named(name)
        if info.codec_id != codec_id:
            raise UnknownModel(f"model {info.name!r} does not decode files with the codec id {codec_id}")
        return info

    def _affordable_steps(self, asked: Decode, pixels: int, info: ModelInfo, seconds_left: float) -> int:
        """The most steps, 1..the model's own, that fit limits and time; a fifth of the time is left for the rest."""
        most = max(1, min(info.default_steps, self._limits.max_steps, self._limits.max_pixel_steps // pixels))
        costs = ((k, info.decode_cost(replace(asked, steps=k))) for k in range(most, 1, -1))
        return next((k for k, cost in costs if self.engine.seconds_of(cost) <= 0.8 * seconds_left), 1)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread. Whoever is cancelled does not wait for its end."""
        return await anyio.to_thread.run_sync(function, limiter=self._threads, abandon_on_cancel=True)


class Executor(Door):
    """Does the work too, with an engine of its own; the event loop only waits.

    Args:
        pixels: of all images in memory together.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        pixels: Budget,
        metrics: Metrics,
        threads: int = 2,
        canary: Canary | None = None,
    ) -> None:
        super().__init__(engine, limits, threads, canary)
        self._running = engine
        self._pixels = pixels
        self._metrics = metrics

    async def run(self, work: Work, on_progress: OnProgress | None = None) -> Result:
        """Do the work. Cancelling the awaiting task cancels it within one denoising step.

        Raises:
            ImageError, Busy, Draining, NotReady, WorkerFailed: see `service.errors`.
            CorruptStream, TargetUnreachable: see `model.errors`.
        """
        self.check_open()
        start = time.perf_counter()
        answer = 0 if work.frame is None else math.prod(work.frame.size)  # with fit=contain more than is decoded
        with self._pixels.hold(max(work.width * work.height, answer)):
            if isinstance(work.options, EncodeOptions):
                result = await self._encode(work, work.options, on_progress)
            else:
                result = await self._decode(work, work.options, on_progress)
        seconds = time.perf_counter() - start
        self._metrics.observe_work(work.options.operation, result, work.width * work.height, seconds)
        return result

    async def _encode(self, work: Work, options: EncodeOptions, on_progress: OnProgress | None) -> Result:
        request, seconds = await self._in_thread(lambda: self._encode_request(work.body, options))
        found = await self._running.run(request, on_progress)
        data = found.data
        if options.drawing == "refuse" and (found.quality or 0) > LOSSY_QUALITY:
            await self._in_thread(lambda: check_worth(request.pixels, found.quality, len(data)))
        small = len(data) <= SMALL_BYTES
        digest = _sha256(data) if small else await self._in_thread(lambda: _sha256(data))
        said = Metadata(
            found.bpp, found.width, found.height, found.model, found.codec_id, found.quality, target=found.target
        )
        return Result(data, CDC_TYPE, digest, said, {"image": seconds, **found.seconds})

    def _encode_request(self, body: bytes, options: EncodeOptions) -> tuple[EncodeRequest, float]:
        """Read an image; blocks. Returns the seconds it took too."""
        start = time.perf_counter()
        image = read_image(
            body,
            max_pixels=self._limits.max_pixels,
            alpha=options.alpha,
            frame=options.frame,
            metadata=options.metadata,
            colour=options.colour,
        )
        targets = (options.quality, options.target_bpp, options.max_bytes)
        found = EncodeRequest(image.pixels, options.model, *targets, sections_of(image), options.effort)
        return found, time.perf_counter() - start

    async def _decode(self, work: Work, options: DecodeOptions, on_progress: OnProgress | None) -> Result:
        assert work.container is not None
        assert work.frame is not None
        header, frame = work.container.header, work.frame
        request = DecodeRequest(
            work.container,
            options.model,
            work.steps,
            options.gamma,
            options.seed,
            deterministic=options.deterministic,
            previews=options.preview,
            region=frame.part(header.width, header.height),
            reduction=work.reduction,
        )
        try:
            found = await self._running.run(request, on_progress)
        except CorruptStream:
            self._metrics.entropy_failures.labels(header.codec_id.hex()).inc()
            raise
        data, digest, seconds = await self._in_thread(lambda: _image_file(found, work, options))
        said = Metadata(8 * len(work.body) / header.pixels, *frame.size, found.model, found.codec_id)
        said = replace(said, steps=found.steps, gamma=found.gamma, seed=found.seed)
        return Result(data, f"image/{options.format}", digest, said, {"image": seconds, **found.seconds})


def executor_of(settings: Settings, metrics: Metrics, engine: Engine) -> Executor:
    """The executor that the settings describe."""
    pixels = Budget(settings.max_pixels_in_flight, "pixels")
    canary = canary_of(settings)
    return Executor(engine, limits_of(settings), pixels, metrics, settings.image_threads, canary)


def _check_canvas(info: ModelInfo, width: int, height: int) -> None:
    """Raise TooManyPixels when the model cannot take an image of that size."""
    if not info.takes(width, height):
        raise TooManyPixels(
            f"{width}x{height} pixels: model {info.name!r} takes at most {info.max_pixels}, "
            "sides counted in multiples of 64"
        )


def _image_file(found: DecodeResult, work: Work, options: DecodeOptions) -> tuple[bytes, str, float]:
    """Return the image file of a decode, its sha256, and the seconds that took; blocks."""
    start = time.perf_counter()
    assert work.container is not None
    assert work.frame is not None
    data = image_file(
        found.pixels,
        found.sections,
        work.container.header,
        work.frame,
        reduction=work.reduction,
        format=options.format,
        colour=options.colour,
    )
    return data, _sha256(data), time.perf_counter() - start


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
