"""Damaged `.cdc` files and hostile images against a real server: every answer must be one that is foreseen.

    python -m benchmarks.hostile [--files 300] [--images 120] [--seed 0] [--json FILE]

Exits with 1 on a 5xx, a broken connection, an answer outside the tables of `hostile_files` and `hostile_images`, a
worker that was replaced, memory more than 1 GiB above the start, or a valid file that afterwards decodes differently.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from matplotlib import get_data_path
from PIL import ExifTags, Image

from benchmarks import record
from benchmarks.cases import OK, Answer, Case
from benchmarks.hostile_files import MAX_PIXELS, Valid, damaged_files
from benchmarks.hostile_images import hostile_images, save
from benchmarks.server import memory, running_server

LIMIT_MIB = 1024
POLL_SECONDS = 0.05
SIZE = (96, 80)
CDC_MAGIC = b"\x8fCDC\r\n\x1a\n"


@dataclass
class Report:
    """What came back.

    Attributes:
        answers: how often each kind got each answer.
        readable: damaged `.cdc` files with a right checksum that decoded to an image.
        failures: a line for each answer that is not foreseen.
        slowest: seconds, route and kind of the slowest request.
    """

    answers: dict[tuple[str, str], Counter[Answer]] = field(default_factory=lambda: defaultdict(Counter))
    readable: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str, str] = (0.0, "", "")


@dataclass
class Memory:
    """Resident MiB of the server with its worker."""

    start: float = 0.0
    peak: float = 0.0
    end: float = 0.0


def crop() -> Image.Image:
    """A small part of the photograph that matplotlib carries."""
    path = Path(get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return Image.open(path).convert("RGB").crop((200, 80, 200 + SIZE[0], 80 + SIZE[1]))


def valid_files(client: httpx.Client) -> Valid:
    """Encode the files that are then damaged."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Artist] = "Somebody"
    full = crop()
    full.putalpha(full.getchannel("G"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 2, (SIZE[1], SIZE[0], 3), np.uint8) * np.uint8(255))
    bodies = [
        client.post("/encode", content=save(image, exif=block), params={"quality": quality, "metadata": "keep"})
        for image, block, quality in ((crop(), b"", 50), (full, exif.tobytes(), 50), (noise, b"", 100))
    ]
    plain, with_sections, escaped = (r.raise_for_status().content for r in bodies)
    return Valid(plain, with_sections, escaped, SIZE)


def send(client: httpx.Client, case: Case) -> tuple[Answer | None, str]:
    """Send one request; return its answer and what is wrong with it, "" if nothing. None: there was no answer."""
    headers = {} if case.content_type is None else {"Content-Type": case.content_type}
    try:
        response = client.post(case.route, content=case.body, params=case.query, headers=headers)
    except httpx.HTTPError as error:
        return None, f"no answer: {type(error).__name__} {error}"
    answer = response.status_code, ""
    if response.status_code != 200:
        if response.headers.get("content-type") != "application/problem+json":
            return answer, "not a problem"
        answer = response.status_code, str(response.json()["type"]).removeprefix("/problems/")
    if answer not in case.allowed:
        return answer, "not foreseen" if answer == OK else f"not foreseen: {response.json()['detail']}"
    return answer, fault_of(case, response) if answer == OK else ""


def fault_of(case: Case, response: httpx.Response) -> str:
    """What is wrong with an answer of 200: a size other than the case names, or a body that is not what it says."""
    if case.route == "/inspect":
        told = response.json()
        size = told["width"], told["height"]
    else:
        size = int(response.headers["x-cdc-width"]), int(response.headers["x-cdc-height"])
    if case.size is not None and size != case.size:
        return f"an image of {size[0]}x{size[1]} instead of {case.size[0]}x{case.size[1]}"
    if case.route == "/encode":
        return "" if response.content.startswith(CDC_MAGIC) and size[0] * size[1] <= MAX_PIXELS else "not a file"
    if case.route == "/decode":
        with Image.open(BytesIO(response.content)) as image:
            image.load()
            return "" if image.size == size else f"a PNG of {image.size[0]}x{image.size[1]}"
    return ""


