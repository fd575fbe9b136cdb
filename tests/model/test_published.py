"""Published checkpoints: what is read of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import WeightsError
from model.weights.published import import_checkpoint, read_checkpoint
from tests.model.test_paper import save_random


def test_import_takes_the_average_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    oracle, path = save_random("x", tmp_path, width=8)
    own = read_checkpoint(path)
    assert torch.equal(own["denoise_fn.final_conv.1.bias"], oracle.denoise_fn.final_conv[1].bias)
    assert not any(k.startswith(("loss_fn_vgg", "train_")) for k in own)
    with pytest.raises(WeightsError, match="cdc-x, not cdc-eps"):
        import_checkpoint(path, tmp_path / "o", variant="eps")
    info = import_checkpoint(path, tmp_path / "w.safetensors", rho=0.9)
    assert "rho 0.9" in info.provenance
    assert "sha256" in info.provenance
    again = import_checkpoint(path, tmp_path / "w2.safetensors", rho=0.0)
    assert again.codec_id == info.codec_id

    def refused(change: dict[str, Any], match: str) -> None:
        tensors = {f"ema_model.{k}": v for k, v in own.items()} | change
        torch.save({"step": 1, "ema": {k: v for k, v in tensors.items() if v is not None}}, tmp_path / "bad.pt")
        with pytest.raises(WeightsError, match=match):
            import_checkpoint(tmp_path / "bad.pt", tmp_path / "o")

    refused({"ema_model.denoise_fn.other": torch.zeros(1)}, "no tensor of the published")
    refused({"ema_model.denoise_fn.final_conv.1.bias": None}, "head.bias")
    refused({"ema_model.denoise_fn.final_conv.1.bias": torch.zeros(4)}, "size mismatch|shape")
    refused({"ema_model.context_fn.prior.affine.0.weight": torch.zeros(3)}, "shape")
    refused({"ema_model.denoise_fn.final_conv.1.bias": torch.full((3,), float("nan"))}, "not a number")
    refused({"ema_model.denoise_fn.final_conv.1.bias": "text"}, "float tensor")
    for rubbish in (b"", b"not a pickle", path.read_bytes()[:5000]):
        (tmp_path / "bad.pt").write_bytes(rubbish)
        with pytest.raises(WeightsError, match="checkpoint"):
            import_checkpoint(tmp_path / "bad.pt", tmp_path / "o")


def test_import_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="plain tensors"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
