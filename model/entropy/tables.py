"""Integer probability tables: made once from the float models when weights are exported, then only read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.entropy.likelihood import SIGMA_LEVELS, FactorizedPrior, gaussian_bin_probability, sigma_of_index
from model.errors import WeightsError

COUNT_BITS = 20  # every table sums to 2**20
TAIL_MASS = 2.0**-24  # a table ends where less than this is left on either side; beyond it values are escaped
MAX_RADIUS = 1024


@dataclass(frozen=True)
class Tables:
    """One table of counts for each group of symbols (a scale index, or a channel of z).

    Group g covers the values lowest[g] .. lowest[g] + sizes[g] - 2 and, as its last entry, the escape.

    Attributes:
        lowest: int32 [G].
        sizes: int32 [G], entries of each table, the escape included (>= 2).
        counts: int32 [sum(sizes)], >= 1, tables one after the other, each summing to 2**20.
    """

    lowest: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        if not (len(self.lowest) == len(self.sizes) > 0 and self.counts.size == int(self.sizes.sum())):
            raise WeightsError("probability tables: lowest, sizes and counts do not fit together")
        if self.counts.min() < 1 or self.sizes.min() < 2:
            raise WeightsError("probability tables: every entry needs a count of at least 1")
        if any(int(self.table(g).sum()) != 1 << COUNT_BITS for g in range(len(self.sizes))):
            raise WeightsError(f"probability tables: counts must sum to 2**{COUNT_BITS}")

    def table(self, group: int) -> npt.NDArray[np.int32]:
        """Counts of one group, int32 [sizes[group]]."""
        end = int(self.sizes[: group + 1].sum())
        counts: npt.NDArray[np.int32] = self.counts[end - int(self.sizes[group]) : end]
        return counts


def quantise_probabilities(probabilities: npt.NDArray[np.float64], escape: float) -> npt.NDArray[np.int32]:
    """float64 [n] bin probabilities and that of the escape -> int32 [n + 1] counts >= 1 that sum to 2**20.

    Every entry gets 1, the rest is shared in proportion; what rounding leaves over goes to the largest entry.
    """
    p = np.append(probabilities, escape).clip(min=0.0)
    free = (1 << COUNT_BITS) - p.size
    counts = 1 + np.floor(p / p.sum() * free).astype(np.int64)
    counts[int(counts.argmax())] += (1 << COUNT_BITS) - int(counts.sum())
    integers: npt.NDArray[np.int32] = counts.astype(np.int32)
    return integers


def gaussian_tables() -> Tables:
    """Tables of the 64 scale levels: round(y - mean) of a zero-mean Gaussian of sigma 0.1 .. 256."""
    lowest: list[int] = []
    tables: list[npt.NDArray[np.int32]] = []
    sigmas = sigma_of_index(torch.arange(SIGMA_LEVELS, dtype=torch.float64))
    offsets = torch.arange(-MAX_RADIUS, MAX_RADIUS + 1, dtype=torch.float64)
    for sigma in sigmas:
        p = gaussian_bin_probability(offsets, sigma)
        tail = float(torch.erfc((torch.arange(MAX_RADIUS + 1) + 0.5) / sigma * 2**-0.5).gt(2 * TAIL_MASS).sum())
        radius = max(1, int(tail))
        inside = p[MAX_RADIUS - radius : MAX_RADIUS + radius + 1].numpy()
        tables.append(quantise_probabilities(inside, max(0.0, 1.0 - float(inside.sum()))))
        lowest.append(-radius)
    return _join(lowest, tables)


@torch.no_grad()
def prior_tables(prior: FactorizedPrior, medians: Tensor) -> Tables:
    """Tables of z, one a channel: the symbol is round(z - median), `medians` [C] the rounded ones that are stored."""
    prior = prior.double()
    lowest: list[int] = []
    tables: list[npt.NDArray[np.int32]] = []
    offsets = torch.arange(-MAX_RADIUS, MAX_RADIUS + 1, dtype=torch.float64)
    values = medians.double()[:, None, None] + offsets
    lower_tail = torch.sigmoid(prior.cumulative_logits(values - 0.5))[:, 0]
    upper_tail = torch.sigmoid(-prior.cumulative_logits(values + 0.5))[:, 0]
    probabilities = prior.bin_probability(values)[:, 0]
    for p, low, high in zip(probabilities, lower_tail, upper_tail, strict=True):
        first = min(int((low < TAIL_MASS).sum()), MAX_RADIUS - 1)
        last = max(2 * MAX_RADIUS - int((high < TAIL_MASS).sum()), MAX_RADIUS + 1)
        inside = p[first : last + 1].numpy()
        tables.append(quantise_probabilities(inside, max(0.0, 1.0 - float(inside.sum()))))
        lowest.append(first - MAX_RADIUS)
    return _join(lowest, tables)


def _join(lowest: list[int], tables: list[npt.NDArray[np.int32]]) -> Tables:
    sizes = np.array([t.size for t in tables], dtype=np.int32)
    return Tables(np.array(lowest, dtype=np.int32), sizes, np.concatenate(tables))
