"""What the API process and the worker process say to each other over their pipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.engine.port import ModelInfo, Order, Outcome
from service.work import Progress


@dataclass(frozen=True)
class DeviceOptions:
    """How a worker runs.

    Attributes:
        models_dir: folder of further weights files.
        precision: arithmetic of the decoder's networks.
        threads: CPU threads, 0 for all cores.
        device: "cpu", "cuda:N", or "auto" (the first GPU if there is one).
        cache_dir: folder of speed profiles; None measures at every start.
        tick_seconds: longest time of one forward pass.
        acceleration: what a GPU's worker prepares at its start: nothing, CUDA graphs, or graphs of compiled networks.
        models_memory_bytes: weights beyond it are unloaded, least recently used first; 0 keeps all.
        log_level: least level that the worker logs.
    """

    models_dir: Path | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 0
    device: str = "cpu"
    cache_dir: Path | None = None
    tick_seconds: float = 0.5
    acceleration: Literal["none", "graphs", "compile"] = "none"
    models_memory_bytes: int = 0
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True)
class Submit:
    """To the worker: do this; `number` names it in every message that follows, `request_id` in the logs.

    `cost` and `area` are estimates, in pixels of one denoising step: of all its work, and of a step of all its tiles.
    """

    number: int
    order: Order
    cost: float
    area: float
    request_id: str | None = None


@dataclass(frozen=True)
class Cancel:
    """To the worker: nobody waits for this request any more."""

    number: int


@dataclass(frozen=True)
class Ready:
    """From the worker: models are loaded and warm. `seconds_per_cost` is of one pixel and denoising step."""

    models: tuple[ModelInfo, ...]
    device: str
    seconds_per_cost: float


@dataclass(frozen=True)
class Started:
    """From the worker: the request is prepared, in `seconds`, and its first tile may run in the next tick."""

    number: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Advanced:
    """From the worker: a step of the request is done."""

    number: int
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """From the worker: the request is done; `seconds` went by behind its last tile."""

    number: int
    outcome: Outcome
    seconds: float = 0.0


@dataclass(frozen=True)
class Failed:
    """From the worker: the request failed with a `CodecError` or `ServiceError`."""

    number: int
    error: Exception


@dataclass(frozen=True)
class Ticked:
    """From the worker: one forward pass; `rows` of `capacity` tiles of `shape` (height, width) in pixels.

    `step_cost` is the work of the model's denoising step per pixel, relative to cdc-lite's.
    """

    kind: str
    shape: tuple[int, int]
    rows: int
    capacity: int
    seconds: float
    step_cost: float = 1.0


ToWorker = Submit | Cancel | None  # None: finish and leave
FromWorker = Ready | Started | Advanced | Finished | Failed | Ticked
