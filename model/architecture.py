"""The families of networks that the codec can run, and what differs between them beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model.config import DEFAULT_GAMMA
from model.diffusion.schedule import Schedule, cosine_schedule, linear_schedule
from model.entropy.entropy_model import RDO
from model.errors import WeightsError
from model.networks.family import Family
from model.networks.lite import CDCLite, LiteConfig
from model.networks.paper import CDCPaper, PaperConfig
from model.tiling import Tiling

WHOLE_CANVAS_PIXELS = 1 << 22  # 2048x2048: what a denoiser with global attention takes (docs/benchmarks.md: memory)


@dataclass(frozen=True)
class Architecture:
    """A family of networks.

    Attributes:
        name: as in a weights file.
        networks: makes its networks of the sizes that float tensors have; raises WeightsError.
        schedule: makes its training schedule.
        times: indices of a decode, noisiest first, and the schedule's length -> the denoiser's time inputs.
        default_steps: steps of a decode that asks for none, in library, service, command, client and page alike: 1
            where more bring nothing an eye can see.
        silent: scale indices below it are not coded: their symbols are zero.
        filters: of the prior of z.
        default_gamma: strength of the start noise of a decode that asks for none.
        tiling: tiles of encoder and decoder.
        fixed_rate: True where a checkpoint has a single rate: the rate byte is 0.
        whole_canvas: True where the denoiser must see the whole canvas at once, padded to multiples of 64 exactly.
        max_pixels: largest canvas, None for no limit.
        worth: squared error in quantisation steps that a saved bit is worth; 0: symbols are rounded, not chosen.
        step_cost: multiply-adds of a denoising step per pixel, relative to cdc-lite's.
        decode_bytes, encode_bytes: memory per pixel while an image is decoded or encoded.
    """

    name: str
    networks: Callable[[Mapping[str, Tensor]], Family]
    schedule: Callable[[], Schedule]
    times: Callable[[tuple[int, ...], int], list[float]]
    default_steps: int
    silent: int = 0
    filters: tuple[int, ...] = (3, 3, 3, 3)
    default_gamma: float = DEFAULT_GAMMA
    tiling: Tiling = field(default_factory=Tiling)
    fixed_rate: bool = True
    whole_canvas: bool = True
    max_pixels: int | None = WHOLE_CANVAS_PIXELS
    worth: float = 0.0
    step_cost: float = 48.0  # some 600 GFLOP at 768x512 against 12.8
    decode_bytes: int = 3000
    encode_bytes: int = 900


def _next_share(indices: tuple[int, ...], length: int) -> list[float]:
    return [(index + 1) / length for index in indices]


def _share(indices: tuple[int, ...], length: int) -> list[float]:
    return [index / length for index in indices]


def _position(indices: tuple[int, ...], length: int) -> list[float]:
    """k / K: the position in the decode's own steps, as the published cdc-eps samples."""
    return [k / len(indices) for k in range(len(indices) - 1, -1, -1)]


def _lite(tensors: Mapping[str, Tensor]) -> CDCLite:
    return CDCLite(LiteConfig.of_tensors(tensors))


def _paper(tensors: Mapping[str, Tensor]) -> CDCPaper:
    with torch.device("meta"):  # 54 million weights need no initial values
        return CDCPaper(PaperConfig.of_tensors(tensors))


# Receptive radii: 24 (analysis before the rate's factor; the rest sees whole canvases) and 112 (synthesis). What is
# left out at 64 is below 4e-4 of the range of 2 (docs/benchmarks.md): 7 in 100,000 values differ, by a level.
LITE_TILING = Tiling(margin=64, encoder_margin=32, radius=112, step_radius=32)
PAPER_FILTERS = (3, 3, 3)  # of the paper's prior of z
ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture(
            "cdc-lite",
            _lite,
            lambda: cosine_schedule(parameterization="residual"),
            _next_share,
            1,
            default_gamma=0.0,
            silent=1,  # sigma 0.1: a symbol in two million is not zero
            tiling=LITE_TILING,
            fixed_rate=False,
            whole_canvas=False,
            max_pixels=None,
            worth=RDO,
            step_cost=1.0,
            decode_bytes=64,  # least squares of `python -m benchmarks.memory`, in float32
            encode_bytes=86,
        ),
        Architecture(
            "cdc-x",
            _paper,
            lambda: cosine_schedule(floor=None, beta_limit=0.999),
            _share,
            17,
            filters=PAPER_FILTERS,
        ),
        Architecture("cdc-eps", _paper, linear_schedule, _position, 200, filters=PAPER_FILTERS),
    )
}


def architecture_of(name: str) -> Architecture:
    """Return the family of that name. Raises WeightsError for one that is not known."""
    if name not in ARCHITECTURES:
        raise WeightsError(f"unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
