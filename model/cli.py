"""`cdc weights`: make, fetch and check weights files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from cdc_client.command.terminal import check_output, naming, report
from cdc_client.command.transcode import JsonFlag
from model.errors import CodecError, WeightsError

weights = typer.Typer(help="Make and check weights files.", no_args_is_help=True)
VariantOption = Annotated[Literal["x", "eps"] | None, typer.Option(help="Checked against the shapes if given.")]
MeansOption = Annotated[
    Literal["fine", "exact"],
    typer.Option(
        help="fine: means rounded to 1/16; exact: float means, for the symbols and images of the authors' own code."
    ),
]
RhoOption = Annotated[float | None, typer.Option(min=0, max=1, help="Weight of LPIPS in training, for the record.")]


@weights.command("export")
def export(
    source: Annotated[
        Path, typer.Argument(help="The folder of a training run, or a safetensors file of float tensors.", exists=True)
    ],
    out: Annotated[Path, typer.Argument(help="The weights file to write; with --onnx a folder.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; that of its architecture if unset.")] = None,
    version: Annotated[int, typer.Option(min=0, help="Version; the highest one of a codec id decodes.")] = 0,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Of a weights file: write what decoders without torch need (extra `onnx`).")
    ] = False,
    architecture: Annotated[
        Literal["cdc-lite", "cdc-x", "cdc-eps"] | None,
        typer.Option(help="A run's own, else cdc-lite, if unset."),
    ] = None,
    provenance: Annotated[
        str | None, typer.Option(help="How the weights were made, one sentence; a run's own record if unset.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn float weights into a weights file: fp16 tensors, integer tables, integer hyper-decoder, codec id."""
    if onnx:
        from model.weights.decoder_export import export_decoder

        report({n: f["bytes"] for n, f in export_decoder(source, out)["files"].items()}, as_json)
        return
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_output(str(out), source=str(source), force=True)
    from model.training import snapshot
    from model.weights.files import export_weights

    family: str | None = architecture
    if source.is_dir():
        provenance = provenance or snapshot.provenance(source)
        family = family or snapshot.recorded(source)["architecture"]
        source = source / snapshot.WEIGHTS
    family = family or "cdc-lite"
    try:
        tensors = load_file(source)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{source.name}: not a readable safetensors file ({error})") from error
    info = export_weights(
        tensors,
        out,
        name=name or family,
        version=version,
        provenance=provenance or "unstated",
        architecture=family,
    )
    report(asdict(info), as_json)


@weights.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A checkpoint as the authors published it.", exists=True)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The weights file to write.")],
    variant: VariantOption = None,
    rho: RhoOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; cdc-x or cdc-eps if unset.")] = None,
    version: Annotated[int, typer.Option(min=0, help="Version; the highest one of a name is used.")] = 0,
    means: MeansOption = "fine",
    as_json: JsonFlag = False,
) -> None:
    """Turn a published checkpoint of cdc-x or cdc-eps into a weights file; its sizes are read off its shapes."""
    check_output(str(out), source=str(source), force=True)
    from model.weights.published import import_checkpoint

    info = import_checkpoint(source, out, variant=variant, rho=rho, name=name, version=version, exact=means == "exact")
    report(asdict(info), as_json)


@weights.command("pull")
def pull(
    file: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of a file in the repository; unset lists them.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The weights file to write.")] = None,
    repository: Annotated[str, typer.Option("--from", help="A name in model/weights/hub.py.")] = "paper",
    variant: VariantOption = None,
    rho: RhoOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; cdc-x or cdc-eps if unset.")] = None,
    means: MeansOption = "fine",
    folder: Annotated[
        Path | None, typer.Option(help="Where downloads are kept; ~/.cache/cdc/checkpoints if unset.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch a published checkpoint from the hub (HF_ENDPOINT), check its SHA-256 and import it."""
    from model.weights import hub
    from model.weights.published import import_checkpoint

    if file is None or out is None:
        listing = {f.name: f"{f.size} B" for f in hub.list_files(repository)}
        report(listing or {"files": "none"}, as_json)
        return
    check_output(str(out), source=file, force=True)
    fetched = hub.fetch(repository, file, folder)
    info = import_checkpoint(
        fetched.path,
        out,
        variant=variant,
        rho=rho,
        name=name,
        origin=fetched.origin,
        sha256=fetched.sha256,
        exact=means == "exact",
    )
    report(asdict(info), as_json)


@weights.command("heads")
def heads(
    source: Annotated[Path, typer.Argument(help="A weights file of cdc-lite.", exists=True, dir_okay=False)],
    data: Annotated[list[Path], typer.Option(help="Folder of images or .tar shard; may be repeated.")],
    images: Annotated[int, typer.Option(min=1, help="Images to fit to.")] = 64,
    as_json: JsonFlag = False,
) -> None:
    """Fit the linear layers that decode at 1/2 and 1/4 of the size, and write them beside the weights file."""
    from model.codec import Codec
    from model.training.heads import fit_heads
    from model.weights.files import load_weights
    from model.weights.heads import save_heads

    with naming(str(source), CodecError):
        codec = Codec(load_weights(source), "float32")
        path = save_heads(source, codec.networks, fit_heads(codec, data, images))
    report({"heads": str(path), "bytes": path.stat().st_size}, as_json)


@weights.command("strength")
def strength(
    source: Annotated[Path, typer.Argument(help="A weights file of cdc-lite.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="The weights file to write; it may be the same.")],
    data: Annotated[list[Path], typer.Option(help="Folder of images or .tar shard; may be repeated.")],
    energy: Annotated[float, typer.Option(min=0.1, max=2, help="Share of the original's fine energy.")] = 0.9,
    images: Annotated[int, typer.Option(min=1, max=1000, help="Images to fit to.")] = 32,
    as_json: JsonFlag = False,
) -> None:
    """Set the size of what gamma 1 adds at each rate, by the energy of the finest octave in its images."""
    from safetensors.torch import load_file

    from model.codec import Codec
    from model.training.strength import fit_strength
    from model.weights.files import export_weights, load_weights

    if out != source:
        check_output(str(out), source=str(source), force=True)
    with naming(str(source), CodecError):
        codec = Codec(load_weights(source), "float32")
        tensors, own = load_file(source), codec.info
        fitted = fit_strength(codec, data, images, energy)
        provenance = f"{own.provenance}; gamma 1 set to {energy:g} of the fine energy of {images} images"
        export_weights(
            tensors | {"log_residual": fitted}, out, name=own.name, version=own.version, provenance=provenance
        )
    factors = (fitted - tensors["log_residual"]).exp().flatten().tolist()
    report({"weights": str(out), "factors": [round(factor, 3) for factor in factors]}, as_json)


@weights.command("verify")
def verify(
    source: Annotated[Path, typer.Argument(help="A weights file.", exists=True, dir_okay=False)],
    as_json: JsonFlag = False,
) -> None:
    """Check that a weights file is complete, keeps its bounds, and that its integers are those of its codec id."""
    from model.weights.files import load_weights

    report(asdict(load_weights(source).info), as_json)
