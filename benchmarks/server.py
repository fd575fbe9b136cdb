"""A real server in a process of its own, for benchmarks: `cdc serve` on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

START_SECONDS = 180.0


def free_port() -> int:
    """A TCP port nobody listens on at present."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running_server(log: Path | None = None, **settings: str) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Yield a client of a ready server and its process; `settings` are CDC_ variables in lower case."""
    port = free_port()
    env = os.environ | {f"CDC_{k.upper()}": v for k, v in settings.items()}
    argv = [sys.executable, "-m", "cdc_client", "serve", "--port", str(port)]
    with (log or Path(os.devnull)).open("wb") as out:
        process = subprocess.Popen(argv, env=env, stdout=out, stderr=out)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=900) as client:
                _wait_ready(client, process)
                yield client, psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the server did not get ready")


def memory(process: psutil.Process) -> int:
    """Resident bytes of a process and its children."""
    total = 0
    for p in (process, *process.children(recursive=True)):
        try:
            total += p.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
