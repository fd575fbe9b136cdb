"""`cdc bench serve`: the engine under load, beside the same code running one request at a time.

Every figure is taken in one run from one engine: with all requests sent at once, and with one sent when the one before
is done. Ratios are what to quote: absolute times depend on the machine.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model.container import Container, parse
from service.engine.messages import DeviceOptions, Ticked
from service.engine.pool import PoolEngine
from service.engine.port import DecodeRequest, EncodeRequest, OnProgress

Figures = dict[str, Any]
Files = dict[int, Container]  # by the side of the image
SIZES = (64, 128, 256, 512)


@dataclass
class Subject:
    """An engine, the ticks it reports, and how many requests it is given at the same time."""

    engine: PoolEngine
    ticks: list[tuple[float, Ticked]]
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(10_000))


@asynccontextmanager
async def subject(options: DeviceOptions) -> AsyncIterator[Subject]:
    """Start an engine, wait until it is warm, stop it afterwards."""
    ticks: list[tuple[float, Ticked]] = []
    engine = PoolEngine(
        [options],
        max_waiting=10_000,
        max_backlog_seconds=1e9,
        on_tick=lambda tick: ticks.append((time.perf_counter(), tick)),
    )
    await engine.start()
    try:
        async with asyncio.timeout(300):
            while not engine.status().ready:  # noqa: ASYNC110 - the engine has no event for it
                await asyncio.sleep(0.05)
        yield Subject(engine, ticks)
    finally:
        await engine.stop(5)


def picture(side: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A square of smooth colours with grain, uint8 [side, side, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    base = np.stack([np.sin(6 * x + seed), np.cos(5 * y), np.sin(4 * (x + y))], axis=-1) * 90 + 128
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = (base + rng.normal(0, 6, base.shape)).clip(0, 255).astype(np.uint8)
    return pixels


async def make_files(engine: PoolEngine, sides: Sequence[int]) -> Files:
    """One file of each size."""
    return {side: parse((await engine.run(EncodeRequest(picture(side)))).data) for side in sides}


async def timed_decode(it: Subject, request: DecodeRequest) -> float:
    """Seconds of one decode, its wait for a place included."""
    start = time.perf_counter()
    async with it.places:
        await it.engine.run(request)
    return time.perf_counter() - start


async def saturated(both: Sequence[Subject], files: Files, side: int, count: int, rounds: int) -> Figures:
    """Many requests at once, mixed steps, gammas and seeds: throughput against one at a time."""
    rng = random.Random(side)
    requests = [
        DecodeRequest(files[side], steps=rng.choice((4, 8, 17)), gamma=rng.choice((0.4, 0.8)), seed=n)
        for n in range(count)
    ]
    rates: list[list[float]] = [[], []]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            await asyncio.gather(*(timed_decode(both[which], r) for r in requests))
            rates[which].append(count / (time.perf_counter() - start))
    pairs = [a / b for a, b in zip(*rates, strict=True)]
    return {
        "batching_per_s": statistics.median(rates[0]),
        "one_at_a_time_per_s": statistics.median(rates[1]),
        "ratio": statistics.median(pairs),
    }


async def together(it: Subject, files: Files, count: int) -> Figures:
    """Decodes of 512x512 in 17 steps that arrive at the same time: when each is done."""
    start = time.perf_counter()
    ends: list[float] = []

    async def one(seed: int) -> None:
        await it.engine.run(DecodeRequest(files[512], steps=17, gamma=0.8, seed=seed))
        ends.append(time.perf_counter() - start)

    await asyncio.gather(*(one(seed) for seed in range(count)))
    mean, last = statistics.mean(ends), max(ends)
    return {"count": count, "last_s": last, "mean_s": mean, "median_s": statistics.median(ends), "ratio": mean / last}


async def behind_a_panorama(it: Subject, files: Files, steps: int) -> Figures:
    """A one-step 256x256 decode that arrives behind a long 2048x2048 one."""
    small = DecodeRequest(files[256], steps=1)
    idle = statistics.median([await timed_decode(it, small) for _ in range(5)])
    big = asyncio.create_task(it.engine.run(DecodeRequest(files[2048], steps=steps, gamma=0.8)))
    before = len(it.ticks)
    while not any(t.shape == (1024, 1024) and t.kind == "denoise" for _, t in it.ticks[before:]):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    latencies, waits = [], []
    for _ in range(5):
        first = len(it.ticks)
        latencies.append(await timed_decode(it, small))
        kinds = [t.shape for _, t in it.ticks[first:]]
        waits.append(kinds.index((256, 256)))
    large = [t.seconds for _, t in it.ticks[before:] if t.shape == (1024, 1024)]
    big.cancel()
    await asyncio.gather(big, return_exceptions=True)
    tick = statistics.median(large)
    return {
        "idle_latency_s": idle,
        "latency_s": statistics.median(latencies),
        "worst_latency_s": max(latencies),
        "bound_s": 3 * idle + 2 * tick,
        "ticks_before_its_first": max(waits),
        "tick_s": tick,
        "longest_tick_s": max(large),
    }


async def cancelled(it: Subject, files: Files, rounds: int) -> Figures:
    """From a cancel to the moment nothing of the request runs any more."""
    waits, ticks = [], []
    for number in range(rounds):
        begun = asyncio.Event()
        task = asyncio.create_task(it.engine.run(DecodeRequest(files[512], steps=200, gamma=0.8), _setter(begun)))
        await begun.wait()
        await asyncio.sleep(0.02 * number)
        first, start = len(it.ticks), time.perf_counter()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await it.engine.run(DecodeRequest(files[64], steps=1))  # the engine answers this when it has seen the cancel
        late = [(at, t) for at, t in it.ticks[first:] if t.shape == (512, 512)]
        waits.append(late[-1][0] - start if late else 0.0)
        ticks.append(len(late))
    return {"ticks_after_cancel": max(ticks), "seconds_after_cancel": max(waits)}


def _setter(event: asyncio.Event) -> OnProgress:
    return lambda _: event.set()


async def open_loop(it: Subject, files: Files, seconds: float, per_second: float, seed: int) -> Figures:
    """Poisson arrivals of mixed sizes, steps and gammas; they do not wait for answers."""
    rng = random.Random(seed)
    latencies: list[float] = []
    tasks: list[asyncio.Task[None]] = []

    async def one(request: DecodeRequest) -> None:
        latencies.append(await timed_decode(it, request))

    start, at = time.perf_counter(), 0.0
    while (at := at + rng.expovariate(per_second)) < seconds:
        side = rng.choices(SIZES, (4, 4, 2, 1))[0]
        request = DecodeRequest(files[side], steps=rng.choice((1, 4, 17)), gamma=rng.choice((0.4, 0.8)))
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        tasks.append(asyncio.create_task(one(request)))
    await asyncio.gather(*tasks)
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "requests": len(latencies),
        "finished_per_s": len(latencies) / (time.perf_counter() - start),
        "p50_s": cuts[49],
        "p95_s": cuts[94],
        "p99_s": cuts[98],
    }


async def run(options: DeviceOptions, *, quick: bool, say: Callable[[str], None]) -> Figures:
    """Run everything; `quick` takes a few rounds only. `say` is told of each part."""
    rounds, seconds = (3, 8.0) if quick else (9, 60.0)
    figures: Figures = {}
    async with subject(options) as batching:
        both = (batching, replace(batching, places=asyncio.Semaphore(1)))
        files = await make_files(batching.engine, (*SIZES, 2048))
        for side in SIZES:  # first passes of a shape are slow
            await batching.engine.run(DecodeRequest(files[side], steps=2, gamma=0.8))
        for side, count in ((64, 48), (128, 24), (256, 8)):
            say(f"saturation at {side}x{side}")
            figures[f"saturated {side}"] = await saturated(both, files, side, count, rounds)
        say("arriving together")
        figures["100 of 512 together"] = await together(batching, files, 20 if quick else 100)
        say("behind a panorama")
        figures["behind a panorama"] = await behind_a_panorama(batching, files, 65)
        say("cancel")
        figures["cancel"] = await cancelled(batching, files, rounds)
        for name, part in (("open loop, batching", both[0]), ("open loop, one at a time", both[1])):
            say(name)
            figures[name] = await open_loop(part, files, seconds, per_second=6.0, seed=1)
    return figures


def table(figures: Figures) -> str:
    """The figures as a Markdown table."""
    lines = ["| scenario | figures |", "|---|---|"]
    for name, values in figures.items():
        shown = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)
