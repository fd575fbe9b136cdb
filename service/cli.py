"""The command `cdc`.

Exit codes: 0 done, 1 refused or failed (the reason is on standard error), 2 wrong usage, 130 interrupted.
Pictures and files go through standard input and output where `-` is given; all messages go to standard error.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model import cli as model_cli
from model.cli import JsonFlag, read_bytes, report
from model.errors import CodecError
from model.evaluation.command import evaluate
from model.training import command as training
from service.access import command as access
from service.errors import ServiceError
from service.version import __version__

if TYPE_CHECKING:
    from model.codec import Codec
    from model.types import Pixels

app = typer.Typer(
    help="CDC: compress images with a conditional-diffusion codec.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(model_cli.inspect)
app.command()(training.train)
app.add_typer(model_cli.weights, name="weights")
app.add_typer(access.keys, name="keys")
app.add_typer(evaluate, name="evaluate")
bench = typer.Typer(help="Measure speed.", no_args_is_help=True)
app.add_typer(bench, name="bench")

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="An image file; - for standard input.")]
Output = Annotated[str, typer.Argument(metavar="OUT", help="Where to write; - for standard output.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Name of the model.")]
ModelsDir = Annotated[
    Path | None, typer.Option(envvar="CDC_MODELS_DIR", help="Folder of further weights files.", file_okay=False)
]
PrecisionOption = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option(envvar="CDC_PRECISION", help="Arithmetic of the decoder.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps; the model's own default if unset.")]
Gamma = Annotated[float, typer.Option(min=0, max=2, help="Standard deviation of the start noise; 0: deterministic.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the start noise; the file's own if unset.")]
PIXEL_LIMIT = 1 << 32  # the caller's own machine: the format's limit is enough


@app.command()
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
) -> None:
    """Compress an image file into a .cdc file."""
    from model.container import Section, SectionType
    from model.rate_control import pack_to_target
    from service.codec import image_io

    picture = image_io.read_image(
        read_bytes(image),
        max_pixels=PIXEL_LIMIT,
        alpha=alpha,
        frame="first" if first_frame else None,
        metadata=metadata,
    )
    sections = [] if picture.alpha is None else [image_io.pack_alpha(picture.alpha)]
    if picture.exif is not None:
        sections.append(Section(SectionType.EXIF, picture.exif))
    codec = _registry(models_dir).get(model)
    start = time.perf_counter()
    with _spinner("encoding"):
        packed = pack_to_target(
            codec,
            codec.analyse(picture.pixels),
            quality=quality,
            target_bpp=target_bpp,
            max_bytes=max_bytes,
            sections=sections,
        )
    _write(out, packed.data)
    height, width = picture.pixels.shape[:2]
    values = {
        "bytes": len(packed.data),
        "bpp": round(8 * len(packed.data) / (width * height), 4),
        "quality": packed.quality,
        "model": codec.info.name,
        "seconds": round(time.perf_counter() - start, 2),
    }
    report({"width": width, "height": height, **values}, as_json, err=out == "-")


@app.command()
def decode(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A .cdc file; - for standard input.")],
    out: Output,
    steps: Steps = None,
    gamma: Gamma = 0.8,
    seed: Seed = None,
    model: ModelOption = None,
    format: Annotated[Literal["png", "webp", "jpeg"] | None, typer.Option(help="By OUT's ending if unset.")] = None,
    models_dir: ModelsDir = None,
    precision: PrecisionOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Decode a .cdc file into an image file."""
    from model.container import SectionType, parse
    from service.codec import image_io

    container = parse(read_bytes(source))
    codec = _registry(models_dir, precision).for_file(container.header.codec_id, model)
    chosen = format or _format_of(out)
    image_io.check_output_size(container.header.width, container.header.height, chosen)
    start = time.perf_counter()
    unpacked = codec.unpack(container)
    pixels = _decode(codec, unpacked, steps, gamma, seed)
    sections = {s.type: s.data for s in unpacked.sections}
    packed = sections.get(SectionType.ALPHA)
    alpha = None if packed is None else image_io.unpack_alpha(packed, *pixels.shape[1::-1])
    _write(out, image_io.write_image(pixels, alpha, sections.get(SectionType.EXIF), chosen))
    values: dict[str, Any] = {
        "steps": codec.default_steps if steps is None else steps,
        "gamma": gamma,
        "seed": unpacked.seed if seed is None else seed,
        "model": codec.info.name,
        "seconds": round(time.perf_counter() - start, 2),
    }
    report({"width": pixels.shape[1], "height": pixels.shape[0], **values}, as_json, err=out == "-")


