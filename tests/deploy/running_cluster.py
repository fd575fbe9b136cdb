"""`deploy/cluster.py` as a subprocess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.server import free_port
from tests.polling import wait_for

ROOT = Path(__file__).parents[2]


class RunningCluster:
    """Its process, and the newest state it has told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.states: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return str(self.states[-1]["url"])

    def member(self, name: str) -> dict[str, int]:
        found: dict[str, int] = self.states[-1]["members"][name]
        return found

    def wait_for(self, count: int, seconds: float = 180) -> None:
        """Wait until it has told its state so often."""
        wait_for(lambda: len(self.states) >= count or self.process.poll() is not None, seconds)
        assert len(self.states) >= count, "it has ended"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.states.append(json.loads(line))


@contextmanager
def running_cluster(folder: Path, **settings: str) -> Iterator[RunningCluster]:
    env = os.environ | {f"CDC_{name.upper()}": value for name, value in settings.items()}
    argv = [sys.executable, "deploy/cluster.py", "--port", str(free_port()), "--folder", str(folder)]
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        cluster = RunningCluster(process)
        cluster.wait_for(1)
        yield cluster
    finally:
        process.terminate()
        process.wait(90)
        if process.stdout is not None:
            process.stdout.close()
