"""What the API process and the worker process say to each other over their pipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.engine.job import ModelInfo, Progress, Request, Result


@dataclass(frozen=True)
class RunnerOptions:
    """How a worker runs: folder of further weights, arithmetic, CPU threads (0: all cores)."""

    models_dir: Path | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 0


@dataclass(frozen=True)
class Submit:
    """To the worker: run this; `job` names it in every message that follows."""

    job: int
    request: Request


@dataclass(frozen=True)
class Cancel:
    """To the worker: nobody waits for this job any more."""

    job: int


@dataclass(frozen=True)
class Ready:
    """From the worker: models are loaded and warm."""

    models: tuple[ModelInfo, ...]


@dataclass(frozen=True)
class Started:
    """From the worker: the job has left the queue."""

    job: int


@dataclass(frozen=True)
class Advanced:
    """From the worker: a step of the job is done."""

    job: int
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """From the worker: the job is done."""

    job: int
    result: Result


@dataclass(frozen=True)
class Failed:
    """From the worker: the job failed with a `CodecError` or `ServiceError`."""

    job: int
    error: Exception


ToWorker = Submit | Cancel | None  # None: finish and leave
FromWorker = Ready | Started | Advanced | Finished | Failed
