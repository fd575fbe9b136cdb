"""Which tiles run next. Pure Python over plain records; never touches a tensor.

Start-time fair queueing (Goyal et al. 1996): each request is a flow with a start tag in units of cost; the flow with
the smallest tag goes first and its tag grows by the cost it was given. A new flow starts at the virtual time, which
grows by what each of n flows would get of the cost served: a one-step thumbnail behind a 65-step panorama runs in the
next tick, and a stream of thumbnails does not starve the panorama. The rest of a tick is filled with tiles of one key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["analyse", "condition", "denoise"]

# Multiply-adds of a kind of pass per pixel, relative to one denoising step of cdc-lite (10, 5 and 5 GFLOP at 256x256).
WEIGHT: dict[Kind, float] = {"denoise": 1.0, "condition": 0.5, "analyse": 0.5}


@dataclass(frozen=True)
class Key:
    """What tiles must have in common to share a forward pass: model, network, height and width in pixels."""

    model: str
    kind: Kind
    shape: tuple[int, int]

    @property
    def cost(self) -> float:
        """Cost of one row, in pixels of one denoising step."""
        return WEIGHT[self.kind] * self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Unit:
    """One tile of one request, ready to run. `alone` asks for a forward pass of its own (`deterministic=true`)."""

    job: int
    tile: int
    key: Key
    alone: bool = False


@dataclass
class _Flow:
    job: int
    start_tag: float
    remaining: float
    arrival: int
    ready: deque[Unit]

    @property
    def order(self) -> tuple[float, float, int]:
        """Smallest first: least served, then least left to do, then first come."""
        return self.start_tag, self.remaining, self.arrival


class Scheduler:
    """Ready tiles of all requests, and whose turn it is."""

    def __init__(self, cap: Callable[[Key], int]) -> None:
        """`cap` gives the most rows of a key that one tick may hold, >= 1."""
        self._cap = cap
        self._flows: dict[int, _Flow] = {}
        self._now = 0.0  # virtual time
        self._arrivals = 0

    def add(self, job: int, cost: float) -> None:
        """Let a request in; `cost` is all it will need, in pixels of one denoising step."""
        self._arrivals += 1
        self._flows[job] = _Flow(job, self._now, cost, self._arrivals, deque())

    def offer(self, job: int, units: Iterable[Unit]) -> None:
        """Make further tiles of a request ready."""
        self._flows[job].ready.extend(units)

    def remove(self, job: int) -> None:
        """Forget a request: done, failed or cancelled. Unknown ones are ignored."""
        self._flows.pop(job, None)

    def is_idle(self) -> bool:
        """True when nothing is ready to run."""
        return not any(flow.ready for flow in self._flows.values())

    def schedule(self) -> list[Unit]:
        """Take the tiles of the next tick: at least one if any is ready, all of one key, at most its cap."""
        flows = sorted((f for f in self._flows.values() if f.ready), key=lambda f: f.order)
        if not flows:
            return []
        first = flows[0].ready[0]
        self._now = max(self._now, flows[0].start_tag)
        limit = 1 if first.alone else self._cap(first.key)
        batch: list[Unit] = []
        for flow in flows:
            while len(batch) < limit and flow.ready and self._fits(flow.ready[0], first):
                unit = flow.ready.popleft()
                flow.start_tag += unit.key.cost
                flow.remaining -= unit.key.cost
                batch.append(unit)
        self._now += len(batch) * first.key.cost / len(self._flows)
        return batch

    @staticmethod
    def _fits(unit: Unit, first: Unit) -> bool:
        return unit.key == first.key and unit.alone == first.alone
