"""Published rate-distortion curves and points on Kodak, as reference lines; published.json has numbers and sources."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model.errors import InvalidParameter

FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """Means over the 24 Kodak images, in order of the rate.

    Attributes:
        name, label: as typed, as printed.
        bpp: bits per pixel.
        metrics: metric name -> value at each rate; PSNR over RGB in dB, MS-SSIM over RGB 0..1.
        connected: a curve; otherwise single points of a paper, to be drawn unconnected.
    """

    name: str
    label: str
    bpp: tuple[float, ...]
    metrics: dict[str, tuple[float, ...]]
    connected: bool


@cache
def all_published() -> tuple[Published, ...]:
    """Every curve, then every paper's single points."""
    content = json.loads(FILE.read_text())
    found = []
    for kind in ("curves", "points"):
        for entry in content[kind]:
            metrics = {m: tuple(entry[m]) for m in ("psnr", "ms-ssim", "lpips", "dists") if m in entry}
            found.append(
                Published(entry["name"], entry["label"], tuple(entry["bpp"]), metrics, connected=kind == "curves")
            )
    return tuple(found)


def published(name: str) -> Published:
    """Look one up.

    Raises:
        InvalidParameter: nothing is published here under that name.
    """
    for entry in all_published():
        if entry.name == name:
            return entry
    raise InvalidParameter(f"no published curve {name!r}; there are {', '.join(e.name for e in all_published())}")
