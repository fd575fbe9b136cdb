"""`cdc encode`, `cdc decode` and `cdc demo`. What is wrong with input or output is said before torch is imported."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from model.cli import JsonFlag
from model.errors import CodecError
from model.terminal import Refused, check_output, naming, progress, read_bytes, report, write_output
from service.errors import ServiceError

if TYPE_CHECKING:
    from model.codec import Codec
    from model.types import Latents, Pixels, Unpacked

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="An image file; - for standard input.")]
Output = Annotated[str, typer.Argument(metavar="OUT", help="Where to write; - for standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT where it is there already.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Name of the model.")]
ModelsDir = Annotated[
    Path | None, typer.Option(envvar="CDC_MODELS_DIR", help="Folder of further weights files.", file_okay=False)
]
PrecisionOption = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option(envvar="CDC_PRECISION", help="Arithmetic of the decoder.")
]
MAX_STEPS = 250  # as the default of CDC_MAX_STEPS: more do not pay
Steps = Annotated[
    int | None, typer.Option(min=1, max=MAX_STEPS, help="Denoising steps; the model's own default if unset.")
]
Gamma = Annotated[
    float | None,
    typer.Option(min=0, max=2, help="Standard deviation of the start noise; 0: deterministic; unset: the model's own."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the start noise; the file's own if unset.")]
PIXEL_LIMIT = 1 << 32  # the caller's own machine: the format's limit is enough
FORMATS: dict[str, Literal["png", "webp", "jpeg"]] = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
IMAGE_ENDINGS = {*FORMATS, *(".avif", ".bmp", ".gif", ".heic", ".jxl", ".pgm", ".ppm", ".tif", ".tiff")}


def encode(
    image: Image,
    out: Output,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="1..100; 50 if no target is given.")] = None,
    target_bpp: Annotated[float | None, typer.Option(help="Bits of the whole file per pixel.")] = None,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="Best quality of at most this many bytes.")] = None,
    model: ModelOption = None,
    alpha: Annotated[Literal["keep", "drop"], typer.Option(help="Keep transparency, or flatten on white.")] = "keep",
    metadata: Annotated[Literal["strip", "keep"], typer.Option(help="keep: EXIF without location.")] = "strip",
    first_frame: Annotated[bool, typer.Option(help="Take the first frame of an animation.")] = False,
    models_dir: ModelsDir = None,
    as_json: JsonFlag = False,
    force: Force = False,
) -> None:
    """Compress an image file into a .cdc file."""
    from model.container import Section, SectionType
    from service.images.alpha import pack_alpha
    from service.images.reading import read_image

    if sum(value is not None for value in (quality, target_bpp, max_bytes)) > 1:
        raise Refused("choose one of --quality, --target-bpp and --max-bytes")
    if (ending := Path(out).suffix.lower()) in IMAGE_ENDINGS:
        raise Refused(f"{out}: an encode writes a .cdc file, and {ending} is the ending of an image")
    check_output(out, source=image, force=force)
    data = read_bytes(image)
    with naming(image, CodecError, ServiceError):
        frame: Literal["first"] | None = "first" if first_frame else None
        source_image = read_image(data, max_pixels=PIXEL_LIMIT, alpha=alpha, frame=frame, metadata=metadata)
    sections = [] if source_image.alpha is None else [pack_alpha(source_image.alpha)]
    if source_image.exif is not None:
        sections.append(Section(SectionType.EXIF, source_image.exif))

    from model.rate_control import pack_to_target  # torch, from here on

    codec = registry_of(models_dir).get(model)
    start = time.perf_counter()
    latents = _analyse(codec, source_image.pixels)
    with progress("packing"):
        packed = pack_to_target(
            codec, latents, quality=quality, target_bpp=target_bpp, max_bytes=max_bytes, sections=sections
        )
    write_output(out, packed.data)
    height, width = source_image.pixels.shape[:2]
    values = {
        "bytes": len(packed.data),
        "bpp": round(8 * len(packed.data) / (width * height), 4),
        "quality": packed.quality,
        "model": codec.info.name,
        "seconds": round(time.perf_counter() - start, 2),
    }
    report({"width": width, "height": height, **values}, as_json, err=out == "-")


def decode(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A .cdc file; - for standard input.")],
    out: Output,
    steps: Steps = None,
    gamma: Gamma = None,
    seed: Seed = None,
    model: ModelOption = None,
    format: Annotated[Literal["png", "webp", "jpeg"] | None, typer.Option(help="By OUT's ending if unset.")] = None,
    models_dir: ModelsDir = None,
    precision: PrecisionOption = "auto",
    as_json: JsonFlag = False,
    force: Force = False,
) -> None:
    """Decode a .cdc file into an image file."""
    from model.container import SectionType, parse
    from service.images.alpha import unpack_alpha
    from service.images.writing import check_output_size, write_image

    check_output(out, source=source, force=force, endings=() if format else tuple(FORMATS))
    chosen = format or FORMATS.get(Path(out).suffix.lower(), "png")
    data = read_bytes(source)
    with naming(source, CodecError):
        container = parse(data)
        check_output_size(container.header.width, container.header.height, chosen)
    codec = registry_of(models_dir, precision).for_file(container.header.codec_id, model)
    start = time.perf_counter()
    with progress("reading"), naming(source, CodecError):
        unpacked = codec.unpack(container)
    pixels = _decode(codec, unpacked, steps, gamma, seed)
    sections = {s.type: s.data for s in unpacked.sections}
    packed = sections.get(SectionType.ALPHA)
    alpha = None if packed is None else unpack_alpha(packed, *pixels.shape[1::-1])
    write_output(out, write_image(pixels, alpha, sections.get(SectionType.EXIF), chosen))
    values: dict[str, Any] = {
        "steps": codec.default_steps if steps is None else steps,
        "gamma": codec.default_gamma if gamma is None else gamma,
        "seed": unpacked.seed if seed is None else seed,
        "model": codec.info.name,
        "seconds": round(time.perf_counter() - start, 2),
    }
    report({"width": pixels.shape[1], "height": pixels.shape[0], **values}, as_json, err=out == "-")


def demo(
    image: Annotated[
        str | None, typer.Argument(help="An image file; a portrait that matplotlib carries if unset.")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100)] = 50,
    steps: Annotated[int, typer.Option(min=1, max=MAX_STEPS, help="Denoising steps.")] = 17,
    gamma: Gamma = None,
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("out"),
    as_json: JsonFlag = False,
) -> None:
    """Round-trip one photograph; print bits per pixel, PSNR, and where the pictures are."""
    import numpy as np

    from service.images.reading import read_image
    from service.images.writing import write_image

    data = _sample() if image is None else read_bytes(image)
    with naming(image or "the sample", CodecError, ServiceError):
        pixels = read_image(data, max_pixels=PIXEL_LIMIT).pixels
    folder.mkdir(parents=True, exist_ok=True)

    from model.evaluation.metrics import psnr
    from model.rate_control import pack_to_target

    codec = registry_of(None).get()
    file = pack_to_target(codec, _analyse(codec, pixels), quality=quality).data
    decoded = _decode(codec, codec.unpack(file), steps, gamma, None)
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
    from model.registry import Registry

    return Registry(folder, precision)


def _analyse(codec: Codec, pixels: Pixels) -> Latents:
    """Run the encoder tile by tile, with a progress bar."""
    analysis = codec.begin(pixels)
    with progress("encoding", len(analysis.tiles)) as advance:
        for i in range(len(analysis.tiles)):
            codec.analyse_tiles([(analysis, i)])
            advance()
    return analysis.latents


def _decode(codec: Codec, unpacked: Unpacked, steps: int | None, gamma: float | None, seed: int | None) -> Pixels:
    """Run all denoising steps tile by tile, with a progress bar: a step of a large picture takes minutes."""
    state = codec.start(unpacked, steps, gamma, seed)
    with progress("decoding", (1 + state.steps) * len(state.tiles)) as advance:
        for i in range(len(state.tiles)):
            codec.condition_tiles([(state, i)])
            advance()
        while not state.done:
            for i in range(len(state.tiles)):
                codec.denoise_tiles([(state, i)])
                advance()
    return codec.finish(state)


def _sample() -> bytes:
    from matplotlib import get_data_path

    return (Path(get_data_path()) / "sample_data" / "grace_hopper.jpg").read_bytes()
