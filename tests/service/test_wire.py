"""Messages between API and worker: whole, writable, without a copy, and an end that is noticed."""

from __future__ import annotations

import multiprocessing
import pickle
import threading

import numpy as np
import pytest

from service.engine.messages import Submit
from service.engine.port import EncodeRequest
from service.engine.worker_process import receive, send


def test_a_message_arrives_whole_however_large_its_pixels() -> None:
    ours, theirs = multiprocessing.Pipe()
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 700, 3), np.uint8)
    gaps = pixels[:, ::2]  # not in one piece
    messages = [Submit(1, EncodeRequest(pixels), 1.0, 1.0), Submit(2, EncodeRequest(gaps), 1.0, 1.0), None]
    writer = threading.Thread(target=lambda: [send(ours, message) for message in messages])
    writer.start()
    first, second, last = (receive(theirs) for _ in messages)
    writer.join()
    np.testing.assert_array_equal(first.order.pixels, pixels)
    np.testing.assert_array_equal(second.order.pixels, gaps)
    assert (first.number, last) == (1, None)
    assert first.order.pixels.flags.writeable
    assert not first.order.pixels.flags.owndata  # it lies where it was read to


@pytest.mark.parametrize("sent", [0, 50])
def test_an_end_in_the_middle_of_a_message_is_an_end(sent: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    if sent:
        ours.send_bytes(pickle.dumps((b"", [sent + 1])))
        ours.send_bytes(bytes(sent - 4))  # four bytes of length before them
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)
