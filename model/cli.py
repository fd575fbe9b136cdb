"""Commands of `cdc` that need the codec's own files alone. `service.cli` mounts them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from model.config import quality_of_rate
from model.container import SectionType, parse
from model.errors import WeightsError

weights = typer.Typer(help="Make and check weights files.", no_args_is_help=True)
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def read_bytes(source: str) -> bytes:
    """Bytes of a file, or of standard input for `-`."""
    return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()


def report(values: dict[str, Any], as_json: bool, *, err: bool = False) -> None:
    """Print a flat record, one `name value` a line, or as JSON."""
    if as_json:
        typer.echo(json.dumps(values), err=err)
        return
    width = max(map(len, values))
    for name, value in values.items():
        typer.echo(f"{name:<{width}}  {value}", err=err)


def inspect(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A .cdc file; - for standard input.")],
    as_json: JsonFlag = False,
) -> None:
    """Say what a .cdc file is, without decoding it; its checksum is verified."""
    data = read_bytes(source)
    container = parse(data)
    header = container.header
    names = {int(t): t.name.lower() for t in SectionType}
    sections = {names.get(s.type, f"type {s.type}"): len(s.data) for s in container.sections}
    values: dict[str, Any] = {
        "width": header.width,
        "height": header.height,
        "codec_id": header.codec_id.hex(),
        "rate": header.rate,
        "quality": quality_of_rate(header.rate),
        "bytes": len(data),
        "bpp": round(8 * len(data) / header.pixels, 4),
        "sections": sections if as_json else ", ".join(f"{k} {v} B" for k, v in sections.items()),
    }
    report(values, as_json)


@weights.command("export")
def export(
    source: Annotated[Path, typer.Argument(help="A safetensors file of float tensors.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="The weights file to write.")],
    name: Annotated[str, typer.Option(help="Name of the model.")] = "cdc-lite",
    version: Annotated[int, typer.Option(min=0, help="Version; the highest one of a codec id decodes.")] = 0,
    provenance: Annotated[str, typer.Option(help="How the weights were made, one sentence.")] = "unstated",
    as_json: JsonFlag = False,
) -> None:
    """Turn float weights into a weights file: fp16 tensors, integer tables, integer scale head, codec id."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from model.checkpoint import export_weights

    try:
        tensors = load_file(source)
    except SafetensorError as error:
        raise WeightsError(f"{source.name}: not a readable safetensors file ({error})") from error
    report(asdict(export_weights(tensors, out, name=name, version=version, provenance=provenance)), as_json)


@weights.command("verify")
def verify(
    source: Annotated[Path, typer.Argument(help="A weights file.", exists=True, dir_okay=False)],
    as_json: JsonFlag = False,
) -> None:
    """Check that a weights file is complete, keeps its bounds, and that its integers are those of its codec id."""
    from model.checkpoint import load_weights

    report(asdict(load_weights(source).info), as_json)
