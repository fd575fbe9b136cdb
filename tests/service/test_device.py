"""What the device does for a task beside its tiles."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from model.codec import Codec
from model.types import Analysis
from service.engine.device import TorchDevice
from service.engine.messages import DeviceOptions
from service.engine.port import EncodeRequest
from service.engine.request import Report, Task
from service.engine.tasks import EncodeTask


class Refines:
    """A task of which only the refinement is asked for."""

    threads = 0

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def refine(self, report: Report) -> None:
        self.threads = torch.get_num_threads()
        if self.error is not None:
            raise self.error


def test_a_refinement_has_the_cores_and_the_errors_of_the_device(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    task = Refines()
    try:
        device = TorchDevice(DeviceOptions(precision="float32", threads=3, cache_dir=tmp_path, tick_seconds=0.01))
        with ThreadPoolExecutor(1) as thread:
            thread.submit(torch.set_num_threads, 1).result()  # as behind a pass over a small image
            thread.submit(device.refine, cast(Task, task), print).result()
            assert task.threads == 3
            for error in (torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
                with pytest.raises(MemoryError):
                    thread.submit(device.refine, cast(Task, Refines(error)), print).result()
    finally:
        torch.set_num_threads(before)


def test_models_of_one_codec_id_are_no_company() -> None:
    """Their integers are equal, their encoders need not be."""

    def company(name: str) -> object:
        pixels = np.zeros((64, 64, 3), np.uint8)
        task = EncodeTask(1, EncodeRequest(pixels), Mock(), Mock())
        task.analysis = cast(Analysis, SimpleNamespace(canvas=pixels))
        task.codec = cast(Codec, SimpleNamespace(codec_id=bytes(8), info=SimpleNamespace(name=name)))
        return task.company

    assert company("a") == company("a")
    assert company("a") != company("b")