def attack(client: httpx.Client, cases: Sequence[Case]) -> Report:
    """Send all of `cases`, one after the other; those left over when the server is gone are not sent."""
    report = Report()
    for number, case in enumerate(cases):
        start = time.perf_counter()
        answer, fault = send(client, case)
        report.slowest = max(report.slowest, (time.perf_counter() - start, case.route, case.kind))
        if answer is not None:
            report.answers[case.route, case.kind][answer] += 1
        if fault or answer is None:
            report.failures.append(f"{case.route} number {number}, {case.kind}: {answer} {fault}")
        report.readable += case.sealed and case.route == "/decode" and answer == OK
        if answer is None and not alive(client):
            report.failures.append("the server is gone")
            return report
    if restarts := worker_restarts(client):
        report.failures.append(f"the worker was replaced {restarts} times")
    return report


def alive(client: httpx.Client) -> bool:
    """Whether the server answers at all."""
    try:
        return client.get("/livez").status_code == 200
    except httpx.HTTPError:
        return False


def worker_restarts(client: httpx.Client) -> int:
    """How often the server has replaced its worker."""
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(v for v in lines if v.startswith("cdc_worker_restarts_total")).split()[1]))


def fingerprint(client: httpx.Client, file: bytes) -> tuple[str, str]:
    """Digests of the encoded photograph and of the image that `file` decodes to."""
    encoded = client.post("/encode", content=save(crop()), params={"quality": 50}).raise_for_status().content
    decoded = client.post("/decode", content=file, params={"steps": 2}).raise_for_status().content
    return hashlib.sha256(encoded).hexdigest(), hashlib.sha256(decoded).hexdigest()


def resident_mib(process: psutil.Process) -> float:
    """Resident MiB of a process and its children, 0 when it is gone."""
    try:
        return memory(process) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


@contextmanager
def watched(process: psutil.Process) -> Iterator[Memory]:
    """Yield the memory of a process, which is followed in a thread until the block ends."""
    seen = Memory(start=resident_mib(process))
    done = threading.Event()

    def follow() -> None:
        while not done.wait(POLL_SECONDS):
            seen.peak = max(seen.peak, resident_mib(process))

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen.end = resident_mib(process)
        seen.peak = max(seen.peak, seen.end)


def figures_of(report: Report, seen: Memory, cases: Sequence[Case]) -> dict[str, Any]:
    """What is reported, as values of JSON."""
    rows = []
    for (route, kind), answers in sorted(report.answers.items()):
        listed = ", ".join(f"{n} x {status} {name}".rstrip() for (status, name), n in sorted(answers.items()))
        rows.append({"route": route, "kind": kind, "answers": listed})
    statuses = Counter(status for answers in report.answers.values() for (status, _) in answers.elements())
    seconds, route, kind = report.slowest
    return {
        "answers": rows,
        "requests": len(cases),
        "damaged_files": sum(c.route != "/encode" for c in cases),
        "with_right_checksum": sum(c.sealed for c in cases),
        "by_status": {str(status): count for status, count in sorted(statuses.items())},
        "with_right_checksum_decoded": report.readable,
        "slowest": {"seconds": round(seconds, 2), "route": route, "kind": kind},
        "resident_mib": {"start": round(seen.start), "peak": round(seen.peak), "end": round(seen.end)},
        "rise_limit_mib": LIMIT_MIB,
        "failures": report.failures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = record.parse(parser)
    start = time.perf_counter()
    with running_server(max_pixels=str(MAX_PIXELS)) as (client, process):
        valid = valid_files(client)
        before = fingerprint(client, valid.plain)
        cases = damaged_files(valid, options.files, options.seed) + hostile_images(options.images, options.seed)
        with watched(process) as seen:
            report = attack(client, cases)
        if alive(client) and fingerprint(client, valid.plain) != before:
            report.failures.append("a valid file decodes to other bytes than before")
    if seen.peak - seen.start > LIMIT_MIB:
        report.failures.append(f"memory rose by {seen.peak - seen.start:.0f} MiB")
    if 2 * sum(c.sealed for c in cases) < options.files:
        report.failures.append("less than half of the damaged files have a right checksum")
    record.finish(options, figures_of(report, seen, cases) | {"seconds": round(time.perf_counter() - start)})
    sys.exit(int(bool(report.failures)))


if __name__ == "__main__":
    main()
