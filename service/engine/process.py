"""Entry point of the worker process. A module of its own, so that naming it does not import torch into the API."""

from __future__ import annotations

import logging
import os
import signal
import sys
from multiprocessing.connection import Connection

from service.engine.messages import RunnerOptions
from service.logs import configure_logging

log = logging.getLogger(__name__)
NICENESS = 10  # of a worker on the CPU: a tenth of the weight of a process at 0 (Linux, sched(7))


def run_worker(pipe: Connection, options: RunnerOptions) -> None:
    """Run the worker until the other end of `pipe` says so or goes away."""
    # Signals may reach the whole process group; the API decides when its worker ends, and a closed pipe ends it too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if options.device == "cpu":  # its threads take every core; the event loop beside them needs little, but at once
        os.nice(NICENESS)
    configure_logging(options.log_level)
    try:
        from service.engine.runner import main

        main(pipe, options)
    except Exception:  # multiprocessing would print it, over many lines that no log collector takes for one
        log.critical("the worker failed", exc_info=True)
        sys.exit(1)
