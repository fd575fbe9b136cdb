"""Encodes of small images over HTTP, many at once: how light the road is.

    python -m benchmarks.small_encodes [--side 64] [--in-flight 8] [--seconds 10] [--json FILE]

Starts `cdc serve`, sends images that all differ over kept connections, and counts the answers. The caller writes
HTTP by hand: a client library would take a part of the processors that are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time

import numpy as np
from PIL import Image

from benchmarks import record
from benchmarks.server import running_server
from tests.service.conftest import image_file

PICTURES = 64
WARM_UP_S = 2.0


def picture(side: int, seed: int) -> bytes:
    """A PNG of smooth colours with grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    base = np.stack([np.sin(6 * x + seed), np.cos(5 * y), np.sin(4 * (x + y))], axis=-1) * 90 + 128
    return image_file(Image.fromarray((base + rng.normal(0, 6, base.shape)).clip(0, 255).astype(np.uint8)))


async def caller(port: int, bodies: itertools.count[int], files: list[bytes], until: float, ends: list[float]) -> None:
    """Encode over one connection until a time of the clock, noting how long each took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        number = next(bodies)
        body = files[number % len(files)]
        quality = 1 + number // len(files) % 100  # so that no two requests are the same work
        head = f"POST /encode?quality={quality} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        start = time.perf_counter()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        length = next(h for h in answer.lower().split(b"\r\n") if h.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        ends.append(time.perf_counter() - start)
    writer.close()


async def measure(port: int, side: int, in_flight: int, seconds: float) -> tuple[list[float], int]:
    """Seconds of each encode that ended within the time, and how many there were before."""
    files, bodies = [picture(side, seed) for seed in range(PICTURES)], itertools.count()
    ends: list[float] = []
    for duration in (WARM_UP_S, seconds):
        before, ends = len(ends), []
        until = time.perf_counter() + duration
        await asyncio.gather(*(caller(port, bodies, files, until, ends) for _ in range(in_flight)))
    return ends, before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = record.parse(parser)
    with running_server() as (client, process):
        processes = [process, *process.children(recursive=True)]
        before = [sum(p.cpu_times()[:2]) for p in processes]
        port = client.base_url.port
        assert port is not None
        ends, before_them = asyncio.run(measure(port, options.side, options.in_flight, options.seconds))
        spent = [sum(p.cpu_times()[:2]) - b for p, b in zip(processes, before, strict=True)]
    total = options.seconds + WARM_UP_S
    figures = {
        "side": options.side,
        "in_flight": options.in_flight,
        "encodes_per_s": round(len(ends) / options.seconds, 1),
        "p50_ms": round(1000 * statistics.median(ends), 1),
        "p95_ms": round(1000 * statistics.quantiles(ends, n=20)[18], 1),
        "api_cores": round(spent[0] / total, 2),
        "engine_cores": round(max(spent[1:]) / total, 2),
        "cpu_ms_per_encode": round(1000 * sum(spent) / (len(ends) + before_them), 1),
    }
    record.finish(options, figures)


if __name__ == "__main__":
    main()
