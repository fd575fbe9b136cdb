"""Denoising passes prepared for a GPU at start: captured as CUDA graphs, compiled first where that is asked for.

A pass of a small tile is some hundred kernels of microseconds each, and launching them takes longer than running them;
a graph launches all at once. Shapes are prepared before the first request and never during one: whatever has not been
prepared runs as the plain network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.types import Injected

Pass = Callable[[Tensor, Tensor, Injected], Tensor]
WARM_UP_PASSES = 3  # before a capture, on its own stream, so that libraries have chosen their kernels


@dataclass(frozen=True)
class Inputs:
    """Arguments of the denoiser: x [B, 3, H, W], modulation [B, S], injected maps [B, C, H/s, W/s]."""

    x: Tensor
    modulation: Tensor
    injected: Injected

    def parts(self) -> tuple[Tensor, ...]:
        """All tensors, in a fixed order."""
        return (self.x, self.modulation, *self.injected)


class PreparedDenoiser:
    """Calls like the denoiser itself; batches of prepared shapes take the prepared way.

    A batch of fewer rows than were prepared is run in the next larger preparation, whose further rows hold leftovers:
    rows do not depend on each other.
    """

    def __init__(self, network: Pass, prepare: Callable[[Inputs], Pass] | None = None) -> None:
        """`prepare` makes a pass for inputs of one shape; None captures CUDA graphs."""
        self._network = network
        self._prepare = prepare or Graphs(network)
        self._passes: dict[tuple[int, int], dict[int, Pass]] = {}

    def prepare(self, inputs: Inputs) -> None:
        """Prepare batches of this shape, and of fewer rows. Raises torch.OutOfMemoryError."""
        rows, _, height, width = inputs.x.shape
        self._passes.setdefault((height, width), {})[rows] = self._prepare(inputs)

    @property
    def prepared(self) -> list[tuple[int, int, int]]:
        """Rows, height and width of what is prepared."""
        return [(rows, *shape) for shape, passes in self._passes.items() for rows in passes]

    def __call__(self, x: Tensor, modulation: Tensor, injected: Injected) -> Tensor:
        """As the network; the result may be overwritten by the next call of the same shape."""
        rows, _, height, width = x.shape
        enough = [r for r in self._passes.get((height, width), {}) if r >= rows]
        if not enough:
            return self._network(x, modulation, injected)
        return self._passes[height, width][min(enough)](x, modulation, injected)


class Graphs:
    """Makes passes that replay a CUDA graph of the network; all graphs share one pool of memory."""

    def __init__(self, network: Pass) -> None:
        self._network = network
        self._pool: Any = None  # a handle that torch does not name

    def __call__(self, inputs: Inputs) -> Pass:
        """Capture one pass over tensors like `inputs`, which become the graph's own."""
        network, held = self._network, inputs.parts()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(WARM_UP_PASSES):
                network(inputs.x, inputs.modulation, inputs.injected)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph, pool=self._pool):
            output = network(inputs.x, inputs.modulation, inputs.injected)

        def replay(x: Tensor, modulation: Tensor, injected: Injected) -> Tensor:
            rows = x.shape[0]
            for own, given in zip(held, (x, modulation, *injected), strict=True):
                own[:rows].copy_(given)
            graph.replay()
            return output[:rows]

        return replay
