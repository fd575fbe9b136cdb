"""`cdc encode`, `cdc decode` and `cdc inspect`: their options."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import typer

from cdc_client.command import batch
from cdc_client.command.backend import Backend, Precision, backend_of
from cdc_client.command.terminal import Refused
from cdc_client.options import Colour, DecodeOptions, EncodeOptions, Fit

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILES", help="IN OUT for a single file, `-` for standard input or output; else see -o."),
]
Out = Annotated[
    str | None,
    typer.Option("-o", "--out", help="The folder for any number of files and folders; what is up to date is skipped."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
Url = Annotated[
    str | None, typer.Option("--url", envvar="CDC_URL", help="A service to do the work; else this machine.")
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="CDC_API_KEY", show_envvar=True, help="Key for the service.")
]
Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, max=64, help="Files at the same time, of a service.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line, instead of text.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Name of the model.")]
ModelsDir = Annotated[
    Path | None, typer.Option(envvar="CDC_MODELS_DIR", help="Folder of further weights files.", file_okay=False)
]
PrecisionOption = Annotated[Precision, typer.Option(envvar="CDC_PRECISION", help="Arithmetic of the decoder.")]
MAX_STEPS = 250  # as the default of CDC_MAX_STEPS: more do not pay
Steps = Annotated[
    int | None, typer.Option(min=1, max=MAX_STEPS, help="Denoising steps; the model's own default if unset.")
]
Gamma = Annotated[
    float | None,
    typer.Option(min=0, max=2, help="Standard deviation of the start noise; 0: deterministic; unset: the model's own."),
]
ColourOption = Annotated[Colour, typer.Option(help="Keep a wide colour space that has a name, or convert to sRGB.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the start noise; the file's own if unset.")]


def encode(
    context: typer.Context,
    files: Files,
    out: Out = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="1..100; 50 if no target is given.")] = None,
    target_bpp: Annotated[float | None, typer.Option(help="Bits of the whole file per pixel.")] = None,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="Best quality of at most this many bytes.")] = None,
    effort: Annotated[int, typer.Option(min=1, max=9, help="1: one pass; up to 9: smaller files, longer work.")] = 1,
    model: ModelOption = None,
    alpha: Annotated[Literal["keep", "drop"], typer.Option(help="Keep transparency, or flatten on white.")] = "keep",
    metadata: Annotated[
        Literal["strip", "copyright", "keep"],
        typer.Option(help="copyright: creator, copyright and terms; keep: EXIF without location too."),
    ] = "strip",
    first_frame: Annotated[bool, typer.Option(help="Take the first frame of an animation.")] = False,
    drawing: Annotated[
        Literal["refuse", "allow"],
        typer.Option(help="Refuse what is smaller as lossless WebP than above quality 50, or encode it."),
    ] = "refuse",
    colour: ColourOption = "keep",
    url: Url = None,
    api_key: ApiKey = None,
    jobs: Jobs = 4,
    models_dir: ModelsDir = None,
    as_json: JsonFlag = False,
    force: Force = False,
) -> None:
    """Compress image files into .cdc files: `cdc encode IMAGE OUT`, or `cdc encode FILES... -o FOLDER`."""
    if sum(value is not None for value in (quality, target_bpp, max_bytes)) > 1:
        raise Refused("choose one of --quality, --target-bpp and --max-bytes")
    options: EncodeOptions = {
        "quality": quality,
        "target_bpp": target_bpp,
        "max_bytes": max_bytes,
        "effort": effort,
        "model": model,
        "alpha": alpha,
        "metadata": metadata,
        "first_frame": first_frame,
        "drawing": drawing,
        "colour": colour,
    }
    plan = batch.plan_of(batch.ENCODE, files, out)
    with closing(_backend(context, url, api_key, models_dir, "auto", quiet=not plan.single)) as backend:
        failed = batch.run(plan, lambda data: backend.encode(data, options), backend, _jobs(url, jobs), as_json, force)
    _end(failed)


def decode(
    context: typer.Context,
    files: Files,
    out: Out = None,
    steps: Steps = None,
    gamma: Gamma = None,
    seed: Seed = None,
    model: ModelOption = None,
    format: Annotated[
        Literal["png", "webp", "jpeg"] | None, typer.Option(help="By OUT's ending if unset; png in a folder.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="The part to decode, in pixels; pct:X,Y,W,H in percent.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=1, max=65535, help="Of the image; it is never enlarged.")] = None,
    height: Annotated[int | None, typer.Option(min=1, max=65535, help="Likewise; alone, the width follows.")] = None,
    fit: Annotated[
        Fit, typer.Option(help="With both: as large as fits, padded to exactly that size, or filling it.")
    ] = "inside",
    colour: ColourOption = "keep",
    url: Url = None,
    api_key: ApiKey = None,
    jobs: Jobs = 4,
    models_dir: ModelsDir = None,
    precision: PrecisionOption = "auto",
    as_json: JsonFlag = False,
    force: Force = False,
) -> None:
    """Decode .cdc files into image files: `cdc decode FILE OUT`, or `cdc decode FILES... -o FOLDER`."""
    operation = batch.decode_to(format)
    plan = batch.plan_of(operation, files, out)
    options: DecodeOptions = {
        "steps": steps,
        "gamma": gamma,
        "seed": seed,
        "model": model,
        "format": format or batch.format_of(plan.tasks[0].out if plan.single else operation.ending),
        "region": region,
        "width": width,
        "height": height,
        "fit": fit,
        "colour": colour,
    }
    with closing(_backend(context, url, api_key, models_dir, precision, quiet=not plan.single)) as backend:
        failed = batch.run(plan, lambda data: backend.decode(data, options), backend, _jobs(url, jobs), as_json, force)
    _end(failed)


def inspect(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILES", help=".cdc files and folders; - for standard input.")],
    url: Url = None,
    api_key: ApiKey = None,
    symbols: Annotated[
        bool, typer.Option("--symbols", help="Print the SHA-256 over the symbols instead, a line for each file.")
    ] = False,
    models_dir: ModelsDir = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what .cdc files are, without decoding them; their checksums are verified."""
    with closing(_backend(context, url, api_key, models_dir, "auto", quiet=True)) as backend:
        failed = batch.print_symbols(files, backend) if symbols else batch.inspect(files, backend, as_json)
    _end(failed)


def _backend(
    context: typer.Context,
    url: str | None,
    api_key: str | None,
    models_dir: Path | None,
    precision: Precision,
    *,
    quiet: bool,
) -> Backend:
    """Raises Refused for an option of this machine beside a service; variables of the environment do not count."""
    for name in ("models_dir", "precision"):
        source = context.get_parameter_source(name)
        if url is not None and source is not None and source.name == "COMMANDLINE":
            raise Refused(f"--{name.replace('_', '-')} is for work on this machine, and --url sends it to a service")
    return backend_of(url, api_key, models_dir, precision, quiet)


def _jobs(url: str | None, jobs: int) -> int:
    return 1 if url is None else jobs  # a single decode takes all cores of this machine


def _end(failed: int) -> None:
    if failed:
        raise typer.Exit(1)
