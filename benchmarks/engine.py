"""The engine under load, beside the same code running one request at a time: `cdc bench serve`, with a record.

python -m benchmarks.engine [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks import record
from service import bench
from service.engine.messages import DeviceOptions


def rounded(value: object) -> object:
    """Floats to three significant digits."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    options = record.parse(parser)
    device = DeviceOptions(models_dir=None, precision=options.precision, device="cpu")
    figures = asyncio.run(bench.run(device, quick=options.quick, say=print))
    record.finish(options, {name: {k: rounded(v) for k, v in found.items()} for name, found in figures.items()})


if __name__ == "__main__":
    main()
