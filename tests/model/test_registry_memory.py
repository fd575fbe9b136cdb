"""Several models at once under a memory limit."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pytest
import torch

from model.codec import Codec
from model.weights.published import import_checkpoint
from model.weights.registry import Registry
from tests.model.paper_oracle import published_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small models beside the shipped one: a, b (cdc-x) and c (cdc-eps)."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, variant) in enumerate((("a", "x"), ("b", "x"), ("c", "eps"))):
        torch.save(published_checkpoint(variant, 8, seed)[1], folder / "source.pt")  # type: ignore[arg-type]
        import_checkpoint(folder / "source.pt", folder / f"{name}.safetensors", name=name)
    return folder


def test_the_least_recently_used_model_is_unloaded(folder: Path) -> None:
    size = Registry(folder, "float32").get("a").bytes
    registry = Registry(folder, "float32", memory_bytes=int(2.5 * size))
    a, _ = registry.get("a"), registry.get("b")
    assert registry.get("a") is a
    assert registry.loaded() == ["b", "a"]
    registry.get("c")
    assert registry.loaded() == ["a", "c"]
    everything = Registry(folder, "float32")
    for name in ("a", "b", "c"):
        everything.get(name)
    assert everything.loaded() == ["a", "b", "c"]


def test_a_model_in_use_is_neither_freed_nor_read_twice(folder: Path) -> None:
    registry = Registry(folder, "float32", memory_bytes=1)
    in_use = registry.get("a")
    registry.get("b")
    assert registry.loaded() == ["b"]
    assert registry.get("a") is in_use
    gone = weakref.ref(in_use)
    registry.get("b")
    del in_use
    gc.collect()
    assert gone() is None  # nothing else holds it
    assert registry.get("a").info.name == "a"


def test_threads_that_ask_at_once_get_one_model(folder: Path) -> None:
    registry = Registry(folder, "float32", memory_bytes=1)
    got: list[Codec] = []
    threads = [threading.Thread(target=lambda: got.append(registry.get("c"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(codec) for codec in got}) == 1
