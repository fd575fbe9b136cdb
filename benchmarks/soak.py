"""A long, rough load through the HTTP API: every answer is checked, and nothing may get stuck.

    python -m benchmarks.soak [--minutes 30] [--clients 6] [--seed 0] [--json FILE]

Clients decode images of several sizes, steps, gammas and seeds, with and without `deterministic`, send files with
damaged symbols (which may decode to rubbish), cancel, and set deadlines; the worker process is killed every minute; and
/livez is asked ten times a second.
A decode is right when it equals its reference to the result promise: at most one level on at most 0.1 % of the values,
bit for bit when deterministic. Exits with 1 on any wrong or stuck answer.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import statistics
import sys
import time
from collections import Counter
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks import record
from benchmarks.server import memory, running_server
from model.container import Section, pack, parse
from service.bench import picture

SIDES = (64, 100, 128, 256, 512)
CDC = {"Content-Type": "image/x-cdc"}
STUCK_SECONDS = 180.0
Case = tuple[int, int, float, int]  # side, steps, gamma, seed


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def damaged(file: bytes) -> bytes:
    """The file with its y stream cut in half, and a right checksum."""
    container = parse(file)
    sections = [
        Section(s.type, s.data[: len(s.data) // 8 * 4 + 1] if s.type == 2 else s.data) for s in container.sections
    ]
    return pack(container.header, sections)


class Soak:
    def __init__(self, base_url: str, files: dict[int, bytes], references: dict[Case, np.ndarray], seed: int) -> None:
        self.client = httpx.AsyncClient(base_url=base_url, timeout=STUCK_SECONDS)
        self.files, self.references = files, references
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.live: list[float] = []
        self.live_failures = 0
        self.until = 0.0

    async def one(self) -> None:
        """One random request, checked."""
        case = self.random.choice(list(self.references))
        kind = self.random.choices(("decode", "deterministic", "damaged", "cancel", "deadline"), (50, 20, 10, 12, 8))[0]
        file = damaged(self.files[case[0]]) if kind == "damaged" else self.files[case[0]]
        params: dict[str, Any] = {"steps": case[1], "gamma": case[2], "seed": case[3]}
        headers = dict(CDC)
        if kind == "deterministic":
            params["deterministic"] = "true"
        if kind == "deadline":
            headers["X-Deadline-Ms"] = str(self.random.choice((20, 100, 400)))
        call = asyncio.create_task(self.client.post("/decode", content=file, params=params, headers=headers))
        if kind == "cancel":
            await asyncio.sleep(self.random.random() * 1.5)
            if not call.done():
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                self.counts["cancelled"] += 1
                return
        try:
            self.check(kind, case, await call)
        except httpx.TimeoutException:
            self.wrong.append(f"stuck: {kind} {case}")
        except httpx.TransportError as error:
            self.wrong.append(f"connection: {kind} {case} {error!r}")

    def check(self, kind: str, case: Case, answer: httpx.Response) -> None:
        status = answer.status_code
        self.counts[f"{kind} {status}"] += 1
        if status in (429, 503):
            if "retry-after" not in answer.headers:
                self.wrong.append(f"{status} without Retry-After")
            return
        if status == 200 and kind != "damaged":
            difference = np.abs(pixels_of(answer.content) - self.references[case])
            most, share = int(difference.max()), float((difference > 0).mean())
            if most > 1 or share > 0.001 or (kind == "deterministic" and most):
                self.wrong.append(f"wrong image: {kind} {case}: {most} levels, {share:.5f} of values")
        elif (kind, status) not in {("damaged", 422), ("damaged", 200), ("deadline", 504)}:
            self.wrong.append(f"unexpected: {kind} {case} {status} {answer.text[:200]}")

    async def clients(self) -> None:
        while time.monotonic() < self.until:
            await self.one()

    async def killer(self, server: psutil.Process) -> None:
        """Kill the worker every minute: the child process that uses most memory."""
        while time.monotonic() + 60 < self.until:
            await asyncio.sleep(60)
            workers = [p for p in server.children(recursive=True) if p.is_running()]
            if workers:
                max(workers, key=lambda p: p.memory_info().rss).kill()
                self.counts["kills"] += 1

    async def prober(self) -> None:
        async with httpx.AsyncClient(base_url=self.client.base_url, timeout=10) as probe:
            while time.monotonic() < self.until:
                start = time.perf_counter()
                try:
                    self.live_failures += (await probe.get("/livez")).status_code != 200
                except httpx.HTTPError:
                    self.live_failures += 1
                self.live.append(time.perf_counter() - start)
                await asyncio.sleep(0.1)

    async def watcher(self, server: psutil.Process, samples: list[tuple[float, int, int]]) -> None:
        start = time.monotonic()
        while time.monotonic() < self.until:
            samples.append((time.monotonic() - start, server.memory_info().rss, memory(server)))
            await asyncio.sleep(2)

    async def run(self, minutes: float, clients: int, server: psutil.Process) -> dict[str, Any]:
        self.until = time.monotonic() + 60 * minutes
        samples: list[tuple[float, int, int]] = []
        tasks = [
            self.killer(server),
            self.prober(),
            self.watcher(server, samples),
            *(self.clients() for _ in range(clients)),
        ]
        await asyncio.gather(*tasks)
        await self.client.aclose()
        third = 20 * minutes
        early = [s[1] for s in samples if third < s[0] <= 2 * third]
        late = [s[1] for s in samples if s[0] > 2 * third]
        total_early = [s[2] for s in samples if third < s[0] <= 2 * third]
        total_late = [s[2] for s in samples if s[0] > 2 * third]
        return {
            "counts": dict(self.counts),
            "wrong": self.wrong,
            "livez_p99_ms": 1000 * statistics.quantiles(self.live, n=100)[98],
            "livez_failures": self.live_failures,
            "api_mib_middle_third": statistics.median(early) / 2**20,
            "api_mib_last_third": statistics.median(late) / 2**20,
            "all_mib_middle_third": statistics.median(total_early) / 2**20,
            "all_mib_last_third": statistics.median(total_late) / 2**20,
        }


def prepare(client: httpx.Client) -> tuple[dict[int, bytes], dict[Case, np.ndarray]]:
    """Files of each size and the reference of each case, decoded alone and deterministically."""
    files, references = {}, {}
    for side in SIDES:
        out = io.BytesIO()
        Image.fromarray(picture(side)).save(out, "PNG")
        answer = client.post("/encode", content=out.getvalue(), headers={"Content-Type": "image/png"})
        files[side] = answer.raise_for_status().content
    for side in SIDES:
        for steps, gamma, seed in ((1, 0.0, 0), (4, 0.8, 3), (17, 0.8, 9)):
            params = {"steps": steps, "gamma": gamma, "seed": seed, "deterministic": "true"}
            answer = client.post("/decode", content=files[side], params=params, headers=CDC)
            references[side, steps, gamma, seed] = pixels_of(answer.raise_for_status().content)
    return files, references


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = record.parse(parser)
    with running_server() as (client, server):
        files, references = prepare(client)
        soak = Soak(str(client.base_url), files, references, options.seed)
        figures = asyncio.run(soak.run(options.minutes, options.clients, server))
        status = client.get("/readyz").status_code
    record.finish(options, figures)
    sys.exit(int(bool(figures["wrong"]) or figures["livez_failures"] > 0 or status != 200))


if __name__ == "__main__":
    main()
