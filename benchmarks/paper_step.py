"""One denoiser step of the full-size cdc-x or cdc-eps beside a plain float32 implementation without hoisting.

    python -m benchmarks.paper_step [--variant x] [--sizes 256x256 512x768] [--threads 2] [--rounds 3] [--device cpu]

Weights are random. The two take turns in one run; what is compared is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import record
from model.networks.paper import CDCPaper, PaperConfig
from model.weights.published import translate
from tests.model.paper_oracle import Oracle, published_checkpoint


def networks_of(oracle: Oracle, dtype: torch.dtype, device: str) -> CDCPaper:
    """The product's networks with the oracle's weights."""
    tensors = {k: v for k, v in translate(oracle.state_dict()).items() if not k.startswith("hyper_prior.")}
    networks = CDCPaper(PaperConfig.of_tensors(tensors))
    networks.load_state_dict(tensors)
    networks = networks.eval().to(device).to(memory_format=torch.channels_last)
    networks.cast(dtype)
    return networks


def seconds_of(work: Callable[[], Tensor], device: str) -> tuple[float, Tensor]:
    """Seconds of a call and its result."""
    start = time.perf_counter()
    out = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, out


def psnr(found: Tensor, expected: Tensor) -> float:
    """In dB; the peak is the range of the expected values."""
    peak = float(expected.max() - expected.min())
    return float(10 * torch.log10(peak**2 / (found - expected).square().mean()))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=("x", "eps"), default="x")
    parser.add_argument("--sizes", nargs="+", default=["256x256", "512x768"], help="height x width")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = record.parse(parser)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    oracle, _ = published_checkpoint(options.variant, 64)
    oracle.to(options.device)
    rows = []
    for size in options.sizes:
        height, width = (int(side) for side in size.split("x"))
        x = torch.randn(options.batch, 3, height, width, device=options.device)
        y_hat = 3 * torch.randn(options.batch, 256, height // 16, width // 16, device=options.device)
        times = torch.full((options.batch, 1), 0.4, device=options.device)
        contexts = oracle.context_fn.contexts(y_hat)
        for name in options.dtypes:
            dtype = getattr(torch, name)
            networks = networks_of(oracle, dtype, options.device)
            modulation = networks.modulate(times[:, 0].double(), 0).to(dtype)
            injected = networks.inject(y_hat.to(dtype, memory_format=torch.channels_last))
            own = x.to(dtype, memory_format=torch.channels_last)
            ratios, plain, fast = [], [], []
            for round_number in range(options.rounds + 1):  # the first warms up
                a, expected = seconds_of(lambda: oracle.denoise_fn(x, times, contexts), options.device)  # noqa: B023
                b, found = seconds_of(lambda: networks.denoise(own, modulation, injected), options.device)  # noqa: B023
                if round_number:
                    ratios.append(a / b)
                    plain.append(a)
                    fast.append(b)
            error = float((found.float() - expected).abs().max() / expected.abs().max())
            row = {"model": f"cdc-{options.variant}", "size": size, "type": name, "threads": torch.get_num_threads()}
            row |= {"plain s": round(statistics.median(plain), 2), "ours s": round(statistics.median(fast), 2)}
            row |= {"ratio": round(statistics.median(ratios), 2), "largest relative difference": f"{error:.1e}"}
            rows.append(row | {"PSNR dB": round(psnr(found.float(), expected), 1)})
            print(rows[-1], flush=True)
    record.finish(options, {"batch": options.batch, "steps": rows})


if __name__ == "__main__":
    main()
