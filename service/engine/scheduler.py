"""Which requests are begun, and which of their tiles run next. Pure Python over plain records; never touches a tensor.

Requests wait until they are begun. As many run as fill a pass to where more rows gain nothing, and a few more so that
CPU threads are never without one to prepare; if all advanced together, all would finish last. The waiting one with
least to do is begun first (shortest remaining cost), every second of its wait counting as a second less to do, so that
none starves. One that has far less to do than any that runs is begun at once.

Among those that run: start-time fair queueing (Goyal et al. 1996). Each request has a start tag in units of
cost; the one with the smallest tag goes first and its tag grows by the cost it was given. A new one starts at the
virtual time, which grows by what each of n would get of the cost served: a one-step thumbnail behind a 65-step
panorama runs in the next tick, and a stream of thumbnails does not starve the panorama. Those within one tick's worth
of the smallest tag count as equal, and of those the one with least left to do goes first: a short request is finished
once it is begun. The rest of a tick is filled with tiles of the same key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from service.engine.request import Key, Request, Status, Unit

AHEAD = 3  # requests that are prepared or run at least, where there are as many
FAR_LESS = 4.0  # times less to do than any that runs: begun at once


class Scheduler:
    """Waiting and running requests, and whose turn it is."""

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
        self._waiting: dict[int, Request] = {}
        self.running: dict[int, Request] = {}  # being prepared, too
        self._now = 0.0  # virtual time
        self._begun = 0

    def add(self, request: Request) -> None:
        """Let a request in, to wait for its turn."""
        self._waiting[request.number] = request

    def begin(self, now: float) -> list[Request]:
        """Move the requests whose turn has come at `now`, in seconds, from waiting to preparing, and return them."""
        begun = []
        while (request := self._next(now)) is not None:
            del self._waiting[request.number]
            self._begun += 1
            request.order, request.start_tag, request.remaining = self._begun, self._now, request.cost
            request.status = Status.PREPARING
            self.running[request.number] = request
            begun.append(request)
        return begun

    def _next(self, now: float) -> Request | None:
        waiting = self._waiting.values()
        if not waiting:
            return None
        running = self.running.values()
        if len(running) < AHEAD or sum(r.area for r in running) < self._enough:
            return min(waiting, key=lambda r: r.cost - (now - r.arrival) * self._cost_per_second)
        shortest = min(waiting, key=lambda r: r.cost)
        return shortest if shortest.cost * FAR_LESS < min(r.remaining for r in running) else None

    def offer(self, number: int, units: Iterable[Unit]) -> None:
        """Make further tiles of a request ready."""
        request = self.running[number]
        request.status = Status.RUNNING
        request.ready.extend(units)

    def remove(self, request: Request) -> None:
        """Let a request go: no tile of it runs any more. One that is gone already is ignored."""
        self._waiting.pop(request.number, None)
        self.running.pop(request.number, None)

    def is_idle(self) -> bool:
        """True when nothing is ready to run."""
        return not any(r.ready for r in self.running.values())

    def schedule(self) -> list[Unit]:
        """Take the tiles of the next tick: at least one if any is ready, all of one key, at most its cap."""
        able = [r for r in self.running.values() if r.ready]
        if not able:
            return []
        least = min(r.start_tag for r in able)
        turns = sorted(able, key=lambda r: (max(r.start_tag, least + self._quantum), r.remaining, r.order))
        first = turns[0].ready[0]
        self._now = max(self._now, least)
        limit = 1 if first.alone else self._cap(first.key)
        batch: list[Unit] = []
        for request in turns:
            while len(batch) < limit and request.ready and self._fits(request.ready[0], first):
                unit = request.ready.popleft()
                request.start_tag += unit.key.cost
                request.remaining -= unit.key.cost
                batch.append(unit)
        self._now += len(batch) * first.key.cost / len(self.running)
        return batch

    @staticmethod
    def _fits(unit: Unit, first: Unit) -> bool:
        return unit.key == first.key and unit.alone == first.alone
