"""Time of a 17-step decode of a 768x512 image, by stage, and the arithmetic it achieves.

    python -m benchmarks.step_speed [--precision auto] [--rounds 3] [--json FILE]

The multiply-adds are counted by torch; the yardstick is a large matrix product of the same type in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import record
from model.weights.registry import Registry
from service.bench import picture


def seconds_of(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of `work` after one warm-up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_gflops(dtype: torch.dtype, rounds: int, side: int = 2048) -> float:
    """GFLOP/s of a product of two square matrices."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    return 2 * side**3 / seconds_of(lambda: a @ b, 3 * rounds) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    options = record.parse(parser)
    codec = Registry(precision=options.precision).get()
    pixels = picture(768)[:512]
    data = codec.pack(codec.analyse(pixels), 128)
    unpacked = codec.unpack(data)
    state = codec.start(unpacked, 17, 1.0)
    codec.condition_tiles([(state, 0)])
    with FlopCounterMode(display=False) as counter:
        codec.denoise_tiles([(state, 0)])
    flop = counter.get_total_flops()

    def steps() -> None:
        state = codec.start(unpacked, 17, 1.0)
        while not state.done:
            codec.denoise_step(state)

    stages = {
        "entropy decoding": seconds_of(lambda: codec.unpack(data), options.rounds),
        "start (noise, canvas)": seconds_of(lambda: codec.start(unpacked, 17, 1.0), options.rounds),
        "conditioner": seconds_of(
            lambda: codec.condition_tiles([(codec.start(unpacked, gamma=0.0), 0)]), options.rounds
        ),
        "17 steps with start and conditioner": seconds_of(steps, options.rounds),
        "8-bit pixels": seconds_of(lambda: codec.finish(state), options.rounds),
    }
    rest = stages["start (noise, canvas)"] + stages["conditioner"]
    step = (stages["17 steps with start and conditioner"] - rest) / 17
    achieved, yardstick = flop / step / 1e9, matrix_gflops(codec.dtype, options.rounds)
    figures = {
        "size": "768x512",
        "precision": str(codec.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "gflop_a_step": round(flop / 1e9, 1),
        "stages": [{"stage": name, "seconds": round(value, 3)} for name, value in stages.items()],
        "step_ms": round(1000 * step),
        "gflop_per_s": round(achieved),
        "matrix_product_gflop_per_s": round(yardstick),
        "percent_achieved": round(100 * achieved / yardstick),
    }
    record.finish(options, figures)


if __name__ == "__main__":
    main()
