"""How long a forward pass takes on this device, and so how many rows a tick may hold. No torch."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.engine.request import Key

log = logging.getLogger(__name__)
MAX_ROWS = 64
LEARNING_RATE = 0.1
LEAST_PAYING = 1 << 19  # requests in one pass differ in phase: with fewer of them small tiles leave rows empty
SLOWEST = 256 * 256  # pixels: every device measures at least up to here
PROBES = (64 * 64, 128 * 128, 256 * 256, 512 * 512, 1024 * 1024)  # pixels of a pass that is measured


@dataclass
class Profile:
    """Seconds of a forward pass by its pixels, interpolated between measured points.

    Attributes:
        seconds: pixels of a denoising pass -> seconds, at least two points.
        tick_seconds: longest time one pass may take; a single row always may run.
        max_pixels: most pixels of a pass of several rows, None for no limit.
        row_limits: caps lowered after the device ran out of memory.
    """

    seconds: dict[int, float]
    tick_seconds: float
    max_pixels: int | None = None
    row_limits: dict[Key, int] = field(default_factory=dict)

    def seconds_of(self, cost: float) -> float:
        """Estimated seconds of a pass of that cost, in pixels of a denoising step."""
        points = sorted(self.seconds.items())
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            if cost <= x1:
                return max(y0 + (y1 - y0) * (cost - x0) / (x1 - x0), y0 * 0.1)
        x, y = points[-1]
        return y * cost / x

    @property
    def seconds_per_cost(self) -> float:
        """Seconds per pixel and step of large passes: what a backlog is estimated with."""
        x, y = max(self.seconds.items())
        return y / x

    @property
    def paying_cost(self) -> float:
        """Cost of a pass beyond which more rows gain less than 5 % a pixel, in pixels of a denoising step."""
        best = min(y / x for x, y in self.seconds.items())
        return float(max(LEAST_PAYING, min(x for x, y in self.seconds.items() if y / x <= 1.05 * best)))

    @property
    def costs_per_tick(self) -> float:
        """Cost that fits a tick, in pixels of a denoising step."""
        return self.tick_seconds / self.seconds_per_cost

    def rows(self, key: Key) -> int:
        """Most rows of a key that one tick may hold, >= 1."""
        limit = self.row_limits.get(key, MAX_ROWS)
        if self.max_pixels is not None:
            limit = min(limit, max(1, self.max_pixels // (key.shape[0] * key.shape[1])))
        rows = 1
        while rows < limit and self.seconds_of((rows + 1) * key.cost) <= self.tick_seconds:
            rows += 1
        return rows

    def observe(self, cost: float, seconds: float) -> None:
        """Learn from a pass: pull the nearest point towards what it took.

        A profile that was measured on a busy machine, or by another load, corrects itself within some ticks.
        """
        nearest = min(self.seconds, key=lambda pixels: abs(math.log(pixels / cost)))
        self.seconds[nearest] *= (seconds / self.seconds_of(cost)) ** LEARNING_RATE

    def out_of_memory(self, key: Key, rows: int) -> None:
        """Halve the cap of a key after a pass of that many rows did not fit."""
        self.row_limits[key] = max(1, rows // 2)
        log.warning("out of memory at %d rows of %s: now at most %d", rows, key, self.row_limits[key])


def measure(probe: Callable[[int], float], tick_seconds: float) -> dict[int, float]:
    """Measure passes of growing size until one exceeds the tick; `probe` maps pixels to seconds."""
    seconds: dict[int, float] = {}
    for pixels in PROBES:
        seconds[pixels] = probe(pixels)
        if seconds[pixels] > tick_seconds and pixels >= SLOWEST:
            break
    return seconds


def store(folder: Path, name: str, seconds: Mapping[int, float]) -> None:
    """Write a profile to the cache folder; one that cannot be written costs only measuring again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "w") as file:
            json.dump(dict(seconds), file)
        Path(temporary).replace(folder / f"profile-{name}.json")
    except OSError as error:
        log.warning("the profile cannot be stored: %s", error)


def cached(folder: Path, name: str, make: Callable[[], Mapping[int, float]]) -> dict[int, float]:
    """Return the profile called `name` from the cache folder, making and storing it if it is not there or damaged."""
    path = folder / f"profile-{name}.json"
    try:
        found = {int(k): float(v) for k, v in json.loads(path.read_text()).items()}
        if len(found) > 1 and all(v > 0 for v in found.values()):
            return found
    except (OSError, ValueError, AttributeError):
        log.info("no usable profile at %s: measuring", path)
    made = dict(make())
    store(folder, name, made)
    return made
