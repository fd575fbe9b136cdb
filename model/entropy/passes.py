"""In which order the latents are coded where later ones see earlier ones: channels in groups, groups as checkerboards.

The first pass of a group holds the positions of even row + column, the second the odd ones. A pass sees every channel
of the groups before its own, everywhere, and in a second pass also the first half of its own group. (Checkerboard: He
et al. 2021, "Checkerboard context model"; groups of channels: Minnen and Singh 2020; both: He et al. 2022, ELIC.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EVEN, ODD = 0, 1
# What networks and integers must agree on.
LATENT_BITS = 2  # latents enter in quarters, so that their weights are of the size of the others
INDEX_STEP = 4  # scale corrections leave times this: an index is a tenth of a nat
RATE_BITS = 8  # the rate q enters rounded to 1/256


@dataclass(frozen=True)
class Pass:
    """What is coded at once.

    Attributes:
        start, stop: its channels.
        parity: which positions, by the parity of row + column; None for all.
        known: it sees the channels 0..known - 1.
    """

    start: int
    stop: int
    parity: int | None
    known: int


def passes_of(groups: Sequence[int], channels: int) -> tuple[Pass, ...]:
    """Channels of each group -> passes in coding order; without groups a single one of everything."""
    if not groups:
        return (Pass(0, channels, None, 0),)
    found: list[Pass] = []
    start = 0
    for size in groups:
        stop = start + size
        found += [Pass(start, stop, EVEN, start), Pass(start, stop, ODD, stop)]
        start = stop
    return tuple(found)
