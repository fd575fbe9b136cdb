"""Which requests are begun, and which of their tiles run next. Pure Python over plain records; never touches a tensor.

Requests wait until they are begun. As many run as fill a pass to where more rows gain nothing, and a few more so that
CPU threads are never without one to prepare; if all advanced together, all would finish last. The waiting one with
least to do is begun first (shortest remaining cost), every second of its wait counting as a second less to do, so that
none starves. One that has far less to do than any that runs is begun at once.

Among those that run: start-time fair queueing (Goyal et al. 1996). Each request is a flow with a start tag in units of
cost; the flow with the smallest tag goes first and its tag grows by the cost it was given. A new flow starts at the
virtual time, which grows by what each of n flows would get of the cost served: a one-step thumbnail behind a 65-step
panorama runs in the next tick, and a stream of thumbnails does not starve the panorama. Flows within one tick's worth
of the smallest tag count as equal, and of those the one with least left to do goes first: a short request is finished
once it is begun. The rest of a tick is filled with tiles of the same key.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

AHEAD = 3  # requests that are prepared or run at least, where there are as many
FAR_LESS = 4.0  # times less to do than any that runs: begun at once

Kind = Literal["analyse", "condition", "denoise"]

# Multiply-adds of a kind of pass per pixel, relative to one denoising step of cdc-lite (10, 5 and 5 GFLOP at 256x256).
WEIGHT: dict[Kind, float] = {"denoise": 1.0, "condition": 0.5, "analyse": 0.5}


@dataclass(frozen=True)
class Key:
    """What tiles must have in common to share a forward pass: model, network, height and width in pixels.

    `step_cost` is the work of the model's denoising step per pixel, relative to cdc-lite's.
    """

    model: str
    kind: Kind
    shape: tuple[int, int]
    step_cost: float = 1.0

    @property
    def cost(self) -> float:
        """Cost of one row, in pixels of one denoising step."""
        return self.step_cost * WEIGHT[self.kind] * self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Unit:
    """One tile of one request, ready to run. `alone` asks for a forward pass of its own (`deterministic=true`)."""

    job: int
    tile: int
    key: Key
    alone: bool = False


@dataclass
class _Waiting:
    cost: float
    area: float
    since: float


@dataclass
class _Flow:
    job: int
    area: float
    start_tag: float
    remaining: float
    arrival: int
    ready: deque[Unit]


class Scheduler:
    """Waiting and running requests, the ready tiles of these, and whose turn it is."""

    def __init__(
        self, cap: Callable[[Key], int], quantum: float, enough: float = math.inf, cost_per_second: float = 0.0
    ) -> None:
        """Start without requests.

        Args:
            cap: the most rows of a key that one tick may hold, >= 1.
            quantum: cost of one full tick.
            enough: cost of a pass beyond which further rows gain nothing.
            cost_per_second: what the device does in a second.
        """
        self._cap = cap
        self._quantum = quantum
        self._enough = enough
        self._cost_per_second = cost_per_second
        self._waiting: dict[int, _Waiting] = {}
        self._flows: dict[int, _Flow] = {}
        self._now = 0.0  # virtual time
        self._arrivals = 0

    def wait(self, job: int, cost: float, area: float, now: float) -> None:
        """Let a request in at `now`, in seconds.

        Args:
            cost: all it will need, in pixels of one denoising step.
            area: cost of one denoising step of all its tiles.
        """
        self._waiting[job] = _Waiting(cost, area, now)

    def begin(self, now: float) -> list[int]:
        """Move the requests whose turn has come from waiting to running, and name them."""
        begun = []
        while (job := self._next(now)) is not None:
            waiting = self._waiting.pop(job)
            self.add(job, waiting.cost, waiting.area)
            begun.append(job)
        return begun

    def _next(self, now: float) -> int | None:
        if not self._waiting:
            return None
        running = self._flows.values()
        if len(running) < AHEAD or sum(flow.area for flow in running) < self._enough:
            aged = {job: w.cost - (now - w.since) * self._cost_per_second for job, w in self._waiting.items()}
            return min(aged, key=lambda job: aged[job])
        shortest = min(self._waiting, key=lambda job: self._waiting[job].cost)
        least = min(flow.remaining for flow in running)
        return shortest if self._waiting[shortest].cost * FAR_LESS < least else None

    def add(self, job: int, cost: float, area: float = 0.0) -> None:
        """Let a request run at once; see `wait`."""
        self._arrivals += 1
        self._flows[job] = _Flow(job, area, self._now, cost, self._arrivals, deque())

    def offer(self, job: int, units: Iterable[Unit]) -> None:
        """Make further tiles of a request ready."""
        self._flows[job].ready.extend(units)

    def remove(self, job: int) -> None:
        """Forget a request: done, failed or cancelled. Unknown ones are ignored."""
        self._waiting.pop(job, None)
        self._flows.pop(job, None)

    def is_idle(self) -> bool:
        """True when nothing is ready to run."""
        return not any(flow.ready for flow in self._flows.values())

    def schedule(self) -> list[Unit]:
        """Take the tiles of the next tick: at least one if any is ready, all of one key, at most its cap."""
        waiting = [f for f in self._flows.values() if f.ready]
        if not waiting:
            return []
        least = min(f.start_tag for f in waiting)
        flows = sorted(waiting, key=lambda f: (max(f.start_tag, least + self._quantum), f.remaining, f.arrival))
        first = flows[0].ready[0]
        self._now = max(self._now, least)
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
