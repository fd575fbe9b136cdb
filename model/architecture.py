"""The families of networks that the codec can run, and what differs between them beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model.diffusion.schedule import Schedule, cosine_schedule, linear_schedule
from model.entropy.likelihood import LITE_LEVELS, PAPER_LEVELS, ScaleLevels
from model.errors import WeightsError
from model.networks.lite import CDCLite
from model.networks.paper import CDCPaper

WHOLE_CANVAS_PIXELS = 1 << 22  # 2048x2048: what a denoiser with global attention takes (docs/benchmarks.md: memory)


# What the codec asks of a family: encoder, hyper_encoder, hyper_decoder, log_gain and log_inverse_gain [levels, M], and
#   settle    give the decoder's parts the type they run in
#   modulate  times float64 [K] and a rate byte -> what time and rate alone decide, float64 [K, S]
#   inject    y_hat [B, M, h, w] -> the maps that are the same at every step
#   denoise   x_n [B, 3, H, W], modulation [B, S], the maps of inject -> x0_hat or eps_hat [B, 3, H, W]
Networks = CDCLite | CDCPaper


@dataclass(frozen=True)
class Architecture:
    """A family of networks.

    Attributes:
        name: as in a weights file.
        schedule: makes its training schedule.
        times: indices of a decode, noisiest first, and the schedule's length -> the denoiser's time inputs.
        default_steps: steps of a decode that asks for none.
        levels: what sigma may be.
        one_rate: True where a checkpoint has a single rate: the rate byte is 0.
        whole_canvas: True where the denoiser must see the whole canvas at once, padded to multiples of 64 exactly.
        max_pixels: largest canvas, None for no limit.
        rate_distortion: symbols are chosen by rate and distortion, not by rounding alone.
        step_cost: multiply-adds of a denoising step per pixel, relative to cdc-lite's.
        decode_bytes, encode_bytes: memory per pixel while a picture is decoded or encoded.
    """

    name: str
    schedule: Callable[[], Schedule]
    times: Callable[[tuple[int, ...], int], list[float]]
    default_steps: int
    levels: ScaleLevels
    one_rate: bool = True
    whole_canvas: bool = True
    max_pixels: int | None = WHOLE_CANVAS_PIXELS
    rate_distortion: bool = False
    step_cost: float = 10.0
    decode_bytes: int = 3000
    encode_bytes: int = 900


def _next_share(indices: tuple[int, ...], length: int) -> list[float]:
    return [(index + 1) / length for index in indices]


def _share(indices: tuple[int, ...], length: int) -> list[float]:
    return [index / length for index in indices]


def _position(indices: tuple[int, ...], length: int) -> list[float]:
    """k / K: the position in the decode's own steps, as the published cdc-eps samples."""
    return [k / len(indices) for k in range(len(indices) - 1, -1, -1)]


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture(
            "cdc-lite",
            cosine_schedule,
            _next_share,
            17,
            LITE_LEVELS,
            one_rate=False,
            whole_canvas=False,
            max_pixels=None,
            rate_distortion=True,
            step_cost=1.0,
            decode_bytes=115,
            encode_bytes=80,
        ),
        Architecture("cdc-x", lambda: cosine_schedule(floor=None, beta_limit=0.999), _share, 17, PAPER_LEVELS),
        Architecture("cdc-eps", linear_schedule, _position, 200, PAPER_LEVELS),
    )
}


def architecture_of(name: str) -> Architecture:
    """Return the family of that name. Raises WeightsError for one that is not known."""
    if name not in ARCHITECTURES:
        raise WeightsError(f"unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
