"""Messages over the pipe between API and worker. Pixels go beside the pickle, not through it (PEP 574).

Pickled in one piece, the pixels of 24 megapixels would be copied with the interpreter's lock held, and the event loop
of the API would stand still for 0.2 s. Written and read as they lie in memory, they leave the lock to others.
"""

from __future__ import annotations

import os
import pickle
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


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
