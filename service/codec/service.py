"""The codec service: image bytes to `.cdc` bytes and back, through the engine. Knows no HTTP.

encode   image file -> limits -> pixels, alpha, EXIF -> engine -> .cdc file
decode   .cdc file -> limits -> engine -> pixels, alpha, EXIF -> image file
inspect  .cdc file -> header, sections, what a decode would cost
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import anyio
import anyio.to_thread

from model.container import Container, Header, Section, SectionType, parse, read_header
from model.errors import CorruptStream, InvalidParameter, UnknownCodec, UnknownModel
from service.codec.limits import Budget, Limits
from service.engine.job import DecodeRequest, DecodeResult, EncodeRequest, EncodeResult, Engine, ModelInfo, OnProgress
from service.errors import Draining, NotReady, TooManyPixels
from service.images.alpha import pack_alpha, unpack_alpha
from service.images.reading import probe_image, read_image
from service.images.writing import Format, check_output_size, write_image
from service.metrics import Metrics

T = TypeVar("T")
Seconds = dict[str, float]


@dataclass(frozen=True)
class EncodeOptions:
    """How to encode. At most one of `quality`, `target_bpp`, `max_bytes`; ranges as in `EncodeRequest`."""

    quality: int | None = None
    target_bpp: float | None = None
    max_bytes: int | None = None
    model: str | None = None
    alpha: Literal["keep", "drop"] = "keep"
    metadata: Literal["strip", "keep"] = "strip"
    frame: Literal["first"] | None = None


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode; ranges as in `DecodeRequest`.

    With steps "auto" the most steps, up to the model's own, that the engine can afford within `seconds_left`.
    """

    steps: int | Literal["auto"] | None = None
    gamma: float | None = None
    seed: int | None = None
    model: str | None = None
    format: Format = "png"
    deterministic: bool = False
    previews: bool = False
    seconds_left: float = math.inf


@dataclass(frozen=True)
class Encoded:
    """An answer to `encode`: the engine's result, the sha256 of the file in hexadecimal, seconds by stage."""

    result: EncodeResult
    digest: str
    seconds: Seconds


@dataclass(frozen=True)
class Decoded:
    """An answer to `decode`: the image file, its sha256 in hexadecimal, the engine's result, seconds by stage."""

    data: bytes
    digest: str
    result: DecodeResult
    seconds: Seconds


@dataclass(frozen=True)
class Inspection:
    """What a file says of itself, and the models that decode it. `steps` and `pixel_steps` are of a default decode."""

    container: Container
    size: int
    models: tuple[ModelInfo, ...]
    steps: int | None
    pixel_steps: int | None
    within_limits: bool


