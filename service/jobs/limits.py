"""What is refused before any work is done, and how much may be held at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from model.errors import InvalidParameter
from service.errors import Busy, TooManyPixels, TooMuchWork
from service.settings import Settings

RETRY_SECONDS = 2.0  # an image is held for seconds, so asking again soon is worth it


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
        max_pixels: pixels of an image.
        max_steps: denoising steps of a decode.
        max_pixel_steps: pixels x steps of a decode.
    """

    max_pixels: int
    max_steps: int
    max_pixel_steps: int

    def check_size(self, width: int, height: int) -> None:
        """Raise TooManyPixels where an answer would have more pixels than an image may."""
        if width * height > self.max_pixels:
            raise TooManyPixels(f"{width}x{height} pixels are asked for; the limit is {self.max_pixels}")

    def check_cost(self, pixels: int, steps: int) -> None:
        """Refuse a decode of `pixels` in `steps` denoising steps that is over the limits.

        Raises:
            InvalidParameter: more steps than allowed.
            TooMuchWork: pixels x steps over the limit; the message says how many steps would do.
        """
        if steps > self.max_steps:
            raise InvalidParameter(f"steps must be 1..{self.max_steps}, not {steps}")
        if pixels * steps > self.max_pixel_steps:
            most = self.max_pixel_steps // pixels
            advice = f"ask for at most {most} steps" if most else "the image is too large to decode here"
            raise TooMuchWork(
                f"{pixels} pixels x {steps} steps = {pixels * steps} exceed the limit of {self.max_pixel_steps}; "
                + advice
            )

    def check_refinement(self, pixels: int, steps: int) -> None:
        """Raise TooMuchWork for an encode whose refinement costs as much as that many steps, over the limit."""
        if pixels * steps > self.max_pixel_steps:
            raise TooMuchWork(
                f"{pixels} pixels, refined for the work of {steps} denoising steps, exceed the limit of "
                f"{self.max_pixel_steps} pixels x steps; ask for less effort"
            )


class Budget:
    """An amount that requests hold for a while, such as pixels. Used on the event loop only.

    A request larger than the whole budget is let in when nothing else is held: it would never fit otherwise.
    """

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.held = 0
        self._what = what

    def check(self, amount: int) -> None:
        """Raise Busy when others hold too much at present for `amount` more."""
        if self.held and self.held + amount > self.total:
            raise Busy(f"too many {self._what} are being worked on; try again shortly", RETRY_SECONDS)

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Hold `amount` until the block ends. Raises Busy as `check` does."""
        self.check(amount)
        self.held += amount
        try:
            yield
        finally:
            self.held -= amount


@dataclass(frozen=True)
class JobLimits:
    """How many jobs there may be, and how long they are kept.

    Attributes:
        result_ttl_s: seconds a result is kept after the end of its job.
        gone_ttl_s: seconds after that during which the job is known to have existed.
        max_queued: executions that may wait.
        max_running: executions at the same time in one process; they share the engine's forward passes.
        max_bytes: of uploads, results and previews together that one process keeps in its memory.
        max_backlog_s: device seconds that may wait when a request comes that does not want to.
    """

    result_ttl_s: float = 3600.0
    gone_ttl_s: float = 86_400.0
    max_queued: int = 1000
    max_running: int = 16
    max_bytes: int = 512 << 20
    max_backlog_s: float = 120.0


def limits_of(settings: Settings) -> Limits:
    """The limits of a request that the settings describe."""
    return Limits(settings.max_pixels, settings.max_steps, settings.max_pixel_steps)


def job_limits_of(settings: Settings) -> JobLimits:
    """The limits of jobs that the settings describe."""
    return JobLimits(
        result_ttl_s=settings.job_result_ttl_s,
        gone_ttl_s=settings.job_gone_ttl_s,
        max_queued=settings.max_queued_jobs,
        max_running=settings.max_running_jobs,
        max_bytes=settings.max_job_bytes,
        max_backlog_s=settings.max_backlog_s,
    )
