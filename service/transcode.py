"""Work on this machine: `cdc encode`, `cdc decode` and `cdc inspect` without a service, and `cdc demo`.

What is wrong with an input is said before torch is imported.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cdc_client.command.backend import Made, Precision
from cdc_client.command.terminal import naming, progress, read_bytes, report
from cdc_client.command.transcode import Gamma, JsonFlag, Steps
from cdc_client.options import DecodeOptions, EncodeOptions
from model.config import DEFAULT_EFFORT, quality_of_rate
from model.container import Header, SectionType, parse, unpack_space
from model.errors import CodecError
from service.errors import ServiceError
from service.extras import needs
from service.framing import frame_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from model.codec import Codec
    from model.types import DecodeState, Latents, Pixels

PIXEL_LIMIT = 1 << 32  # the caller's own machine: the format's limit is enough


class Local:
    """The models of this machine. `quiet`: without a progress bar for each file."""

    failures = (CodecError, ServiceError)

    def __init__(self, models_dir: Path | None, precision: Precision, *, quiet: bool = False) -> None:
        self._models_dir = models_dir
        self._precision: Precision = precision
        self._quiet = quiet
        self._registry: Any = None

    @needs("model", "cdc encode on this machine")
    def encode(self, image: bytes, options: EncodeOptions) -> Made:
        """Compress an image file. Raises CodecError, ServiceError."""
        from service.images.drawings import check_worth
        from service.images.reading import read_image
        from service.images.sections import sections_of

        frame: Literal["first"] | None = "first" if options.get("first_frame") else None
        source = read_image(
            image,
            max_pixels=PIXEL_LIMIT,
            alpha=options.get("alpha", "keep"),
            frame=frame,
            metadata=options.get("metadata", "strip"),
            colour=options.get("colour", "keep"),
        )
        from model.rate_control import pack_to_target  # torch, from here on

        codec = self._models().get(options.get("model"))
        start = time.perf_counter()
        latents = analyse(codec, source.pixels, self._quiet)
        effort = options.get("effort", DEFAULT_EFFORT)
        with _bar(self._quiet, "packing" if effort == DEFAULT_EFFORT else "refining"):
            packed = pack_to_target(
                codec,
                latents,
                quality=options.get("quality"),
                target_bpp=options.get("target_bpp"),
                max_bytes=options.get("max_bytes"),
                sections=sections_of(source),
                effort=effort,
            )
        if options.get("drawing", "refuse") == "refuse":
            check_worth(source.pixels, packed.quality, len(packed.data))
        height, width = source.pixels.shape[:2]
        values = {
            "width": width,
            "height": height,
            "bytes": len(packed.data),
            "bpp": round(8 * len(packed.data) / (width * height), 4),
            "quality": packed.quality,
            **({"target": packed.target} if packed.target else {}),
            "model": codec.info.name,
            "seconds": round(time.perf_counter() - start, 2),
        }
        return Made(packed.data, values)

    @needs("model", "cdc decode on this machine")
    def decode(self, file: bytes, options: DecodeOptions) -> Made:
        """Decode a `.cdc` file. Raises CodecError, ServiceError."""
        from service.images.sections import image_file
        from service.images.writing import check_output_size

        container = parse(file)
        format = options.get("format", "png")
        header = container.header
        frame = frame_of(
            (header.width, header.height),
            options.get("region"),
            options.get("width"),
            options.get("height"),
            options.get("fit", "inside"),
        )
        check_output_size(*frame.size, format)
        if (space := container.section(SectionType.COLOUR)) is not None:
            unpack_space(space)  # what is damaged is said before the work
        codec = self._models().for_file(container.header.codec_id, options.get("model"))
        start = time.perf_counter()
        with _bar(self._quiet, "reading"):
            unpacked = codec.unpack(container)
        steps, gamma, seed = options.get("steps"), options.get("gamma"), options.get("seed")
        assert steps != "auto"  # of a service alone
        reduction = 1 if (codec.default_gamma if gamma is None else gamma) else frame.reduction(codec.reductions)
        region = frame.part(header.width, header.height)
        state = codec.start(unpacked, steps, gamma, seed, region=region, reduction=reduction)
        pixels = synthesise(codec, state, self._quiet)
        colour = options.get("colour", "keep")
        data = image_file(pixels, unpacked.sections, header, frame, reduction=reduction, format=format, colour=colour)
        values: dict[str, Any] = {
            "width": frame.size[0],
            "height": frame.size[1],
            "steps": codec.default_steps if steps is None else steps,
            "gamma": codec.default_gamma if gamma is None else gamma,
            "seed": unpacked.seed if seed is None else seed,
            "model": codec.info.name,
            "seconds": round(time.perf_counter() - start, 2),
        }
        return Made(data, values)

    def inspect(self, file: bytes) -> dict[str, Any]:
        """Say what a `.cdc` file is. Raises CodecError."""
        container = parse(file)
        header = container.header
        names = {int(t): t.name.lower() for t in SectionType}
        return {
            "width": header.width,
            "height": header.height,
            "codec_id": header.codec_id.hex(),
            "rate": header.rate,
            "quality": None if self._fixed_rate(header) else quality_of_rate(header.rate),
            "bytes": len(file),
            "bpp": round(8 * len(file) / header.pixels, 4),
            "sections": {names.get(s.type, f"type {s.type}"): len(s.data) for s in container.sections},
        }

    def _fixed_rate(self, header: Header) -> bool:
        """True where an installed model of the file has a single rate, whose byte is 0, and so no quality."""
        if header.rate:
            return False
        from model.architecture import architecture_of

        own = [i for i in self._models().infos() if i.codec_id == header.codec_id.hex()]
        return any(architecture_of(i.architecture).fixed_rate for i in own)

    @needs("model", "cdc inspect --symbols")
    def symbols(self, file: bytes) -> str:
        """SHA-256 over the symbols. Raises CodecError."""
        container = parse(file)
        quantised = self._models().for_file(container.header.codec_id).unpack(container).quantised
        symbols = (quantised.hyper, quantised.latent)
        return hashlib.sha256(b"".join(s.astype("<i4").tobytes() for s in symbols)).hexdigest()

    def close(self) -> None:
        """Forget the models."""
        self._registry = None

    def _models(self) -> Any:
        if self._registry is None:
            self._registry = registry_of(self._models_dir, self._precision)
        return self._registry


def demo(
    image: Annotated[
        str | None, typer.Argument(help="An image file; a portrait that matplotlib carries if unset.")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100)] = 50,
    steps: Steps = None,
    gamma: Gamma = None,
    folder: Annotated[Path, typer.Option(help="Where the images go.")] = Path("out"),
    as_json: JsonFlag = False,
) -> None:
    """Round-trip one photograph; print bits per pixel, PSNR, and where the images are."""
    import numpy as np

    from service.images.reading import read_image
    from service.images.writing import write_image

    data = _sample() if image is None else read_bytes(image)
    with naming(image or "the sample", CodecError, ServiceError):
        pixels = read_image(data, max_pixels=PIXEL_LIMIT).pixels
    folder.mkdir(parents=True, exist_ok=True)

    from model.distortion import psnr
    from model.rate_control import pack_to_target

    codec = registry_of(None).get()
    file = pack_to_target(codec, analyse(codec, pixels), quality=quality).data
    decoded = synthesise(codec, codec.start(codec.unpack(file), steps, gamma))
    paths = {name: folder / name for name in ("original.png", "demo.cdc", "decoded.png", "both.png")}
    paths["original.png"].write_bytes(write_image(pixels, None, None, "png"))
    paths["demo.cdc"].write_bytes(file)
    paths["decoded.png"].write_bytes(write_image(decoded, None, None, "png"))
    both = np.concatenate([pixels, decoded], axis=1)
    paths["both.png"].write_bytes(write_image(both, None, None, "png"))
    values = {
        "picture": f"{pixels.shape[1]}x{pixels.shape[0]}",
        "bytes": len(file),
        "bpp": round(8 * len(file) / (pixels.shape[0] * pixels.shape[1]), 4),
        "psnr_db": round(psnr(pixels, decoded), 2),
        "original": str(paths["original.png"]),
        "file": str(paths["demo.cdc"]),
        "decoded": str(paths["decoded.png"]),
        "side_by_side": str(paths["both.png"]),
    }
    report(values, as_json)


def registry_of(folder: Path | None, precision: Literal["auto", "float32", "bfloat16"] = "auto") -> Any:
    """The models of this package and of a folder. Imports torch."""
    from model.weights.registry import Registry

    return Registry(folder, precision)


def analyse(codec: Codec, pixels: Pixels, quiet: bool = False) -> Latents:
    """Run the encoder tile by tile, with a progress bar."""
    analysis = codec.begin(pixels)
    with _bar(quiet, "encoding", len(analysis.tiles)) as advance:
        for i in range(len(analysis.tiles)):
            codec.analyse_tiles([(analysis, i)])
            advance()
    return analysis.latents


def synthesise(codec: Codec, state: DecodeState, quiet: bool = False) -> Pixels:
    """Run all denoising steps tile by tile, with a progress bar: a step of a large image takes minutes."""
    with _bar(quiet, "decoding", (1 + state.steps) * len(state.tiles)) as advance:
        for i in range(len(state.tiles)):
            codec.condition_tiles([(state, i)])
            advance()
        while not state.done:
            for i in range(len(state.tiles)):
                codec.denoise_tiles([(state, i)])
                advance()
    return codec.finish(state)


def _bar(quiet: bool, text: str, total: int | None = None) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None) if quiet else progress(text, total)


def _sample() -> bytes:
    from matplotlib import get_data_path

    return (Path(get_data_path()) / "sample_data" / "grace_hopper.jpg").read_bytes()
