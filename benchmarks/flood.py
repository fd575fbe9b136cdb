"""Many clients at once, then uploads that stall: /livez must stay fast, and a fast caller must get through.

    python -m benchmarks.flood [--clients 300] [--seconds 30] [--stalled 400] [--encodes 40]

1. So many clients, in a process of their own, each send one request after the other: encodes of small and medium
   images and decodes. Who is refused asks again after a second, whatever Retry-After says. Twenty times a second /livez
   is asked over a new connection; its time counts from when it was due: one slow answer counts for all it holds up.
2. So many uploads stop after their headers and first bytes; beside them, from the same address, encodes are sent, four
   at the same time.

Exits with 1 when /livez or the event loop's lag is above 100 ms at the 99th percentile, when an answer is neither a
result, a refusal with Retry-After nor late, or when one of the encodes of the second part fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import io
import multiprocessing
import os
import random
import re
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from PIL import Image

from benchmarks import record
from benchmarks.server import running_server
from service.bench import picture
from service.engine.worker_process import NICENESS

BAR_S = 0.1
DEADLINE = "X-Deadline-Ms: 45000"  # 504 is then a foreseen answer
PROBE_S = 0.05
AGAIN_S = 1.0
SIDE_BY_SIDE = 4
TIMEOUT_S = 120.0
REFUSALS = (429, 503)
LENGTH = re.compile(rb"\ncontent-length: (\d+)")
LAG = re.compile(r'cdc_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)')


@dataclass(frozen=True)
class Call:
    """A request; how it is called in the table."""

    name: str
    path: str
    content_type: str
    body: bytes

    def head(self, length: int | None = None) -> bytes:
        """The request's head; `length` is what Content-Length promises, the body's own by default."""
        length = len(self.body) if length is None else length
        lines = (f"POST {self.path} HTTP/1.1", "Host: cdc", f"Content-Type: {self.content_type}", DEADLINE)
        return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


async def send(port: int, call: Call) -> tuple[int, bool]:
    """Send a call over a connection of its own; return status and whether Retry-After came, (0, False): no answer."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(call.head() + call.body)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(LENGTH.findall(head)[0]))
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError):
        return 0, False
    return int(head[9:12]), b"\nretry-after:" in head


async def keep_sending(port: int, calls: list[Call], number: int, until: float, answers: Counter[str]) -> None:
    """One client of the flood."""
    chooser = random.Random(number)
    while time.monotonic() < until:
        call = chooser.choice(calls)
        status, advised = await send(port, call)
        fault = status not in (200, 504, *REFUSALS) or (status in REFUSALS and not advised)
        answers[f"{call.name} {status}" + " FAULT" * fault] += 1
        if status != 200:
            await asyncio.sleep(AGAIN_S)


def flood(port: int, calls: list[Call], clients: int, seconds: float) -> Counter[str]:
    """The first part, in a process of its own; blocks until the last answer is there."""
    answers: Counter[str] = Counter()

    async def run() -> None:
        until = time.monotonic() + seconds
        await asyncio.gather(*(keep_sending(port, calls, number, until, answers) for number in range(clients)))

    os.nice(NICENESS)  # clients are on other machines as a rule
    asyncio.run(run())
    return answers


