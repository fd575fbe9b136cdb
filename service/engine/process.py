"""Entry point of the worker process. A module of its own, so that naming it does not import torch into the API."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection

from service.engine.messages import RunnerOptions


def run_worker(pipe: Connection, options: RunnerOptions) -> None:
    """Run the worker until the other end of `pipe` says so or goes away."""
    # An interrupt at the terminal reaches the whole process group; the API decides when its worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from service.engine.runner import main

    main(pipe, options)
