"""Fixtures for the codec's own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from model.codec import Codec
from model.weights.files import load_weights
from model.weights.registry import SHIPPED


@pytest.fixture(scope="session")
def codec() -> Codec:
    """The shipped model in float32: bfloat16 is not available everywhere."""
    return Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test with one and with two CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and on a busy machine two of them wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