async def stall_and_send(port: int, stalled: int, encodes: int, call: Call) -> tuple[int, Counter[str], list[float]]:
    """The second part: how many stalled uploads were answered 408, the encodes' answers, their seconds."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(stalled)]
    for _, writer in opened:
        writer.write(call.head() + call.body[:100])
    await asyncio.sleep(1.0)
    answers: Counter[str] = Counter()
    seconds: list[float] = []
    turns = iter(range(encodes))

    async def one_after_the_other() -> None:
        for _ in turns:
            start = time.perf_counter()
            status, _ = await send(port, call)
            answers[str(status)] += 1
            seconds.append(time.perf_counter() - start)

    await asyncio.gather(*(one_after_the_other() for _ in range(SIDE_BY_SIDE)))
    gone = sum(await asyncio.gather(*(ended(reader) for reader, _ in opened)))
    for _, writer in opened:
        writer.close()
    return gone, answers, seconds


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether a stalled upload was answered 408."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            return (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    return False


@contextmanager
def probed(port: int) -> Iterator[list[float]]:
    """Yield seconds of /livez, asked in a thread until the block ends; infinite ones failed."""
    seconds: list[float] = []
    done = threading.Event()

    def ask() -> None:
        due = time.perf_counter()
        while not done.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
            try:
                connection.request("GET", "/livez")
                failed = connection.getresponse().status != 200
            except OSError:
                failed = True
            finally:
                connection.close()
            now = time.perf_counter()
            while due <= now:
                seconds.append(float("inf") if failed else now - due)
                due += PROBE_S
            time.sleep(max(0.0, due - time.perf_counter()))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seconds
    finally:
        done.set()
        thread.join()


def lags(client: httpx.Client) -> dict[float, float]:
    """Measured lags of the event loop so far: how many were at most so many seconds."""
    return {float(le): float(count) for le, count in LAG.findall(client.get("/metrics").text)}


def lag_p99(before: dict[float, float], after: dict[float, float]) -> float:
    """The 99th percentile of the lags between two looks: the bound of its bucket, in seconds."""
    counts = {bound: after[bound] - before[bound] for bound in after}
    return next((bound for bound in sorted(counts) if counts[bound] >= 0.99 * counts[float("inf")]), float("inf"))


def calls_of(client: httpx.Client) -> list[Call]:
    """What the clients send: three kinds of encodes and two of decodes."""

    def image(side: int, kind: str) -> bytes:
        out = io.BytesIO()
        Image.fromarray(picture(side)).save(out, kind, quality=90)
        return out.getvalue()

    def file(side: int) -> bytes:
        return client.post("/encode", content=image(side, "JPEG")).raise_for_status().content

    return [
        Call("encode 128 PNG", "/encode", "image/png", image(128, "PNG")),
        Call("encode 256 PNG", "/encode", "image/png", image(256, "PNG")),
        Call("encode 1024 JPEG", "/encode", "image/jpeg", image(1024, "JPEG")),
        Call("decode 256, 1 step", "/decode?steps=1&gamma=0", "image/x-cdc", file(256)),
        Call("decode 512, 4 steps", "/decode?steps=4&gamma=0.8", "image/x-cdc", file(512)),
    ]


def quantile(seconds: list[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--stalled", type=int, default=400)
    parser.add_argument("--encodes", type=int, default=40)
    options = record.parse(parser)
    with running_server() as (client, _):
        port = client.base_url.port or 80
        calls = calls_of(client)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:
            elsewhere.submit(int).result()  # started before the clock runs
            before, start = lags(client), time.perf_counter()
            with probed(port) as live:
                answers = elsewhere.submit(flood, port, calls, options.clients, options.seconds).result()
            lasted, lag = time.perf_counter() - start, lag_p99(before, lags(client))
        gone, encoded, seconds = asyncio.run(stall_and_send(port, options.stalled, options.encodes, calls[1]))
    p50, p99, worst = quantile(live, 50), quantile(live, 99), max(live)
    faults = sum(count for name, count in answers.items() if name.endswith("FAULT"))
    figures = {
        "clients": options.clients,
        "seconds": round(lasted),
        "answers": dict(sorted(answers.items())),
        "bar_s": BAR_S,
        "livez_s": {"p50": round(p50, 3), "p99": round(p99, 3), "worst": round(worst, 3)},
        "event_loop_lag_p99_at_most_s": lag,
        "neither_result_nor_refusal": faults,
        "stalled_uploads": options.stalled,
        "stalled_answered_408": gone,
        "encodes_beside_them": dict(encoded),
        "slowest_encode_s": round(max(seconds), 2),
    }
    record.finish(options, figures)
    sys.exit(int(p99 > BAR_S or lag > BAR_S or faults > 0 or encoded["200"] < options.encodes))


if __name__ == "__main__":
    main()