@app.command()
def demo(
    image: Annotated[
        str | None, typer.Argument(help="An image file; a portrait that matplotlib carries if unset.")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100)] = 50,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 17,
    gamma: Gamma = 0.8,
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("out"),
    as_json: JsonFlag = False,
) -> None:
    """Round-trip one photograph; print bits per pixel, PSNR, and where the pictures are."""
    from model.evaluation.metrics import psnr
    from model.rate_control import pack_to_target
    from service.codec import image_io

    pixels = image_io.read_image(_sample() if image is None else read_bytes(image), max_pixels=PIXEL_LIMIT).pixels
    codec = _registry(None).get()
    with _spinner("encoding"):
        file = pack_to_target(codec, codec.analyse(pixels), quality=quality).data
    decoded = _decode(codec, codec.unpack(file), steps, gamma, None)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in ("original.png", "demo.cdc", "decoded.png", "both.png")}
    paths["original.png"].write_bytes(image_io.write_image(pixels, None, None, "png"))
    paths["demo.cdc"].write_bytes(file)
    paths["decoded.png"].write_bytes(image_io.write_image(decoded, None, None, "png"))
    both = np.concatenate([pixels, decoded], axis=1)
    paths["both.png"].write_bytes(image_io.write_image(both, None, None, "png"))
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


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; CDC_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; CDC_PORT, else 8000.")] = None,
    root_path: Annotated[
        str | None, typer.Option(help="Path prefix that a proxy takes away, such as /codec; CDC_ROOT_PATH, else none.")
    ] = None,
) -> None:
    """Serve the HTTP API. Everything else is set by CDC_ variables, see the README."""
    from service.api.server import run
    from service.settings import SettingsError

    try:
        given = {"host": host, "port": port, "root_path": root_path}
        run({name: value for name, value in given.items() if value is not None})
    except SettingsError as error:
        typer.echo(f"cdc: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def worker() -> None:
    """Take jobs from Redis (CDC_REDIS_URL) and run them here; one for each machine. Settings are CDC_ variables."""
    import asyncio

    from service.logs import configure_logging
    from service.settings import SettingsError, load_settings
    from service.worker import work

    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        asyncio.run(work(settings))
    except SettingsError as error:
        typer.echo(f"cdc: {error}", err=True)
        raise typer.Exit(1) from None


@bench.command("serve")
def bench_serve(
    out: Annotated[Path | None, typer.Option(help="Where to write the figures as JSON.")] = None,
    quick: Annotated[bool, typer.Option(help="A few rounds only.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
    precision: PrecisionOption = "auto",
    models_dir: ModelsDir = None,
) -> None:
    """Measure the engine under load, beside the same code running one request at a time."""
    import asyncio
    import json

    from service import bench as load
    from service.engine.messages import RunnerOptions

    options = RunnerOptions(models_dir=models_dir, precision=precision, device=device)
    figures = asyncio.run(load.run(options, quick=quick, say=lambda text: typer.echo(text, err=True)))
    typer.echo(load.table(figures))
    if out is not None:
        out.write_text(json.dumps(figures, indent=1))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command; known errors become one line on standard error and exit code 1."""
    try:
        app()
    except (CodecError, ServiceError, OSError) as error:
        typer.echo(f"cdc: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _registry(folder: Path | None, precision: Literal["auto", "float32", "bfloat16"] = "auto") -> Any:
    from model.registry import Registry

    return Registry(folder, precision)


def _decode(codec: Codec, unpacked: Any, steps: int | None, gamma: float, seed: int | None) -> Pixels:
    """Run all denoising steps with a progress bar on standard error."""
    state = codec.start(unpacked, steps, gamma, seed)
    columns = (TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    console = Console(stderr=True)
    # Where nobody watches, even a bar that leaves nothing behind would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("decoding", total=state.steps)
        while not state.done:
            codec.denoise_step(state)
            progress.advance(task)
    return codec.finish(state)


def _spinner(text: str) -> Any:
    return Console(stderr=True).status(text)


def _write(out: str, data: bytes) -> None:
    if out == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        Path(out).write_bytes(data)


def _format_of(out: str) -> Literal["png", "webp", "jpeg"]:
    endings: dict[str, Literal["png", "webp", "jpeg"]] = {".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
    return endings.get(Path(out).suffix.lower(), "png")


def _sample() -> bytes:
    from matplotlib import get_data_path

    return (Path(get_data_path()) / "sample_data" / "grace_hopper.jpg").read_bytes()


if __name__ == "__main__":
    main()
