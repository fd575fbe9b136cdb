"""Which floating-point type the decoder's networks run fastest in."""

from __future__ import annotations

import torch


def faster_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively (CUDA, x86 with AVX512-BF16 or AMX), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = any(_supported(name) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.bfloat16 if native else torch.float32


def _supported(name: str) -> bool:
    probe = getattr(torch.cpu, name, None)  # absent in some builds of torch: then float32 is right everywhere
    return bool(probe()) if probe is not None else False
