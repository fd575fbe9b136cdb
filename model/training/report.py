"""What a run says while it goes: a progress bar, lines of the log, TensorBoard, sample images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from model.training.validation import Evaluation


@dataclass(frozen=True)
class Line:
    """One step: loss, squared error, perceptual distance, bit per pixel, gradient norm."""

    step: int
    seconds: float
    total: float
    distortion: float
    perceptual: float
    rate_bpp: float
    gradient_norm: float
    lr: float


class Report:
    """Writes to the terminal and, where `folder` is given, to TensorBoard and samples/ in it."""

    def __init__(self, folder: Path | None = None, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._folder = folder
        self._bar = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("train", total=1.0, step=0)
        self.lines: list[Line] = []
        self._board = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away and close the files."""
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def progress(self, step: int, part: float) -> None:
        """Move the bar; `part` of the run is done."""
        self._bar.update(self._task, completed=min(1.0, part), step=step)

    def line(self, line: Line) -> None:
        """Say how a step went."""
        self.lines.append(line)
        self._console.print(
            f"{line.step} {line.seconds:.0f}s loss {line.total:.4f} {_decibel(line.distortion)} "
            f"{line.rate_bpp:.3f} bpp gradient {line.gradient_norm:.2f}"
            + (f" perceptual {line.perceptual:.4f}" if line.perceptual else ""),
            highlight=False,
        )
        if self._board is not None:
            for name, value in vars(line).items():
                if name != "step" and math.isfinite(value):
                    self._board.add_scalar(f"train/{name}", value, line.step)

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Say what the averaged weights give, and keep the sample images."""
        points = ", ".join(f"{p.bpp:.4f} bpp {p.psnr:.3f} dB" for p in evaluation.points)
        self._console.print(f"{step} evaluation: {points}", highlight=False)
        if self._folder is None:
            return
        (self._folder / "samples").mkdir(parents=True, exist_ok=True)
        for number, sample in enumerate(evaluation.samples):
            Image.fromarray(sample).save(self._folder / "samples" / f"{step:07d}-{number}.png")
        if self._board is not None:
            for p in evaluation.points:
                self._board.add_scalar(f"validation/bpp_q{p.quality}", p.bpp, step)
                self._board.add_scalar(f"validation/psnr_q{p.quality}", p.psnr, step)
            for number, sample in enumerate(evaluation.samples):
                self._board.add_image(f"sample/{number}", sample, step, dataformats="HWC")


def _decibel(squared_error: float) -> str:
    """Squared error on [-1, 1] as PSNR."""
    return f"{10 * math.log10(4 / squared_error):.2f} dB" if squared_error > 0 else "-"
