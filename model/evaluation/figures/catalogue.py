"""The paper's figures by number: what each measures and how it is drawn. docs/evaluation.md lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from model.errors import InvalidParameter

BASELINES = ("jpeg", "webp", "avif", "jpegxl", "jpeg2000", "bpg", "vtm", "mbt2018-mean", "cheng2020-attn")
PERCEPTUAL_AND_DISTORTION = ("fid", "lpips", "dists", "pieapp", "fsim", "ms-ssim", "gmsd", "psnr")


@dataclass(frozen=True)
class Figure:
    """What a figure draws by default; the command line can replace data sets, codecs, modes and metrics.

    Attributes:
        name, title: its number in the paper (or a word of ours), its heading.
        kind: rate panels, details side by side, details over seeds, states along a decode, distortion and perception.
        data, codecs, metrics: names.
        steps, gammas: modes of the models; every combination.
        eps_steps: steps of models of cdc-eps, which need more; 0: those of the others.
        references: names of published curves and points; "all" for every one.
    """

    name: str
    title: str
    kind: Literal["rate", "crops", "seeds", "states", "plane"]
    data: tuple[str, ...] = ("kodak",)
    codecs: tuple[str, ...] = ("models", *BASELINES)
    metrics: tuple[str, ...] = ("psnr", "ms-ssim")
    steps: tuple[int, ...] = (1,)
    gammas: tuple[float, ...] = (0.0,)
    eps_steps: int = 0
    references: tuple[str, ...] = ()
    qualities: tuple[int, ...] = (5, 15, 30, 50, 70, 90)


ALL = ("all",)
PAPER_MODES: dict[str, Any] = {"steps": (1, 17), "gammas": (0.0, 0.8), "eps_steps": 500}
CURVES = ("bpg", "vtm", "av1", "mbt2018-mean", "cheng2020-attn", "elic")
FIGURES = {
    f.name: f
    for f in (
        Figure(
            "kodak",
            "Kodak, real bytes",
            "rate",
            codecs=("cdc-lite", "jpeg", "webp"),
            references=("bpg", "vtm", "mbt2018-mean", "cheng2020-attn"),
        ),
        Figure(
            "2",
            "Rate against perceptual and distortion metrics on DIV2K",
            "rate",
            data=("div2k",),
            metrics=PERCEPTUAL_AND_DISTORTION,
            steps=(1, 17),
            gammas=(0.0, 0.8),
        ),
        Figure(
            "4",
            "Denoising steps, gamma 1",
            "rate",
            codecs=("models",),
            metrics=("lpips", "dists", "pieapp", "gmsd", "ms-ssim", "psnr"),
            steps=(1, 4, 8, 17, 65),
            gammas=(1.0,),
        ),
        Figure(
            "5",
            "The same detail over gamma",
            "crops",
            codecs=("models",),
            steps=(17,),
            gammas=(0.0, 0.4, 0.8, 1.0),
        ),
        Figure(
            "7",
            "Perceptual weight (rho: one model each) on COCO 2017",
            "rate",
            data=("coco2017",),
            codecs=("models",),
            metrics=PERCEPTUAL_AND_DISTORTION,
            steps=(17,),
            gammas=(0.8,),
        ),
        Figure("14", "Decodes of one file with several seeds", "seeds", codecs=("models",), steps=(17,), gammas=(0.8,)),
        Figure(
            "15",
            "States x_n and guesses of x_0 along a decode, without and with start noise",
            "states",
            codecs=("models",),
            steps=(17,),
            gammas=(0.0, 0.8),
        ),
        Figure("16", "All metrics on COCO 2017", "rate", data=("coco2017",), metrics=ALL, **PAPER_MODES),
        Figure("17", "All metrics on Tecnick", "rate", data=("tecnick",), metrics=ALL, **PAPER_MODES),
        Figure("18", "All metrics on Kodak", "rate", metrics=ALL, references=CURVES, **PAPER_MODES),
        Figure("19", "All metrics on DIV2K", "rate", data=("div2k",), metrics=ALL, **PAPER_MODES),
        Figure(
            "plane",
            "Distortion and perception of the same files",
            "plane",
            codecs=("models",),
            metrics=("psnr", "fine-energy"),
            steps=(1, 4, 17),
            gammas=(0.0, 0.25, 0.5, 0.75, 1.0),
            qualities=(10, 30),
        ),
        Figure(
            "crops",
            "The same detail at about the same rate, every codec that can be used here",
            "crops",
            steps=(1, 17),
            gammas=(0.0, 0.8),
        ),
    )
}


def figure_of(name: str) -> Figure:
    """Look one up.

    Raises:
        InvalidParameter: there is no such figure.
    """
    if name not in FIGURES:
        raise InvalidParameter(f"no figure {name!r}; there are {', '.join(FIGURES)}")
    return FIGURES[name]