class CodecService:
    """Runs image coding in its own worker threads and the codec in the engine; the event loop only waits.

    Args:
        engine: where the codec runs.
        limits: of one request.
        pixel_budget: of all requests together; holds the pixels of an image while it is in memory.
        image_threads: threads for reading and writing image files.
    """

    def __init__(
        self, engine: Engine, limits: Limits, pixel_budget: Budget, metrics: Metrics, image_threads: int = 2
    ) -> None:
        self.engine = engine
        self.limits = limits
        self._pixels = pixel_budget
        self._metrics = metrics
        self._limiter = anyio.CapacityLimiter(image_threads)

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

    async def encode(self, data: bytes, options: EncodeOptions) -> Encoded:
        """Encode an image file.

        Raises:
            ImageError, TooLarge, Busy, Draining, NotReady: see `service.errors`.
            UnknownModel, TargetUnreachable, InvalidParameter: see `model.errors`.
        """
        self.check_open()
        info = self._encoder(options)
        width, height = await self._in_thread(lambda: self._probe(data, options, info))
        seconds: Seconds = {}
        with self._pixels.hold(width * height):
            request = await self._in_thread(lambda: self._encode_request(data, options), seconds)
            result = await self.engine.encode(request)
        digest = await self._in_thread(lambda: hashlib.sha256(result.data).hexdigest())
        self._metrics.bpp.observe(result.bpp)
        self._metrics.pixels.observe(width * height)
        return Encoded(result, digest, {**seconds, **result.seconds})

    async def decode(self, data: bytes, options: DecodeOptions, on_progress: OnProgress | None = None) -> Decoded:
        """Decode a `.cdc` file into an image file.

        Raises:
            FileError, UnknownCodec, UnknownModel, InvalidParameter: see `model.errors`.
            TooLarge, Busy, Draining, NotReady: see `service.errors`.
        """
        self.check_open()
        header, _, steps = self._check_decode(data, options)
        seconds: Seconds = {}
        with self._pixels.hold(header.pixels):
            request = DecodeRequest(
                data,
                options.model,
                steps,
                options.gamma,
                options.seed,
                self.limits.max_pixels,
                options.deterministic,
                options.previews,
            )
            try:
                result = await self.engine.decode(request, on_progress)
            except CorruptStream:
                self._metrics.entropy_failures.inc()
                raise
            image, digest = await self._in_thread(lambda: _image_file(result, options.format), seconds)
        self._metrics.pixels.observe(header.pixels)
        self._metrics.steps.observe(result.steps)
        return Decoded(image, digest, result, {**seconds, **result.seconds})

    async def price_encode(self, data: bytes, options: EncodeOptions) -> float:
        """Device work of an encode, in pixels of one denoising step, by the image's header; raises as `encode` does."""
        info = self._encoder(options)
        width, height = await self._in_thread(lambda: self._probe(data, options, info))
        return info.encode_cost(width, height)

    async def price_decode(self, data: bytes, options: DecodeOptions) -> float:
        """Device work of a decode; raises as `decode` does for all that shows before symbols are decoded."""
        header, info, steps = self._check_decode(data, options)
        await self._in_thread(lambda: parse(data))
        return info.decode_cost(header.width, header.height, steps)

    async def inspect(self, data: bytes) -> Inspection:
        """Parse and verify a `.cdc` file without decoding it; images over the pixel limit are described as well.

        Raises:
            FileError: see `model.errors`.
            NotReady: the models are not known yet.
        """
        infos = self.models()
        container = await self._in_thread(lambda: parse(data))
        header = container.header
        fitting = tuple(m for m in infos if m.codec_id == header.codec_id.hex())
        steps = fitting[0].default_steps if fitting else None
        cost = header.pixels * steps if steps is not None else None
        limits = self.limits
        within = (
            steps is not None
            and steps <= limits.max_steps
            and header.pixels <= limits.max_pixels
            and fitting[0].takes(header.width, header.height)
            and header.pixels * steps <= limits.max_pixel_steps
        )
        return Inspection(container, len(data), fitting, steps, cost, within)

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the installed models. Raises NotReady until they are known."""
        infos = self.engine.models()
        if not infos:
            raise NotReady("the models are still being loaded")
        return infos

    def _named(self, name: str | None) -> ModelInfo:
        """Return the model of that name, the default one for None. Raises UnknownModel."""
        for info in self.models():
            if info.name == name or (name is None and info.default):
                return info
        raise UnknownModel(f"no model {name!r} is installed; GET /models lists them")

    def _encoder(self, options: EncodeOptions) -> ModelInfo:
        """The model of an encode. Raises UnknownModel, InvalidParameter."""
        info = self._named(options.model)
        if info.one_rate and options.quality is not None:
            raise InvalidParameter(f"model {info.name!r} has one rate: leave out quality")
        return info

    def _probe(self, data: bytes, options: EncodeOptions, info: ModelInfo) -> tuple[int, int]:
        """Width and height by the header of an image that may be encoded; blocks. Raises ImageError, TooManyPixels."""
        width, height = probe_image(data, max_pixels=self.limits.max_pixels, frame=options.frame)
        _check_canvas(info, width, height)
        return width, height

    def _encode_request(self, data: bytes, options: EncodeOptions) -> EncodeRequest:
        image = read_image(
            data,
            max_pixels=self.limits.max_pixels,
            alpha=options.alpha,
            frame=options.frame,
            metadata=options.metadata,
        )
        sections: list[Section] = []
        if image.alpha is not None:
            sections.append(pack_alpha(image.alpha))
        if image.exif is not None:
            sections.append(Section(SectionType.EXIF, image.exif))
        return EncodeRequest(
            image.pixels,
            options.model,
            options.quality,
            options.target_bpp,
            options.max_bytes,
            tuple(sections),
        )

    def _check_decode(self, data: bytes, options: DecodeOptions) -> tuple[Header, ModelInfo, int]:
        """Refuse by the header alone what cannot or may not be decoded; return it, the model and the steps."""
        header, _ = read_header(data)
        self.limits.check_pixels(header.width, header.height)
        check_output_size(header.width, header.height, options.format)
        codec_id = header.codec_id.hex()
        if options.model is not None:
            info = self._named(options.model)
            if info.codec_id != codec_id:
                raise UnknownModel(f"model {info.name!r} does not decode files with the codec id {codec_id}")
        else:
            fitting = [m for m in self.models() if m.codec_id == codec_id]
            if not fitting:
                raise UnknownCodec(f"no installed model decodes files with the codec id {codec_id}")
            info = fitting[0]
        _check_canvas(info, header.width, header.height)
        if options.steps == "auto":
            steps = self._affordable_steps(header, info, options.seconds_left)
        else:
            steps = options.steps if options.steps is not None else info.default_steps
        if steps > info.max_steps:
            raise InvalidParameter(f"model {info.name!r} takes 1..{info.max_steps} steps, not {steps}")
        self.limits.check_cost(header.pixels, steps)
        return header, info, steps

    def _affordable_steps(self, header: Header, info: ModelInfo, seconds_left: float) -> int:
        """The most steps, 1..the model's own, that fit limits and time; a fifth of the time is left for the rest."""
        most = max(1, min(info.default_steps, self.limits.max_steps, self.limits.max_pixel_steps // header.pixels))
        costs = ((k, info.decode_cost(header.width, header.height, k)) for k in range(most, 1, -1))
        return next((k for k, cost in costs if self.engine.seconds_of(cost) <= 0.8 * seconds_left), 1)

    async def _in_thread(self, function: Callable[[], T], seconds: Seconds | None = None) -> T:
        """Run `function` in a thread; with `seconds`, note under "image" how long it took, without its wait for one."""

        def run() -> T:
            start = time.perf_counter()
            try:
                return function()
            finally:
                if seconds is not None:
                    seconds["image"] = time.perf_counter() - start

        return await anyio.to_thread.run_sync(run, limiter=self._limiter)


def _check_canvas(info: ModelInfo, width: int, height: int) -> None:
    """Raise TooManyPixels when the model cannot take an image of that size."""
    if not info.takes(width, height):
        raise TooManyPixels(
            f"{width}x{height} pixels: model {info.name!r} takes at most {info.max_pixels}, "
            "sides counted in multiples of 64"
        )


def _image_file(result: DecodeResult, format: Format) -> tuple[bytes, str]:
    """Return the image file of a decode and its sha256."""
    sections = {s.type: s.data for s in result.sections}
    height, width = result.pixels.shape[:2]
    packed = sections.get(SectionType.ALPHA)
    alpha = None if packed is None else unpack_alpha(packed, width, height)
    data = write_image(result.pixels, alpha, sections.get(SectionType.EXIF), format)
    return data, hashlib.sha256(data).hexdigest()
