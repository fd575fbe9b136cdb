"""One worker process: as the API sees it a pipe, a thread that writes, a thread that reads; and where it begins.

Torch is imported in the process itself and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from service.engine.loop import Loop
from service.engine.messages import Cancel, DeviceOptions, FromWorker, Ready, Submit, ToWorker
from service.logs import configure_logging

log = logging.getLogger(__name__)
NICENESS = 10  # of a worker on the CPU: a tenth of the weight of a process at 0 (Linux, sched(7))


def run_worker(pipe: Connection, options: DeviceOptions) -> None:
    """Run the worker until the other end of `pipe` says so or goes away."""
    # Signals may reach the whole process group; the API decides when its worker ends, and a closed pipe ends it too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if options.device == "cpu":  # its threads take every core; the event loop beside them needs little, but at once
        os.nice(NICENESS)
    # OpenMP's threads spin while they wait for one another, and where others need the cores they wait for long: with
    # three requests in the CPU threads, or a neighbour on the machine, an encode took 20 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    configure_logging(options.log_level)
    try:
        work(pipe, options)
    except Exception:  # multiprocessing would print it, over many lines that no log collector takes for one
        log.critical("the worker failed", exc_info=True)
        sys.exit(1)


def work(pipe: Connection, options: DeviceOptions) -> None:
    """Read messages in a thread, run the loop in this one, until told to leave."""
    from service.engine.device import TorchDevice

    device = TorchDevice(options)
    sending = threading.Lock()

    def answer(message: FromWorker) -> None:
        with sending, contextlib.suppress(BrokenPipeError):  # nobody is there any more: the listener ends the loop
            send(pipe, message)

    loop = Loop(device, answer)
    threading.Thread(target=_listen, args=(pipe, loop), daemon=True).start()
    answer(Ready(device.models, device.device, device.profile.seconds_per_cost))
    loop.run()
    device.keep_profile()


def _listen(pipe: Connection, loop: Loop) -> None:
    """Pass messages on; when the other side is gone, nobody is left to work for."""
    while True:
        try:
            message = receive(pipe)
        except (EOFError, OSError):
            message = None
        if not isinstance(message, Submit | Cancel):
            loop.put(None)
            return
        loop.put(message)


class WorkerProcess:
    """A spawned process. Messages and its death are handed to the event loop it was made in."""

    def __init__(
        self,
        options: DeviceOptions,
        on_message: Callable[[WorkerProcess, FromWorker], None],
        on_death: Callable[[WorkerProcess], None],
    ) -> None:
        """Start the process; returns before it is ready."""
        context = multiprocessing.get_context("spawn")  # fork would copy threads' locks and CUDA's state
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run_worker, args=(theirs, options), name="cdc-worker", daemon=True)
        self._process.start()
        theirs.close()
        self._writer = ThreadPoolExecutor(1, "cdc-pipe")  # a large image may block the pipe
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
        self._writer.submit(send, self._pipe, message)

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

    def _read(self) -> None:
        """Thread: pass messages to the event loop until the process is gone."""
        message: Any
        while True:
            try:
                message = receive(self._pipe)
            except Exception:  # EOFError, OSError, or a message cut short by a kill: in every case the worker is lost
                message = None
            try:
                if message is None:
                    self._loop.call_soon_threadsafe(self._on_death, self)
                    return
                self._loop.call_soon_threadsafe(self._on_message, self, message)
            except RuntimeError:  # the event loop is closed: the service is gone
                return


# Messages over the pipe. Pixels go beside the pickle, not through it (PEP 574): pickled in one piece, the pixels of 24
# megapixels would be copied with the interpreter's lock held, and the event loop would stand still for 0.2 s.


def send(pipe: Connection, message: object) -> None:
    """Send a message; blocks until it is written. Raises OSError when the pipe is closed."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, 5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    pipe.send_bytes(pickle.dumps((head, [view.nbytes for view in views])))
    for view in views:
        while view:
            view = view[os.write(pipe.fileno(), view) :]


def receive(pipe: Connection) -> Any:
    """Return the next message; blocks. Arrays in it are writable.

    Raises:
        EOFError: the other side is gone, perhaps in the middle of a message.
        OSError: the pipe is closed.
    """
    head, sizes = pickle.loads(pipe.recv_bytes())  # noqa: S301 - of our own process
    buffers = []
    for size in sizes:
        buffers.append(np.empty(size, np.uint8))
        view = buffers[-1].data
        while view:
            count = os.readv(pipe.fileno(), [view])
            if count == 0:
                raise EOFError
            view = view[count:]
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - of our own process
