"""One worker process as the API sees it: a pipe, a thread that writes, a thread that reads. Never imports torch."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.engine import wire
from service.engine.messages import FromWorker, RunnerOptions, ToWorker
from service.engine.process import run_worker

log = logging.getLogger(__name__)


class WorkerProcess:
    """A spawned process. Messages and its death are handed to the event loop it was made in."""

    def __init__(
        self,
        options: RunnerOptions,
        on_message: Callable[[WorkerProcess, FromWorker], None],
        on_death: Callable[[WorkerProcess], None],
    ) -> None:
        """Start the process; returns before it is ready."""
        context = multiprocessing.get_context("spawn")  # fork would copy threads' locks and CUDA's state
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run_worker, args=(theirs, options), name="cdc-worker", daemon=True)
        self._process.start()
        theirs.close()
        self._writer = ThreadPoolExecutor(1, "cdc-pipe")  # a large picture may block the pipe
        self._on_message, self._on_death = on_message, on_death
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, name="cdc-reader", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def send(self, message: ToWorker) -> None:
        """Send a message, later ones after earlier ones; one to a dead process is lost, its death is reported."""
        self._writer.submit(self._write, message)

    def end(self, patience_s: float) -> None:
        """Ask the process to leave; after `patience_s` seconds make it. Blocks."""
        self.send(None)
        self._process.join(timeout=patience_s)
        if self._process.is_alive():
            self._process.kill()
        self.close()

    def close(self) -> None:
        """Release what belongs to a process that has ended. Blocks."""
        self._process.join(timeout=1)
        self._pipe.close()
        self._writer.shutdown(wait=False, cancel_futures=True)

    def _write(self, message: ToWorker) -> None:
        try:
            wire.send(self._pipe, message)
        except (OSError, ValueError):
            log.info("the worker's pipe is closed")

    def _read(self) -> None:
        """Thread: pass messages to the event loop until the process is gone."""
        message: Any
        while True:
            try:
                message = wire.receive(self._pipe)
            except Exception:  # EOFError, OSError, or a message cut short by a kill: in every case the worker is lost
                message = None
            try:
                if message is None:
                    self._loop.call_soon_threadsafe(self._on_death, self)
                    return
                self._loop.call_soon_threadsafe(self._on_message, self, message)
            except RuntimeError:  # the event loop is closed: the service is gone
                return
