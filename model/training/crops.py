"""Random crops as a function of (seed, index): any process, and any later resume, draws the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from model.errors import InvalidParameter
from model.sources import Clip, Source, read_frame
from model.types import Pixels

MAX_REDRAWS = 8  # of images too small or too flat, before the last draw is taken as it is


@dataclass(frozen=True)
class CropRule:
    """How crops are cut: side in pixels, and the least standard deviation of the levels 0..255 of one."""

    side: int
    flat_below: float
    seed: int


class Crops(Dataset[Tensor]):
    """Item i is the i-th crop of an endless sequence, uint8 [3, side, side]."""

    def __init__(self, sources: Sequence[Source], rule: CropRule, *, cache: bool = False) -> None:
        """With `cache`, decode everything now, into memory that reader processes share."""
        self._clips: list[Clip] = [clip for source in sources for clip in source.clips]
        self._rule = rule
        self._pool = _Pool.decode(self._clips) if cache else None

    def __len__(self) -> int:
        """Number of clips; indices may go beyond it."""
        return len(self._clips)

    def __getitem__(self, index: int) -> Tensor:
        """Crop `index` >= 0. Raises InvalidParameter where MAX_REDRAWS images in a row are too small."""
        rng = np.random.Generator(np.random.Philox(key=self._rule.seed, counter=[0, 0, 0, index]))
        crop: Pixels | None = None
        for _ in range(MAX_REDRAWS):
            drawn = self._draw(rng)
            if drawn is None:
                continue
            crop = drawn
            if crop.std() >= self._rule.flat_below:
                break
        if crop is None:
            raise InvalidParameter(f"the images are smaller than the crops of {self._rule.side} pixels")
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))

    def _draw(self, rng: np.random.Generator) -> Pixels | None:
        number = int(rng.integers(len(self._clips)))
        clip = self._clips[number]
        frame = int(rng.integers(clip.count))
        picture = self._pool.picture(number) if self._pool is not None else read_frame(clip, frame)
        side = self._rule.side
        height, width = picture.shape[:2]
        places, flip = rng.random(2), rng.random() < 0.5
        if min(height, width) < side:
            return None
        top, left = int(places[0] * (height - side + 1)), int(places[1] * (width - side + 1))
        crop = picture[top : top + side, left : left + side]
        return crop[:, ::-1] if flip else crop


@dataclass(frozen=True)
class _Pool:
    """All images in one tensor of shared memory; of a clip with several frames the first."""

    pixels: Tensor  # uint8 [values]
    offsets: tuple[tuple[int, int, int], ...]  # start, height, width of each

    @classmethod
    def decode(cls, clips: Sequence[Clip]) -> _Pool:
        parts, offsets, start = [], [], 0
        for clip in clips:
            picture = read_frame(clip)
            parts.append(torch.from_numpy(picture).reshape(-1))
            offsets.append((start, picture.shape[0], picture.shape[1]))
            start += picture.size
        pixels = torch.cat(parts)
        pixels.share_memory_()  # type: ignore[no-untyped-call]
        return cls(pixels, tuple(offsets))

    def picture(self, number: int) -> Pixels:
        start, height, width = self.offsets[number]
        values: Pixels = self.pixels[start : start + height * width * 3].numpy()
        return values.reshape(height, width, 3)


class _From(Sampler[int]):
    """Indices of the crops of one device: its share of every batch of all devices, from a step on, without end."""

    def __init__(self, step: int, batch: int, rank: int, devices: int) -> None:
        self._next, self._batch, self._rank, self._devices = step, batch, rank, devices

    def __iter__(self) -> Iterator[int]:
        step = self._next
        while True:
            first = (step * self._devices + self._rank) * self._batch
            yield from range(first, first + self._batch)
            step += 1


def batches(
    crops: Crops, *, batch: int, from_step: int, readers: int, rank: int = 0, devices: int = 1
) -> Iterator[Tensor]:
    """Yield uint8 [batch, 3, side, side] without end, decoded ahead by `readers` processes.

    Step s sees the same crops whatever `from_step` was, so a resumed run goes on where it stopped.
    """
    loader: DataLoader[Tensor] = DataLoader(
        crops,
        batch_size=batch,
        sampler=_From(from_step, batch, rank, devices),
        num_workers=readers,
        prefetch_factor=4 if readers else None,
        multiprocessing_context="spawn" if readers else None,
        pin_memory=torch.cuda.is_available(),
        drop_last=True,
    )
    return iter(loader)
